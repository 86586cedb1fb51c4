"""The lock of a download: a record of the files of the first time, which every later download must match.

It is a JSON object with ``source`` (the address, or repository, revision, kind and files), ``commit`` (of a repository
of the hub) and ``files``: bytes and SHA-256 of each by its name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.errors import QuantrustError
from quantrust.files import path_inside, read_object, sha256

DIGEST = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Lock:
    """A lock that was read.

    Attributes
    ----------
    path : Path
        Its file.
    source : mapping
        The source of the download, as in the config.
    files : mapping of str to mapping
        ``bytes`` and ``sha256`` by the files' names; at least one.
    commit : str or None
        The commit of a repository of the hub.
    """

    path: Path
    source: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    commit: str | None


def read_lock(path: str | Path, name: str, source: Mapping[str, Any]) -> Lock | None:
    """Read and check the lock of a download; None when there is no such file.

    Parameters
    ----------
    path : str or Path
    name : str
        The download's name in the config.
    source : mapping
        What the config asks for.

    Raises
    ------
    QuantrustError
        If the file is damaged or incomplete, or records another source.
    """
    path = Path(path)
    if not path.exists():
        return None
    content = read_object(path)
    for fault in _faults(content, "url" not in source):
        raise QuantrustError(
            f"downloads.{name}: {path} {fault}; restore the file, or delete it to record what the publisher has now"
        )
    if content["source"] != source:
        raise QuantrustError(
            f"downloads.{name}: {path} records {content['source']!s:.500}, but the config asks for {dict(source)}; "
            f"delete {path} to record the new source"
        )
    return Lock(path, content["source"], content["files"], content.get("commit"))


def _faults(content: Mapping[str, Any], of_hub: bool) -> list[str]:
    """Return the faults of a lock, most important first."""
    faults = [f"has no map under {key}" for key in ("source", "files") if not isinstance(content.get(key), dict)]
    if faults:
        return faults
    if not content["files"]:
        faults.append("records no file")
    if of_hub and not (isinstance(content.get("commit"), str) and COMMIT.fullmatch(content["commit"])):
        faults.append("has no commit of 40 hexadecimal digits")
    for file, recorded in content["files"].items():
        size = recorded.get("bytes") if isinstance(recorded, dict) else None
        digest = recorded.get("sha256") if isinstance(recorded, dict) else None
        if type(size) is not int or size < 0 or not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
            faults.append(f"records no bytes and SHA-256 of {file!r}")
    return faults


def checked(path: Path, name: str, lock: Lock | None) -> dict[str, Any]:
    """Check a downloaded file against the lock, and return its bytes and SHA-256.

    Parameters
    ----------
    path : Path
    name : str
        What the lock calls the file.
    lock : Lock or None
        None when nothing is recorded yet.

    Raises
    ------
    QuantrustError
        If the path is not that of a file, or if the lock does not record the file or records other content.
    """
    if lock is not None and name not in lock.files:
        raise QuantrustError(
            f"{lock.path}: does not record {name}, which the source has now; delete {lock.path} to record what the "
            "publisher has now"
        )
    if not path.is_file():
        raise QuantrustError(f"{path} is not a file; remove what stands there")
    found = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    if lock is not None and found != (expected := lock.files[name]):
        raise QuantrustError(
            f"{path}: has {found['bytes']:,} bytes and the SHA-256 {found['sha256']}, but {lock.path} records "
            f"{expected['bytes']:,} and {expected['sha256']}; delete {path} to download it again, or {lock.path} to "
            "take what the publisher has now"
        )
    return found


def places(lock: Lock | None, folder: Path) -> dict[str, Path]:
    """Return where each recorded file lies; none when nothing is recorded."""
    return {} if lock is None else {name: path_inside(folder, name, lock.path) for name in lock.files}
