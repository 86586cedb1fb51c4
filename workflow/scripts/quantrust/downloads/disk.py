"""Room on the disk that downloads and archives are put on."""

import shutil
from pathlib import Path

from quantrust.errors import QuantrustError


def require_space(folder: Path, needed: int) -> None:
    """Raise when the disk of a folder has fewer free bytes than are needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise QuantrustError(f"{folder}: {needed:,} bytes are needed and {free:,} are free; make room on that disk")
