"""The record in an artifact that is a folder: size and SHA-256 of every other file in it, and its own digest.

The record is `quantrust-digests.json`, written after all other files of the folder. It names files by their paths in
the folder; its own `sha256` is the digest of its entry `files`. Its bytes must be those that `_text` makes of its
content, so that a changed byte of the record is noticed as well.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantrust.artifacts.digests import digest_of, how_to_rebuild, once
from quantrust.errors import QuantrustError

RECORD = "quantrust-digests.json"
OF_SNAKEMAKE = ".snakemake_timestamp"
"""A file without content that Snakemake puts into the folders that its jobs write."""
DEEPEST = 2
"""How many folders deep files lie in an artifact: in it, or in a folder in it."""

Listed = dict[str, dict[str, Any]]


def write_record(folder: str | Path) -> None:
    """Write the record of a folder whose other files are all there."""
    folder = Path(folder)
    listed = {}
    for name in _names(folder):
        path = folder / name
        listed[name] = {"bytes": path.stat().st_size, "sha256": digest_of(path)}
    (folder / RECORD).write_text(_text(listed), encoding="ascii")


def check_folder(folder: str | Path, which: Callable[[str], bool] = lambda name: True) -> None:
    """Raise if an artifact is not as it was written; this process reads an unchanged file only once.

    Parameters
    ----------
    folder : str or Path
    which : callable
        Takes the name of a file and returns whether its bytes are checked; by default all are. Missing files, and files
        that the record does not list, are errors in any case.

    Raises
    ------
    QuantrustError
        If the folder or its record is missing, or a byte of it has changed; if a file is missing, is there without
        being listed, cannot be read, or has another size or digest than is listed.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        what = "is not an artifact of a study, or is incomplete" if folder.is_dir() else "is missing"
        raise QuantrustError(f"{folder} {what}: there is no {RECORD} in it; {how_to_rebuild(folder)}")
    listed, there = _read_record(folder), set(_names(folder))
    # names may hold bytes that are not text
    for name in sorted(listed.keys() - there):
        raise QuantrustError(f"{folder} lacks {name!r}, which its {RECORD} lists; {how_to_rebuild(folder)}")
    for name in sorted(there - listed.keys()):
        raise QuantrustError(
            f"{folder} holds {name!r}, which its {RECORD} does not list; take it out, or {how_to_rebuild(folder)}"
        )
    for name, entry in listed.items():
        if which(name):
            _check(folder, name, entry)


def check_file(path: str | Path) -> None:
    """Raise if a file lies in an artifact and is not as it was written; other files pass unread.

    Parameters
    ----------
    path : str or Path
        Of any file that is to be read: a user's, or one of an artifact that is a folder.

    Raises
    ------
    QuantrustError
        As `check_folder` does of this file and of the record.
    """
    # called for every picture of a dataset: paths as texts take a fraction of the time
    folder, name = os.path.split(os.fspath(path))
    for _ in range(DEEPEST):
        if name != RECORD and os.path.isfile(os.path.join(folder, RECORD)):
            listed = _read_record(folder)
            if name in listed:
                _check(folder, name, listed[name])
            elif os.path.exists(path):
                raise QuantrustError(f"{path} is not listed by {Path(folder, RECORD)}; {how_to_rebuild(folder)}")
            return
        folder, above = os.path.split(folder)
        name = f"{above}/{name}"


def _check(folder: str | Path, name: str, entry: dict[str, Any]) -> None:
    path = os.path.join(folder, name)
    try:
        found = os.stat(path)
        # a pipe in its place would never end; one that is cut short is not read to its end
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError
        whole = found.st_size == entry["bytes"] and digest_of(path) == entry["sha256"]
    except FileNotFoundError:
        raise QuantrustError(f"{path} is missing, though {RECORD} lists it; {how_to_rebuild(folder)}") from None
    except OSError as error:
        raise QuantrustError(
            f"{path} cannot be read ({error.strerror}); make it readable, or {how_to_rebuild(folder)}"
        ) from None
    if not whole:
        raise QuantrustError(
            f"{path} is damaged: it has another size or SHA-256 than {RECORD} lists; {how_to_rebuild(folder)}"
        )


def _names(folder: Path) -> Iterator[str]:
    """Yield the paths of a folder's files in it, in order, without the record and Snakemake's mark."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in (RECORD, OF_SNAKEMAKE):
            yield name


def _read_record(folder: str | Path) -> Listed:
    path = os.path.join(folder, RECORD)
    try:
        listed = once(os.stat(path), RECORD, lambda: _parsed(Path(path).read_bytes()))
    except OSError as error:
        raise QuantrustError(
            f"{path} cannot be read ({error.strerror}); make it readable, or {how_to_rebuild(folder)}"
        ) from None
    if listed is None:
        raise QuantrustError(f"{path} is damaged, or was edited; {how_to_rebuild(folder)}")
    return listed


def _parsed(written: bytes) -> Listed | None:
    """Return what a record lists, None if it is not as it was written."""
    try:
        listed = json.loads(written)["files"]
        whole = written == _text(listed).encode() and all(map(_is_entry, listed.values()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return listed if whole else None


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def _text(listed: Listed) -> str:
    """Return the record that lists these files."""
    files = json.dumps(listed, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(files.encode()).hexdigest()
    return json.dumps({"files": listed, "sha256": digest}, indent=1, sort_keys=True, allow_nan=False) + "\n"
