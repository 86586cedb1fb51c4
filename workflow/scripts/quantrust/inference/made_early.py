"""What the job of another has made early, and what waits for its own job in a folder of its own. No torch.

Jobs that run a model spend seconds on imports, and more on work that several of them share. So such a job goes on with
what others would do, and leaves the result of each in a folder. The folder says what the result was made from. The job
that it was made for looks there first, and takes it only if it would make the same.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from quantrust.artifacts.digests import digest_of
from quantrust.artifacts.folder_record import RECORD, check_folder
from quantrust.errors import QuantrustError
from quantrust.files import read_object, write_json

FEATURES, ABOUT = "features.parquet", "made.json"
LIBRARIES = ("torch", "transformers")
LONGEST = 900
"""Seconds after which a job begins nothing further: a cluster limits the time of jobs, and others share the work."""
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says that has no locks."""

_log = logging.getLogger(__name__)


class Early(Protocol):
    """Answers that the job of others may make."""

    @property
    def features(self) -> str:
        """The file that their own job leaves."""

    @property
    def made(self) -> str:
        """The folder in which they wait for their own job."""


AnyEarly = TypeVar("AnyEarly", bound=Early)


def go_on(others: Iterable[AnyEarly], make: Callable[[AnyEarly], None], until: float) -> None:
    """Make what is the work of other jobs, one after another, but for what another job is making.

    What is wrong with one is logged; its own job will say it.

    Parameters
    ----------
    others : iterable of Early
    make : callable
        Makes one, unless it is there.
    until : float
        The moment, on the clock of `time.monotonic`, after which nothing further is begun.
    """
    for other in others:
        if time.monotonic() > until:
            break
        with locked(other.made, wait=False) as held:
            if held:
                try:
                    make(other)
                except QuantrustError as error:
                    _log.warning("%s is left to its own job: %s", other.features, error)


def key_of(files: Sequence[str | Path], folders: Sequence[str], given: object) -> str:
    """Return the SHA-256 of all that something is made from.

    Parameters
    ----------
    files : sequence of str or Path
        Their bytes count.
    folders : sequence of str
        Folders of images. The record of one that a study wrote counts, of others the time of the last change.
    given : object
        What else counts, of JSON's types.

    Raises
    ------
    QuantrustError
        If a file or folder cannot be read.
    """
    try:
        read = [[digest_of(path) for path in files], [_state_of(folder) for folder in folders]]
    except OSError as error:
        raise QuantrustError(f"{error.filename} cannot be read ({error.strerror}); make it readable") from None
    return hashlib.sha256(json.dumps([read, given], sort_keys=True).encode()).hexdigest()


def describe(folder: Path, key: str, more: Mapping[str, Any] | None = None) -> None:
    """Write what a folder says of what waits in it.

    Parameters
    ----------
    folder : Path
    key : str
        As `key_of` returns it.
    more : mapping, optional
        What its own job wants to know beside the files.
    """
    write_json(folder / ABOUT, {"made_from": key, "versions": _versions(), **(more or {})})


def waits(folder: str | Path, key: str) -> bool:
    """Return whether a folder holds what is made from what has this key, by the installed libraries, and is whole."""
    try:
        check_folder(folder)
    except QuantrustError:
        return False
    about = read_object(Path(folder, ABOUT))
    return bool(about["made_from"] == key and about["versions"] == _versions())


def take_features(folder: str | Path, place: str | Path) -> dict[str, Any]:
    """Put features that wait in their place, give up the folder, and return what it said."""
    about = read_object(Path(folder, ABOUT))
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    os.replace(Path(folder, FEATURES), place)
    # no older than what they were made from, which may have been touched since
    os.utime(place)
    shutil.rmtree(folder)
    return about


@contextmanager
def locked(folder: str | Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of what will wait in a folder, so that no two jobs make it at a time.

    On a file system without locks every job gets it. Two jobs that make the same make the same bytes.

    Parameters
    ----------
    folder : str or Path
    wait : bool
        Whether to wait for a job that holds it.

    Yields
    ------
    bool
        Whether this job holds it.

    Raises
    ------
    OSError
        If the lock cannot be had for another reason than that the file system has none.
    """
    path = Path(f"{folder}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _state_of(folder: str) -> str | int:
    """Return the digest of a folder's record, or, of a folder that no study wrote, the time of its last change."""
    record = Path(folder, RECORD)
    return digest_of(record) if record.is_file() else os.stat(folder).st_mtime_ns


def _versions() -> dict[str, str]:
    return {library: version(library) for library in LIBRARIES}
