"""Digests of files, computed once for what a process reads or writes again and again; and what to do about damage."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MOMENT = 100_000_000
"""Nanoseconds that the clock of a file system certainly tells apart."""

_known: dict[tuple[int | str, ...], str] = {}


def digest_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes; a file that did not change since is not read again by this process.

    Raises
    ------
    OSError
        If it can not be read.
    """
    with open(path, "rb") as file:
        return digest_once(file, "whole", lambda: hashlib.file_digest(file, "sha256").hexdigest())


def digest_once(file: BinaryIO, what: str, compute: Callable[[], str]) -> str:
    """Return a digest of an open file, which is computed unless this process has computed it of the same bytes.

    Parameters
    ----------
    file : binary file
    what : str
        Which digest it is.
    compute : callable
    """
    found, now = os.fstat(file.fileno()), time.time_ns()
    # the last is another whenever bytes of the file were changed, also where its time was set back
    key = (what, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key in _known:
        return _known[key]
    digest = compute()
    # in the moment of a change another one would leave the same time
    if now - found.st_ctime_ns > MOMENT:
        _known[key] = digest
    return digest


def how_to_rebuild(artifact: str | Path) -> str:
    """Return what to do about a damaged artifact, as the end of a message."""
    return f"delete {artifact} and run the same command again; `snakemake {artifact}` alone builds it anew"
