"""Cells of a grid: answers of one of many variants, made by whichever job of the grid comes to it first. No torch.

The job of a cell first looks whether another job has made it already. If not, it makes it, and goes on with other cells
of the model that nobody has made yet. A cell that is made, and whose own job is still to come, lies in a folder of its
own (`quantrust.artifacts.made_early`), which holds the features and the checkpoint's record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.artifacts import made_early
from quantrust.artifacts.documents import check_document, writing_document
from quantrust.artifacts.folder_record import RECORD
from quantrust.artifacts.made_early import describe, key_of, waits
from quantrust.errors import QuantrustError
from quantrust.files import read_object, write_json

FEATURES = "features.parquet"
"""Their name in the folder where a cell waits."""


@dataclass(frozen=True)
class Cell:
    """A variant that is a cell of a grid, and a dataset.

    Attributes
    ----------
    scheme : str
    model, questions : str
        The folder of the unquantized model, and the questions table.
    calibration : str or None
        The calibration table of a method that reads data.
    images : sequence of str
        Folders of the images that questions and calibration name.
    given : mapping
        What else answers depend on, of JSON's types: `table` (the scheme, as the config has it), `settings` (of
        `DumpSettings`), `task`, `device` and `code` (digests).
    features, record : str
        The files that its own job leaves: the features, and the record of the checkpoint, which itself is not kept.
    made : str
        The folder in which it waits for its own job.
    """

    scheme: str
    model: str
    questions: str
    calibration: str | None
    images: tuple[str, ...]
    given: Mapping[str, Any]
    features: str
    record: str
    made: str

    @property
    def place(self) -> str:
        """Where its features lie, by which it is known."""
        return self.features

    def key(self) -> str:
        """Return the SHA-256 of all that its answers depend on.

        Raises
        ------
        QuantrustError
            If a file that it is made from cannot be read.
        """
        return key_of(self._files(), self.images, [self.scheme, self.given])

    def reads(self) -> str:
        """Return the SHA-256 of what cells may share work on: model, samples, questions and how they are put.

        Raises
        ------
        QuantrustError
            If a file of them cannot be read.
        """
        asked = [self.given[name] for name in ("settings", "task", "device")]
        return key_of(self._files(), self.images, asked)

    def _files(self) -> list[str | Path]:
        return [Path(self.model, RECORD), self.questions, *([] if not self.calibration else [self.calibration])]

    def is_there(self, key: str) -> bool:
        """Return whether nobody has to make it: its own job has left it, or it waits for that."""
        if self.waits(key):
            return True
        try:
            check_document(self.record)
        except QuantrustError:
            return False
        return Path(self.features).is_file() and read_object(self.record)["made_from"] == key

    def waits(self, key: str) -> bool:
        """Return whether it is made from what has this key, by the libraries that are installed, and is whole."""
        return waits(self.made, key)


def write_cell(folder: Path, key: str, record: Mapping[str, Any]) -> None:
    """Write what a folder says of the features in it.

    Parameters
    ----------
    folder : Path
    key : str
        Of the cell.
    record : mapping
        Of the checkpoint that gave them.
    """
    describe(folder, key, {"checkpoint": record})


def take(cell: Cell, key: str) -> bool:
    """Put the files of a cell that waits in their places; return False if it does not wait."""
    if not cell.waits(key):
        return False
    described = made_early.take(cell.made, FEATURES, cell.features)
    with writing_document(cell.record) as partial:
        write_json(partial, {"made_from": key, **described["checkpoint"]})
    return True
