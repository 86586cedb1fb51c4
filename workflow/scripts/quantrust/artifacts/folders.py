"""Artifacts that are folders: complete or absent when written, with a record of their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantrust.artifacts.folder_record import write_record
from quantrust.files import atomic_directory


@contextmanager
def artifact_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder; when the block ends well, add the record of its files and put it in its place.

    Parameters
    ----------
    path : str or Path
        The folder to write. A folder that stands there is replaced as a whole.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    with atomic_directory(path) as folder:
        yield folder
        write_record(folder)
