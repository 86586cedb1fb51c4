"""Artifacts in formats without a place for a digest: tables, figures and pages of a report, records of downloads.

The digest of `tables/accuracy.csv` stands in `tables/.digests/accuracy.csv.sha256`, as `sha256sum` writes it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantrust.artifacts.digests import digest_of, how_to_rebuild
from quantrust.errors import QuantrustError
from quantrust.files import atomic_path

DIGESTS = ".digests"


@contextmanager
def writing_document(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path`; when the block ends well, note its digest and move it there.

    Parameters
    ----------
    path : str or Path
        The file to write. Its parent folder is created.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    path = Path(path)
    with atomic_path(path) as partial:
        yield partial
        with atomic_path(_note_path(path)) as note:
            note.write_bytes(_note(path, digest_of(partial)))


def check_document(path: str | Path) -> None:
    """Raise if a document is not as it was written.

    Raises
    ------
    QuantrustError
        If it or its digest is missing, cannot be read, or a byte of either has changed.
    """
    path = Path(path)
    if not path.is_file():
        raise QuantrustError(f"{path} is missing; run the same command again: `snakemake {path}` builds it")
    note = _note_path(path)
    try:
        whole = note.is_file() and note.read_bytes() == _note(path, digest_of(path))
    except OSError as error:
        raise QuantrustError(
            f"{path} cannot be read ({error.strerror}); make it readable, or {how_to_rebuild(path)}"
        ) from None
    if not whole:
        raise QuantrustError(
            f"{path} is damaged, or was edited: it does not have the SHA-256 that stands in {note}; "
            f"{how_to_rebuild(path)}"
        )


def _note_path(path: Path) -> Path:
    return path.parent / DIGESTS / f"{path.name}.sha256"


def _note(path: Path, digest: str) -> bytes:
    return f"{digest}  {path.name}\n".encode()
