"""Room on the disk, checked before long work begins."""

import shutil
from pathlib import Path

from quantrust.errors import QuantrustError


def check_disk(path: str | Path, needed: int, advice: str) -> None:
    """Raise when the disk has no room for an artifact.

    Parameters
    ----------
    path : str or Path
        Where it will be written; its folder need not exist yet.
    needed : int
        Its bytes, and those of files beside it while it is made.
    advice : str
        How it takes less.

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
