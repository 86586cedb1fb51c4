"""Room on the disk: checked before long work begins, and named in the error if it runs out in between."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantrust.errors import QuantrustError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk, or of a user's share of it, that is full."""


def check_disk(path: str | Path, needed: int, advice: str) -> None:
    """Raise when the disk has no room for an artifact.

    Parameters
    ----------
    path : str or Path
        Where it will be written; its folder need not exist yet.
    needed : int
        Its bytes, and those of scratch files beside it.
    advice : str
        How to make it smaller.

    Raises
    ------
    QuantrustError
    """
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise QuantrustError(
            f"{path} takes up to {needed / 1e9:.3g} GB, but {folder} has {free / 1e9:.3g} GB free; make room, move the "
            f"study to another disk, or {advice}"
        )


def require_space(folder: Path, needed: int) -> None:
    """Raise when the disk of a folder has fewer free bytes than are needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise QuantrustError(f"{folder}: {needed:,} bytes are needed and {free:,} are free; make room on that disk")


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Turn the error of a full disk, from whichever library, into one that names the artifact.

    Parameters
    ----------
    path : str or Path
        What the block writes.

    Raises
    ------
    QuantrustError
    """
    try:
        yield
    except QuantrustError:
        raise
    except Exception as error:
        told = next((one for one in _with_those_before(error) if _says_full(one)), None)
        if told is None:
            raise
        raise QuantrustError(
            f"{path}: the disk has no room for it ({told}); make room, or move the study to another disk, and run the "
            "same command again"
        ) from None


def _with_those_before(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its predecessors: closing a truncated file may fail as well, and hide the first error."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_full(error: BaseException) -> bool:
    # polars and safetensors raise errors of their own, which hold only the system's message
    return any(os.strerror(code) in str(error) for code in FULL)
