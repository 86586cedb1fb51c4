"""Cells of a grid: answers of one of many variants, made by whichever job of the grid comes to it first. No torch.

The job of a cell first looks whether another job has made it already. If not, it makes it, and goes on with other cells
of the model that nobody has made yet. A cell that is made, and whose own job is still to come, lies in a folder of its
own: the features, and `cell.json` with the checkpoint's record and the digest of all that the cell is made from.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantrust.artifacts.digests import digest_of
from quantrust.artifacts.documents import check_document, writing_document
from quantrust.artifacts.folder_record import RECORD, check_folder
from quantrust.errors import QuantrustError
from quantrust.files import read_object, write_json

FEATURES, CELL = "features.parquet", "cell.json"
LIBRARIES = ("torch", "transformers")
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says that has no locks."""


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

    def key(self) -> str:
        """Return the SHA-256 of all that its answers depend on.

        Raises
        ------
        QuantrustError
            If a file that it is made from cannot be read.
        """
        files = [Path(self.model, RECORD), Path(self.questions), *([] if not self.calibration else [self.calibration])]
        try:
            read = [[digest_of(path) for path in files], [_state_of(folder) for folder in self.images]]
        except OSError as error:
            raise QuantrustError(f"{error.filename} cannot be read ({error.strerror}); make it readable") from None
        return hashlib.sha256(json.dumps([self.scheme, read, self.given], sort_keys=True).encode()).hexdigest()

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
        try:
            check_folder(self.made)
        except QuantrustError:
            return False
        described = read_object(Path(self.made, CELL))
        return described["made_from"] == key and described["versions"] == _versions()


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
    write_json(folder / CELL, {"made_from": key, "versions": _versions(), "checkpoint": record})


def take(cell: Cell, key: str) -> bool:
    """Put the files of a cell that waits in their places; return False if it does not wait."""
    made = Path(cell.made)
    if not cell.waits(key):
        return False
    described = read_object(made / CELL)
    Path(cell.features).parent.mkdir(parents=True, exist_ok=True)
    os.replace(made / FEATURES, cell.features)
    # no older than what it was made from, which may have been touched since
    os.utime(cell.features)
    with writing_document(cell.record) as partial:
        write_json(partial, {"made_from": key, **described["checkpoint"]})
    shutil.rmtree(made)
    return True


@contextmanager
def locked(cell: Cell, wait: bool) -> Iterator[bool]:
    """Hold the lock of a cell, so that no two jobs make it at a time.

    On a file system without locks every job gets it. Two jobs that make a cell make the same bytes.

    Parameters
    ----------
    cell : Cell
    wait : bool
        Whether to wait for a job that holds it.

    Yields
    ------
    bool
        Whether this job holds it.

    Raises
    ------
    OSError
        If the lock cannot be had for another reason than that the file system has none.
    """
    path = Path(f"{cell.made}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _state_of(folder: str) -> str | int:
    """Return the digest of a folder's record, or, of a folder that no study wrote, the time of its last change."""
    record = Path(folder, RECORD)
    return digest_of(record) if record.is_file() else os.stat(folder).st_mtime_ns


def _versions() -> dict[str, str]:
    return {library: version(library) for library in LIBRARIES}
