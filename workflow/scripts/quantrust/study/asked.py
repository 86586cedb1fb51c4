"""What a run makes, as far as its jobs make the work of others.

When a run begins, the files that it makes are noted; when it ends, the note goes. A run that is killed leaves its note
to the next one, which begins with one of its own. Without a note, as in a workflow that uses this one as a module,
every job makes its own alone.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from quantrust.artifacts.made_early import EarlyArtifact, is_written
from quantrust.files import atomic_path
from quantrust.study import paths


def note_asked(files: Iterable[str]) -> None:
    """Write down the files and folders that a run makes, in the place of what an earlier one made."""
    with atomic_path(paths.ASKED) as note:
        note.write_text("\n".join(sorted(files)), encoding="utf-8")


def forget_asked() -> None:
    """Remove the note of a run that has ended, so that no job of another goes by it."""
    Path(paths.ASKED).unlink(missing_ok=True)


@dataclass(frozen=True)
class Asked:
    """What is noted.

    Attributes
    ----------
    files : collection of str
        All that the run makes.
    begun : int
        When it began, in nanoseconds.
    """

    files: Collection[str]
    begun: int

    def can_be_made(self, artifact: EarlyArtifact, needed: Iterable[str]) -> bool:
        """Return whether an artifact can be made now, and is still to be made.

        What it needs must be there. If the run makes that, it must have done so: what an earlier run left would be used
        in vain.
        """
        return not artifact.is_there() and all(
            is_written(path, self.begun) if path in self.files else Path(path).exists() for path in needed
        )


def read_asked() -> Asked:
    """Read what the run that is going on makes; nothing where none is noted."""
    # the run may end at any moment, as one does that only hands its jobs to a cluster
    try:
        with open(paths.ASKED, encoding="utf-8", errors="replace") as note:
            return Asked(set(note.read().splitlines()), os.fstat(note.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return Asked((), 0)
