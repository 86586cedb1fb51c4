"""Answers of a variant to a dataset, made by whichever job of its model comes to them first. No torch.

A job spends seconds on importing what runs a model. So a job goes on with other datasets and variants of the model,
whose own jobs then find what they would make (`quantrust.artifacts.made_early`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.artifacts.folder_record import RECORD
from quantrust.artifacts.made_early import EarlyArtifact, key_of
from quantrust.models.companions import COMPANIONS


@dataclass(frozen=True)
class Dump(EarlyArtifact):
    """A variant and a dataset that it answers; a features file.

    Attributes
    ----------
    checkpoint, questions : str
        The folder of the variant, and the questions table.
    images : sequence of str
        Folders of the images that the questions name.
    given : mapping
        What else the answers depend on, of JSON's types: `settings` (of `DumpSettings`), `task` and `code` (digests).
    """

    checkpoint: str
    questions: str
    images: tuple[str, ...]
    given: Mapping[str, Any]

    def key(self) -> str:
        """Return the SHA-256 of all that the answers depend on.

        Raises
        ------
        QuantrustError
            If a file that they are made from cannot be read.
        """
        return key_of([Path(self.checkpoint, RECORD), self.questions], self.images, self.given)

    def asks(self) -> str:
        """Return the SHA-256 of what is asked, and how: of all that the answers depend on but the weights.

        Raises
        ------
        QuantrustError
            If a file that they are made from cannot be read.
        """
        processor = [path for name in COMPANIONS if (path := Path(self.checkpoint, name)).is_file()]
        return key_of([self.questions, *processor], self.images, self.given)
