"""Temporary names of files and folders until they are whole: one for each writer, and removed if the writer died.

A partial lies beside its final place, under a name that cannot be guessed, and is always made anew. So nothing that is
there already, and no link, is ever written through. While a writer writes, it holds a lock on the partial (for a
folder, on a file in it). The system releases the lock however the writer ends. A partial without a lock has lost its
writer, and the next process that writes into the same folder removes it.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TOKEN = re.compile(r"\..*\.(?P<host>[0-9a-f]{4})[0-9a-f]{12}\.partial", re.DOTALL)
SHOWN = 200
"""Bytes of a file's own name in that of its partial: file systems take 255 in all."""
DAY = 86400
"""Seconds after which another host's partial is stale: on some shared disks a host does not see the locks of others."""
LOCK, CONTENT, REPLACED = "lock", "content", "replaced"
"""What the partial of a folder holds: a lock, with the name of the folder, the new folder, for a moment the old."""

_looked_through: set[Path] = set()
_locked: set[int] = set()


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield a new empty file beside `path` for this writer alone; if it is still there in the end, it is removed.

    Parameters
    ----------
    path : Path
        Its folder exists.
    """
    remove_stale(path.parent)
    while True:
        partial = _new_name(path)
        descriptor = _make_and_lock(partial)
        if descriptor is not None:
            break
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
        _unlock(descriptor)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` for this writer alone; if it is still there in the end, it is removed.

    Parameters
    ----------
    path : Path
        Its parent exists.

    Yields
    ------
    Path
        It holds `LOCK`, and an empty folder `CONTENT` to write into.
    """
    remove_stale(path.parent)
    while True:
        partial = _new_name(path)
        partial.mkdir()
        # a process that clears up may take a folder without a lock for an abandoned one
        with suppress(FileNotFoundError):
            descriptor = _make_and_lock(partial / LOCK)
            if descriptor is not None:
                break
    try:
        os.write(descriptor, os.fsencode(path.name))
        (partial / CONTENT).mkdir()
        yield partial
    finally:
        _clear(partial, path)
        _unlock(descriptor)


def put_in_place(partial: Path, path: Path) -> None:
    """Put the content of a folder's partial in the place of `path`, where a folder may stand.

    Between two renames neither is there. If the writer dies in between, both are left, and `remove_stale` puts the new
    one in its place.

    Raises
    ------
    OSError
        If that is impossible; the old folder then stands where it stood.
    """
    if not os.path.lexists(path):
        os.rename(partial / CONTENT, path)
        return
    os.rename(path, partial / REPLACED)
    try:
        os.rename(partial / CONTENT, path)
    except OSError:
        os.rename(partial / REPLACED, path)
        raise


def remove_stale(folder: Path) -> None:
    """Remove the partials in a folder whose writers are gone; each process does this once per folder."""
    folder = folder.absolute()
    if folder in _looked_through:
        return
    _looked_through.add(folder)
    for partial in sorted(folder.glob(".*.partial")):
        found = TOKEN.fullmatch(partial.name)
        # another process may clear up as well
        with suppress(FileNotFoundError):
            if found is not None and (found["host"] == _host() or time.time() - partial.lstat().st_mtime > DAY):
                _remove_unlocked(partial)


def _remove_unlocked(partial: Path) -> None:
    """Remove a partial unless its writer holds the lock."""
    is_folder = partial.is_dir() and not partial.is_symlink()
    try:
        descriptor = os.open(partial / LOCK if is_folder else partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        # a folder whose writer has made no lock yet, or had removed all else
        if is_folder:
            _remove_empty(partial)
        return
    except OSError:
        # a link, or another user's
        return
    try:
        if not _lock(descriptor):
            return
        if is_folder:
            name = os.fsdecode((partial / LOCK).read_bytes())
            _clear(partial, partial.with_name(name) if name else None)
        else:
            partial.unlink()
    finally:
        os.close(descriptor)


def _clear(partial: Path, path: Path | None) -> None:
    """Remove the partial of a folder, the lock last; if its writer had moved `path` away, finish that first."""
    if path is not None and os.path.lexists(partial / REPLACED) and not os.path.lexists(path):
        os.rename(partial / (CONTENT if os.path.lexists(partial / CONTENT) else REPLACED), path)
    for entry in partial.iterdir():
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (partial / LOCK).unlink()
    partial.rmdir()


def _remove_empty(partial: Path) -> None:
    try:
        partial.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _new_name(path: Path) -> Path:
    # a name that no file can have is an error before anything is written
    with suppress(FileNotFoundError):
        path.lstat()
    shown = os.fsencode(path.name)[:SHOWN].decode(errors="ignore")
    return path.with_name(f".{shown}.{_host()}{secrets.token_hex(6)}.partial")


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def _make_and_lock(path: Path) -> int | None:
    """Make an empty file and lock it; return its descriptor, or None if a process that clears up was faster."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    # one that clears up and has the lock is about to remove the file; without locks nobody clears up
    if _lock(descriptor) is not False:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                _locked.add(descriptor)
                return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool | None:
    """Lock a file. Return False if another process has, None if the file system has no locks: then nothing is stale."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _unlock(descriptor: int) -> None:
    _locked.discard(descriptor)
    os.close(descriptor)


def _leave_locks_to_the_parent() -> None:
    """Close the locks that a forked process inherited: a process that outlives its parent must not keep them."""
    for descriptor in _locked:
        os.close(descriptor)
    _locked.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)
