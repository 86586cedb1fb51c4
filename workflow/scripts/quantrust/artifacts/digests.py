"""Digests of files, computed once per process and file, and the advice on how to rebuild a damaged artifact."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

MOMENT = 100_000_000
"""Nanoseconds that the clock of a file system certainly tells apart."""
AT_ONCE = 1 << 20
"""Bytes of a file that is read as a whole; to prepare for more takes longer than to read them."""

_known: dict[tuple[int | str, ...], Any] = {}


def digest_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes; this process reads an unchanged file only once.

    Raises
    ------
    OSError
        If it cannot be read.
    """

    def compute() -> str:
        if found.st_size <= AT_ONCE:
            return hashlib.sha256(file.read()).hexdigest()
        return hashlib.file_digest(file, "sha256").hexdigest()

    with open(path, "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        return once(found, "digest", compute)


def once(found: os.stat_result, what: str, compute: Callable[[], T]) -> T:
    """Return a value computed from a file's bytes; this process computes it only once for the same bytes.

    Parameters
    ----------
    found : os.stat_result
        Of the file, from before it is read.
    what : str
        What is computed.
    compute : callable
    """
    now = time.time_ns()
    # the last is another whenever bytes of the file were changed, also where its time was set back
    key = (what, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key in _known:
        return _known[key]
    value = compute()
    # in the moment of a change another one would leave the same time
    if now - found.st_ctime_ns > MOMENT:
        _known[key] = value
    return value


def how_to_rebuild(artifact: str | Path) -> str:
    """Return advice on how to rebuild a damaged artifact, as the end of a message."""
    return f"delete {artifact} and run the same command again; `snakemake {artifact}` alone builds it anew"
