"""Answers of a variant to a dataset, made by the job of any of its datasets that the same run asks for. No torch.

A job spends seconds on importing what runs a model. So the job of one dataset goes on with the others, whose own jobs
then find what they would make (`quantrust.inference.made_early`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.artifacts.folder_record import RECORD
from quantrust.inference.made_early import key_of, take_features, waits


@dataclass(frozen=True)
class Dump:
    """A variant and a dataset that it answers.

    Attributes
    ----------
    checkpoint, questions : str
        The folder of the variant, and the questions table.
    images : sequence of str
        Folders of the images that the questions name.
    given : mapping
        What else the answers depend on, of JSON's types: `settings` (of `DumpSettings`), `task` and `code` (digests).
    features : str
        The file that its own job leaves.
    made : str
        The folder in which it waits for its own job, if that of another dataset makes it.
    begun : int, optional
        When the run began that asks for it, in nanoseconds: features from then on are what it asks for.
    """

    checkpoint: str
    questions: str
    images: tuple[str, ...]
    given: Mapping[str, Any]
    features: str
    made: str
    begun: int | None = None

    def is_there(self) -> bool:
        """Return whether its own job has left the features since the run began."""
        path = Path(self.features)
        return self.begun is not None and path.is_file() and path.stat().st_mtime_ns >= self.begun

    def key(self) -> str:
        """Return the SHA-256 of all that the answers depend on.

        Raises
        ------
        QuantrustError
            If a file that they are made from cannot be read.
        """
        return key_of([Path(self.checkpoint, RECORD), self.questions], self.images, self.given)


def take(dump: Dump, key: str) -> bool:
    """Put features that wait in their place; return False if they do not wait."""
    if not waits(dump.made, key):
        return False
    take_features(dump.made, dump.features)
    return True
