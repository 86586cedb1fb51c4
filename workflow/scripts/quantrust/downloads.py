"""Downloads that a config names: resumed where they were cut, and checked against what was recorded at the first.

What is recorded, the lock, is an object with ``source`` (the address, or repository, revision, kind and files),
``commit`` (of a repository of the hub) and ``files``: bytes and SHA-256 of each by its name.
"""

import http.client
import logging
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from quantrust.errors import QuantrustError
from quantrust.files import atomic_path, partial_path, path_inside, read_json, sha256, write_json
from quantrust.progress import progress

ATTEMPTS = 5
"""How often one job asks for the rest of a file whose connection is cut."""
PAUSE_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0
CHUNK = 1 << 20

_log = logging.getLogger(__name__)


class _Cut(Exception):
    """The connection ended before the file did."""


def fetch(
    name: str,
    settings: Mapping[str, Any],
    lock_path: str | Path,
    record_path: str | Path,
    endpoint: str | None = None,
) -> None:
    """Get what one entry of the config's `downloads` names, unless it is there, and check it.

    Parameters
    ----------
    name : str
        The entry's name.
    settings : mapping
        ``folder``, and ``url`` with ``unpack`` or ``hub`` with ``rows``; the entry of the config.
    lock_path : str or Path
        Where sizes, SHA-256 and commit are recorded when the file does not exist yet; what it says is demanded when it
        does.
    record_path : str or Path
        Is written when all is in place, with what the lock says.
    endpoint : str, optional
        Address of the hub; its client's own by default.

    Raises
    ------
    QuantrustError
        If the lock is of another source, the network or the server fails, something asked for does not exist, the disk
        is too small, or what came is not what the lock says. What has come so far stays for the next attempt.
    """
    lock_path = Path(lock_path)
    source = {"url": settings["url"]} if "url" in settings else dict(settings["hub"])
    lock = read_json(lock_path) if lock_path.exists() else None
    if lock is not None and lock["source"] != source:
        raise QuantrustError(
            f"downloads.{name}: {lock_path} records {lock['source']}, but the config asks for {source}; delete "
            f"{lock_path} to record the new source"
        )
    folder = Path(settings["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    if "url" in source:
        found = {"source": source, "files": _fetch_url(source["url"], folder, lock, lock_path)}
    else:
        found = _fetch_repository(name, source, folder, lock, lock_path, endpoint)
    paths = [path_inside(folder, file, lock_path) for file in sorted(found["files"])]
    if settings.get("unpack"):
        for path in paths:
            unpack(path, folder)
    if "rows" in settings:
        # Slow to import, and needed by few.
        from quantrust.vqa.rows import write_official

        write_official(paths, settings["rows"], folder)
    if lock is None:
        write_json(lock_path, found)
        _log.info("recorded in %s", lock_path)
    write_json(record_path, found)


def _fetch_url(url: str, folder: Path, lock: Mapping[str, Any] | None, lock_path: Path) -> dict[str, dict[str, Any]]:
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    if not name:
        raise QuantrustError(f"{url}: ends without the name of a file; expected the address of one file")
    target = path_inside(folder, name, url)
    expected = None if lock is None else lock["files"][name]
    if not target.exists():
        download_file(url, target, None if expected is None else expected["bytes"])
    return {name: _checked(target, expected, lock_path)}


def _checked(path: Path, expected: Mapping[str, Any] | None, lock_path: Path) -> dict[str, Any]:
    """Return bytes and SHA-256 of a file; a file that is not as expected is an error."""
    found = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    if expected is not None and found != expected:
        raise QuantrustError(
            f"{path}: has {found['bytes']:,} bytes and the SHA-256 {found['sha256']}, but {lock_path} records "
            f"{expected['bytes']:,} and {expected['sha256']}; delete {path} to download it again, or {lock_path} to "
            "take what the publisher has now"
        )
    return found


def download_file(url: str, target: Path, size: int | None = None) -> None:
    """Download one file, from where an earlier attempt was cut.

    What has come lies beside the target, with the server's mark of the file's version, and is continued only while that
    mark stays the same (RFC 9110, sections 13.1.5 and 14).

    Parameters
    ----------
    url : str
    target : Path
        Appears when the file is complete.
    size : int, optional
        The bytes that the file must have.

    Raises
    ------
    QuantrustError
        If the server can not be reached, refuses, offers another size, or cuts the connection again and again; or if
        the disk is too small.
    """
    partial = partial_path(target)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _continue(url, partial, target, size)
            break
        except _Cut as cut:
            come = partial.stat().st_size if partial.exists() else 0
            if attempt == ATTEMPTS:
                raise QuantrustError(
                    f"{url}: the connection was cut {ATTEMPTS} times ({cut}), last after {come:,} bytes; the same "
                    "command goes on from there"
                ) from None
            _log.warning("%s: cut after %s bytes (%s); going on", url, f"{come:,}", cut)
            time.sleep(PAUSE_SECONDS * attempt)
    partial.replace(target)
    _mark_path(partial).unlink(missing_ok=True)


def _mark_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.version")


def _continue(url: str, partial: Path, target: Path, size: int | None) -> None:
    """Ask for what is missing of a file and append it; raise `_Cut` when the connection ends before the file does."""
    mark = _mark_path(partial)
    come = partial.stat().st_size if partial.exists() and mark.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if come:
        request.add_header("Range", f"bytes={come}-")
        request.add_header("If-Range", mark.read_text(encoding="utf-8"))
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{come}":
            return
        if error.code == 416:
            partial.unlink()
            raise _Cut("the server has fewer bytes than had come") from None
        if error.code == 429 or error.code >= 500:
            raise _Cut(f"the server answers {error.code} {error.reason}") from None
        raise QuantrustError(
            f"{url}: the server answers {error.code} {error.reason}; correct the address in the config, or get the "
            f"file elsewhere and put it at {target}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        if come:
            raise _Cut(_reason(error)) from None
        raise QuantrustError(
            f"{url}: can not be reached ({_reason(error)}); check the network, or get the file elsewhere and put it at "
            f"{target}"
        ) from None
    with response:
        if response.status != 206:
            come = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else come + int(length)
        if size is not None and total is not None and total != size:
            raise QuantrustError(
                f"{url}: has {total:,} bytes now, but the lock records {size:,}; the publisher changed the file"
            )
        _require_space(target.parent, 0 if total is None else total - come)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if version and not version.startswith("W/"):
            mark.write_text(version, encoding="utf-8")
        else:
            mark.unlink(missing_ok=True)
        _append(response, partial, come, total)


def _append(response: http.client.HTTPResponse, partial: Path, come: int, total: int | None) -> None:
    megabytes = 0 if total is None else total >> 20
    with (
        open(partial, "r+b" if come else "wb") as file,
        progress(f"downloading {partial.name.strip('.').removesuffix('.partial')}", megabytes, "MiB") as bar,
    ):
        file.seek(come)
        bar.update(come >> 20)
        try:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update((come + len(chunk) >> 20) - (come >> 20))
                come += len(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(_reason(error)) from None
    if total is not None and come < total:
        raise _Cut(f"{come:,} of {total:,} bytes had come")


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _first_line(error: Exception) -> str:
    return _reason(error).splitlines()[0]


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise QuantrustError(f"{folder}: {needed:,} bytes are needed and {free:,} are free; make room on that disk")


def unpack(archive: Path, folder: Path) -> None:
    """Put the files of a zip archive into a folder, without the archive's own folders; those already there stay.

    Parameters
    ----------
    archive : Path
    folder : Path

    Raises
    ------
    QuantrustError
        If it is no zip archive or damaged, two of its files have the same name, or the disk is too small.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members: dict[Path, zipfile.ZipInfo] = {}
            for member in opened.infolist():
                name = PurePosixPath(member.filename).name
                # Some systems add hidden files of their own.
                if member.is_dir() or name.startswith("."):
                    continue
                path = path_inside(folder, name, archive)
                if path in members:
                    raise QuantrustError(f"{archive}: holds two files with the name {name}; unpack it yourself")
                members[path] = member
            missing = {path: member for path, member in members.items() if not _is_unpacked(path, member)}
            _require_space(folder, sum(member.file_size for member in missing.values()))
            with progress(f"unpacking {archive.name}", len(missing), "files") as bar:
                for path, member in missing.items():
                    with (
                        atomic_path(path) as partial,
                        opened.open(member) as source,
                        open(partial, "wb") as to,
                    ):
                        shutil.copyfileobj(source, to, CHUNK)
                    bar.update()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise QuantrustError(f"{archive}: is no whole zip archive ({error}); delete it and download it again") from None


def _is_unpacked(path: Path, member: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == member.CRC


def _fetch_repository(
    name: str,
    source: Mapping[str, Any],
    folder: Path,
    lock: Mapping[str, Any] | None,
    lock_path: Path,
    endpoint: str | None,
) -> dict[str, Any]:
    """Get files of a repository of the hub at one commit: the recorded one, or the revision's when none is recorded."""
    recorded = {} if lock is None else {file: path_inside(folder, file, lock_path) for file in lock["files"]}
    if lock is not None and all(path.is_file() for path in recorded.values()):
        # Nothing to get; what is there is checked without the network.
        for file, path in recorded.items():
            _checked(path, lock["files"][file], lock_path)
        return dict(lock)
    repository, kind = source["repository"], source["kind"]
    revision = source["revision"] if lock is None else lock["commit"]
    where = f"downloads.{name}: {kind} {repository}"
    hub = HfApi(endpoint=endpoint)
    try:
        info = hub.repo_info(repository, repo_type=kind, revision=revision, files_metadata=True)
        patterns = source.get("files")
        siblings = list(filter_repo_objects(info.siblings, allow_patterns=patterns, key=lambda file: file.rfilename))
        if not siblings:
            raise QuantrustError(
                f"{where}: has no file that matches {', '.join(patterns or ['*'])} at revision {revision}"
            )
        paths = {file.rfilename: path_inside(folder, file.rfilename, where) for file in siblings}
        missing = [file for file in siblings if not paths[file.rfilename].exists()]
        _require_space(folder, sum(file.size or 0 for file in missing))
        snapshot_download(
            repository,
            repo_type=kind,
            revision=info.sha,
            local_dir=folder,
            allow_patterns=[file.rfilename for file in siblings],
            endpoint=endpoint,
        )
        # where part of it was there, the client takes that for the whole when the network is gone
        if lacking := [name for name, path in paths.items() if not path.is_file()]:
            raise LocalEntryNotFoundError(f"{lacking[0]} has not come")
    except GatedRepoError:
        raise QuantrustError(
            f"{where}: is gated; accept its terms on the hub and log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise QuantrustError(
            f"{where}: does not exist, or is private; correct the name in the config, or log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise QuantrustError(f"{where}: has no revision {revision}; give a branch, tag or commit that exists") from None
    except HfHubHTTPError as error:
        raise QuantrustError(f"{where}: the hub answers {error.response.status_code}; try again later") from None
    except (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise QuantrustError(
            f"{where}: the hub at {hub.endpoint} can not be reached ({_first_line(error)}); check the network, or get "
            f"the files elsewhere and put them into {folder}"
        ) from None
    files = {}
    for file in siblings:
        expected = None if lock is None else lock["files"].get(file.rfilename)
        path = paths[file.rfilename]
        files[file.rfilename] = _checked(path, expected, lock_path)
        if file.lfs is not None and files[file.rfilename]["sha256"] != file.lfs.sha256:
            raise QuantrustError(
                f"{path}: has the SHA-256 {files[file.rfilename]['sha256']}, but the hub names "
                f"{file.lfs.sha256}; delete it and download it again"
            )
    return {"source": dict(source), "commit": info.sha, "files": files}
