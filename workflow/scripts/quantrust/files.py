"""Writing artifacts so that they are complete or absent."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantrust.disk import naming_full_disk


def partial_path(path: Path) -> Path:
    """Return the path beside `path` under which it is written until it is complete."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path`; move it there when the block ends well, delete it when it raises.

    Parameters
    ----------
    path : str or Path
        The file to write. Its parent folder is created.

    Yields
    ------
    Path
        A path in the same folder, so that the final rename is atomic.

    Raises
    ------
    QuantrustError
        If the disk fills while the block runs.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with naming_full_disk(path):
            yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; put it in the place of `path` when the block ends well.

    Parameters
    ----------
    path : str or Path
        The folder to write. A folder that stands there is replaced as a whole.

    Yields
    ------
    Path
        A folder with the same parent.

    Raises
    ------
    QuantrustError
        If the disk fills while the block runs.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        with naming_full_disk(path):
            yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON with a final newline, atomically; NaN and infinity are refused."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
