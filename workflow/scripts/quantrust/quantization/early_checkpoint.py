"""Checkpoints, each made by whichever job of its model comes to it first. No torch.

Quantizing a small model takes less than importing what it needs. So a job goes on with other schemes of the model,
whose own jobs then find what they would make (`quantrust.artifacts.made_early`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.artifacts.folder_record import RECORD
from quantrust.artifacts.made_early import EarlyArtifact, key_of


@dataclass(frozen=True)
class EarlyCheckpoint(EarlyArtifact):
    """A model and a scheme; the folder of a variant.

    Attributes
    ----------
    scheme : str
    model : str
        The folder of the unquantized model.
    calibration : str or None
        The calibration table of a method that reads data.
    images : sequence of str
        Folders of the images that the calibration table names.
    given : mapping
        What else the checkpoint depends on, of JSON's types: `table` (the scheme, as the config has it), `device` and
        `code` (digests).
    """

    scheme: str
    model: str
    calibration: str | None
    images: tuple[str, ...]
    given: Mapping[str, Any]

    def key(self) -> str:
        """Return the SHA-256 of all that the checkpoint depends on.

        Raises
        ------
        QuantrustError
            If a file that it is made from cannot be read.
        """
        return key_of(self._files(), self.images, [self.scheme, self.given])

    def reads(self) -> str:
        """Return the SHA-256 of the model and of the calibration samples, which schemes may share work on.

        Raises
        ------
        QuantrustError
            If a file of them cannot be read.
        """
        return key_of(self._files(), self.images, None)

    def _files(self) -> list[str | Path]:
        return [Path(self.model, RECORD), *([] if self.calibration is None else [self.calibration])]
