"""Flushing written files from the system's memory to the disk, so that a loss of power takes nothing away."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path


def sync(path: str | Path) -> None:
    """Wait until a file is on the disk; of a folder, until its entries are, but not the files that they name.

    Raises
    ------
    OSError
        If the disk is full or broken.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems of virtual machines and networks cannot sync folders
        if error.errno != errno.EINVAL or not os.path.isdir(path):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: str | Path) -> None:
    """Wait until all files and folders below a folder, and itself, are on the disk; raises as `sync`."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(parent)


def sync_files(paths: Iterable[str | Path]) -> None:
    """Wait until files and their entries in their folders are on the disk; raises as `sync`.

    Syncing many files at the end is much faster than syncing each after it is written: by then most of the first ones
    have reached the disk.
    """
    written = [Path(path) for path in paths]
    for path in written:
        sync(path)
    for folder in sorted({path.parent for path in written}):
        sync(folder)
