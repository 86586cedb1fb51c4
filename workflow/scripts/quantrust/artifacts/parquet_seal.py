"""The seal of a Parquet file: the SHA-256 of all its bytes, stored in the file itself.

The footer of a sealed file has the entry `quantrust.sha256` among its metadata. This is the digest of the whole file
with 64 zeros in the digest's place. It travels with the file, and any changed byte is noticed: of the data, the footer,
its length, or the seal. To readers of Parquet it is a metadata entry like any other.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from quantrust.artifacts.digests import how_to_rebuild, once
from quantrust.errors import QuantrustError

KEY = "quantrust.sha256"
BLANK = "0" * 64
"""What a writer puts under `KEY` for `seal` to fill in."""
MAGIC = b"PAR1"
CHUNK = 1 << 20
# The entry as Thrift's compact protocol writes it: two binary fields, the first and the next, each with its length.
_ENTRY = b"\x18" + bytes([len(KEY)]) + KEY.encode() + b"\x18" + bytes([len(BLANK)])


def seal(path: str | Path) -> None:
    """Put the digest of a Parquet file in the place that its writer left for it.

    Parameters
    ----------
    path : str or Path
        A file with `BLANK` under `KEY` among its metadata.

    Raises
    ------
    ValueError
        If it has no such entry.
    """
    with open(path, "r+b") as file:
        place = _place(file)
        if place is None:
            raise ValueError(f"{path} has no entry {KEY} among its metadata")
        file.seek(place)
        if file.read(len(BLANK)) != BLANK.encode():
            raise ValueError(f"{path} is sealed already")
        digest = _digest(file, place)
        file.seek(place)
        file.write(digest.encode())


def check_seal(path: str | Path) -> None:
    """Raise if a Parquet file is not as it was written; this process reads an unchanged file only once.

    Parameters
    ----------
    path : str or Path
        An artifact of a study.

    Raises
    ------
    QuantrustError
        If it is missing, cannot be read, is not a Parquet file of a study, or a byte of it has changed.
    """
    try:
        with open(path, "rb") as file:
            place = _place(file)
            if place is None:
                raise QuantrustError(
                    f"{path} is damaged, or is not an artifact of a study: it has no digest; {how_to_rebuild(path)}"
                )
            file.seek(place)
            borne = file.read(len(BLANK))
            if once(os.fstat(file.fileno()), KEY, lambda: _digest(file, place)).encode() != borne:
                raise QuantrustError(
                    f"{path} is damaged: its bytes do not have the SHA-256 that it bears; {how_to_rebuild(path)}"
                )
    except FileNotFoundError:
        raise QuantrustError(f"{path} is missing; run the same command again: `snakemake {path}` builds it") from None
    except OSError as error:
        raise QuantrustError(
            f"{path} cannot be read ({error.strerror}); make it readable, or {how_to_rebuild(path)}"
        ) from None


def _place(file: BinaryIO) -> int | None:
    """Return the position of the digest in a Parquet file; None if it has no place for one."""
    size = os.fstat(file.fileno()).st_size
    if size < 12:
        return None
    file.seek(size - 8)
    length, magic = struct.unpack("<I4s", file.read(8))
    if magic != MAGIC or length > size - 12:
        return None
    start = size - 8 - length
    file.seek(start)
    # The metadata of the file are last; texts of the data may stand before them.
    found = file.read(length).rfind(_ENTRY)
    return None if found < 0 or found + len(_ENTRY) + len(BLANK) > length else start + found + len(_ENTRY)


def _digest(file: BinaryIO, place: int) -> str:
    """Return the SHA-256 of a file with `BLANK` at a place."""
    digest = hashlib.sha256()
    for part in chain(_parts(file, 0, place), [BLANK.encode()], _parts(file, place + len(BLANK), None)):
        digest.update(part)
    return digest.hexdigest()


def _parts(file: BinaryIO, start: int, stop: int | None) -> Iterator[bytes]:
    """Yield the bytes of a file between two places, some at a time."""
    file.seek(start)
    while part := file.read(CHUNK if stop is None else min(CHUNK, stop - start)):
        start += len(part)
        yield part
