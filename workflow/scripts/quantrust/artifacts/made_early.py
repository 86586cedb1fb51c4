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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from quantrust.artifacts.digests import digest_of
from quantrust.artifacts.folder_record import RECORD, check_folder
from quantrust.artifacts.folders import artifact_folder
from quantrust.errors import QuantrustError
from quantrust.files import atomic_directory, atomic_path, read_object, write_json

ABOUT = "made.json"
LIBRARIES = ("torch", "transformers")
LONGEST = 900
"""Seconds after which a job begins nothing further: a cluster limits the time of jobs, and others share the work."""
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says that has no locks."""

_log = logging.getLogger(__name__)


class Early(Protocol):
    """What the job of another may make."""

    @property
    def place(self) -> str:
        """The file or folder that its own job leaves."""

    @property
    def made(self) -> str:
        """The folder in which it waits for its own job."""

    def key(self) -> str:
        """Return the SHA-256 of all that it depends on."""


AnyEarly = TypeVar("AnyEarly", bound=Early)


@dataclass(frozen=True)
class EarlyArtifact(ABC):
    """An artifact that the job of another may make.

    Attributes
    ----------
    place : str
        The file or folder that its own job leaves.
    made : str
        The folder in which it waits for its own job, if another one makes it.
    begun : int, optional
        When the run began that asks for it, in nanoseconds: what was written from then on is what it asks for.
    """

    place: str
    made: str
    begun: int | None = field(default=None, kw_only=True)

    @abstractmethod
    def key(self) -> str:
        """Return the SHA-256 of all that it depends on.

        Raises
        ------
        QuantrustError
            If a file that it is made from cannot be read.
        """

    def is_there(self) -> bool:
        """Return whether its own job has left it since the run began."""
        return self.begun is not None and is_written(self.place, self.begun)


AnyArtifact = TypeVar("AnyArtifact", bound=EarlyArtifact)


def make_with_others(
    own: AnyArtifact,
    others: Callable[[], Iterable[AnyArtifact]],
    make: Callable[[AnyArtifact, str | Path], None],
    longest: float = LONGEST,
) -> None:
    """Put an artifact in its place, made early or now, and go on with others.

    What another job is making is waited for in the end. A job that finds its own made early ends with that. A job that
    has made its own does not fail by what goes wrong with others.

    Parameters
    ----------
    own : EarlyArtifact
    others : callable
        Returns those to go on with. It is called once the own one is made, or another job is found to be making it.
    make : callable
        Makes one at a path.
    longest : float
        Seconds after which nothing further is begun.

    Raises
    ------
    QuantrustError
        If the own one cannot be made. What is wrong with another one is logged; its own job will say it.
    """
    until = time.monotonic() + longest

    def put() -> bool:
        if waits(own.made, own.key()):
            take(own.made, Path(own.place).name, own.place)
            return False
        make(own, own.place)
        # made of something else, for a run that never came to it
        shutil.rmtree(own.made, ignore_errors=True)
        return True

    def make_early(other: AnyArtifact) -> None:
        # its own job may have ended since this one looked
        if other.is_there() or _says(other.made, key := other.key()):
            return
        with artifact_folder(other.made) as folder:
            make(other, folder / Path(other.place).name)
            if other.key() != key:
                raise QuantrustError("what it is made from has changed meanwhile")
            describe(folder, key)

    is_put = False

    def put_once() -> bool:
        nonlocal is_put
        with locked(own.made, wait=False) as held:
            if held:
                put()
                is_put = True
        return is_put

    with locked(own.made, wait=False) as held:
        if held and not put():
            return
    if held:
        go_on(others, make_early, until)
        return
    # once the other job has made it, or given up, nothing else is begun
    go_on(others, make_early, until, put_once)
    if not is_put:
        with locked(own.made, wait=True):
            put()


def go_on(
    others: Callable[[], Iterable[AnyEarly]],
    make: Callable[[AnyEarly], None],
    until: float,
    ends: Callable[[], bool] = lambda: False,
) -> None:
    """Make what is the work of other jobs, one after another, but for what another job is making.

    What goes wrong is logged, whatever it is: the job that goes on has its own result to keep, and the job of the other
    will say it.

    Parameters
    ----------
    others : callable
        Returns an iterable of Early.
    make : callable
        Makes one, unless it is there.
    until : float
        The moment, on the clock of `time.monotonic`, after which nothing further is begun.
    ends : callable
        Asked before each whether that is enough.
    """
    what, waiting = "what else the run asks for", None
    while time.monotonic() <= until and not ends():
        try:
            waiting = iter(others()) if waiting is None else waiting
            if (other := next(waiting, None)) is None:
                return
            what = other.place
            with locked(other.made, wait=False) as held:
                if held:
                    make(other)
        except QuantrustError as error:
            _log.warning("%s is left to its own job: %s", what, error)
            if waiting is None:
                return
        except Exception:
            _log.warning("%s is left to its own job, and so is all else", what, exc_info=True)
            return


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


def is_written(path: str | Path, begun: int) -> bool:
    """Return whether a file or folder was written at this moment, in nanoseconds, or later.

    What counts of a folder that a study wrote is its record, which comes last.
    """
    record = Path(path, RECORD)
    try:
        return (record if record.is_file() else Path(path)).stat().st_mtime_ns >= begun
    except FileNotFoundError:
        return False


def waits(folder: str | Path, key: str) -> bool:
    """Return whether a folder holds what is made from what has this key, by the installed libraries, and is whole."""
    try:
        check_folder(folder)
    except QuantrustError:
        return False
    return _says(folder, key)


def _says(folder: str | Path, key: str) -> bool:
    """Return whether a folder says so. Its bytes are not looked at, which takes long for a checkpoint."""
    try:
        about = read_object(Path(folder, ABOUT))
    except QuantrustError:
        return False
    return bool(about["made_from"] == key and about["versions"] == _versions())


def take(folder: str | Path, name: str, place: str | Path) -> dict[str, Any]:
    """Put a file or folder that waits in a folder into its place, give up the folder, and return what it said."""
    about = read_object(Path(folder, ABOUT))
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    made, place = Path(folder, name), Path(place)
    try:
        os.replace(made, place)
    except OSError as error:
        # its place may be a link to another disk
        if error.errno != errno.EXDEV:
            raise
        if made.is_dir():
            with atomic_directory(place) as partial:
                shutil.copytree(made, partial, dirs_exist_ok=True)
        else:
            with atomic_path(place) as partial:
                shutil.copyfile(made, partial)
    # no older than what it was made from, which may have been touched since
    record = Path(place, RECORD)
    os.utime(record if record.is_file() else place)
    # on some file systems what another job has open leaves something behind
    shutil.rmtree(folder, ignore_errors=True)
    return about


@contextmanager
def locked(folder: str | Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of what will wait in a folder, so that no two jobs make it at a time.

    A file system without locks gives it only to those that wait: there every job makes its own.

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
    while True:
        with open(path, "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
                yield wait
                return
            # whoever held it has taken the file away, and another job may hold a new one by now
            if not _is_same(path, file):
                continue
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _state_of(folder: str) -> str | int:
    """Return the digest of a folder's record, or, of a folder that no study wrote, the time of its last change."""
    record = Path(folder, RECORD)
    return digest_of(record) if record.is_file() else os.stat(folder).st_mtime_ns


def _versions() -> dict[str, str]:
    return {library: version(library) for library in LIBRARIES}
