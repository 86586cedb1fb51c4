"""Downloading one file over http or https, resumed where an earlier attempt was cut."""

import errno
import fcntl
import http.client
import logging
import os
import re
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from quantrust.disk import naming_full_disk, require_space
from quantrust.errors import QuantrustError
from quantrust.progress import progress

ATTEMPTS = 5
"""How often one job asks for the rest of a file whose connection is cut."""
PAUSE_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0
CHUNK = 1 << 20
SCHEMES = ("http", "https")

_log = logging.getLogger(__name__)


class _Cut(Exception):
    """The connection ended before the file did."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, and from https to https alone."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = (urllib.parse.urlsplit(url).scheme.lower() for url in (req.full_url, newurl))
        if new not in SCHEMES or (old, new) == ("https", "http"):
            raise QuantrustError(
                f"{req.full_url}: the server sends on to {newurl}, which is not followed; expected "
                f"{'https' if old == 'https' else 'http or https'}: correct the address in the config"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that knows http and https, and neither files nor ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


def file_name(url: str) -> str:
    """Return the name of the file at the end of a URL.

    Raises
    ------
    QuantrustError
        If it is not the address of one file over http or https.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise QuantrustError(
            f"{url}: is not an address ({error}); expected http:// or https://, a host, a path"
        ) from None
    if parts.scheme.lower() not in SCHEMES or not host:
        raise QuantrustError(
            f"{url}: is not an address that is downloaded; expected http:// or https://, a host, a path"
        )
    if not url.isascii() or not url.isprintable() or " " in url:
        raise QuantrustError(f"{url}: holds a space or a letter beyond ASCII; write them percent-encoded")
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    if not name or parts.path.endswith("/"):
        raise QuantrustError(f"{url}: ends without the name of a file; expected the address of one file")
    return name


def come_path(target: Path) -> Path:
    """Return the file beside a download's target that holds the part downloaded so far."""
    return target.with_name(f".{target.name}.download")


def mark_path(target: Path) -> Path:
    """Return the file beside a download's target that holds the server's mark of the version of that part."""
    return target.with_name(f".{target.name}.download.version")


def download_file(url: str, target: Path, size: int | None = None) -> None:
    """Download one file, from where an earlier attempt was cut.

    The part downloaded so far lies beside the target, with the server's mark of the file's version. It is continued
    only while that mark stays the same (RFC 9110, sections 13.1.5 and 14).

    Parameters
    ----------
    url : str
        As `file_name` takes it.
    target : Path
        Appears when the file is complete.
    size : int, optional
        The bytes that the file must have.

    Raises
    ------
    QuantrustError
        If the server cannot be reached, refuses, sends nonsense or on to another protocol, offers another size, or cuts
        the connection again and again; if the disk is too small; or if another process downloads the same file.
    """
    with naming_full_disk(target), _come(target) as file:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _continue(url, file, target, size)
                break
            except _Cut as cut:
                come = os.fstat(file.fileno()).st_size
                if attempt == ATTEMPTS:
                    raise QuantrustError(
                        f"{url}: the connection was cut {ATTEMPTS} times ({cut}), last after {come:,} bytes; the same "
                        "command goes on from there"
                    ) from None
                _log.warning("%s: cut after %s bytes (%s); going on", url, f"{come:,}", cut)
                time.sleep(PAUSE_SECONDS * attempt)
        file.flush()
        os.fsync(file.fileno())
        come_path(target).replace(target)
        mark_path(target).unlink(missing_ok=True)


@contextmanager
def _come(target: Path) -> Iterator[BinaryIO]:
    """Open the partial download of a file, and keep others from writing to it; remove it in the end if it is empty."""
    path = come_path(target)
    try:
        # Somebody may have put a link there, which would lead the download to another place.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        what = "is a link" if error.errno == errno.ELOOP else f"cannot be written ({error.strerror})"
        raise QuantrustError(f"{path} {what}; it is where {target.name} is downloaded to: remove it") from None
    with open(descriptor, "r+b") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise QuantrustError(f"{path} is not a file; it is where {target.name} is downloaded to: remove it")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QuantrustError(f"{target}: another process downloads it; wait for it, or end it") from None
        try:
            yield file
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()


def _write_mark(target: Path, version: str | None) -> None:
    """Store the server's mark of the version that it sends now, if it has a mark that can be relied on."""
    path = mark_path(target)
    path.unlink(missing_ok=True)
    if version and not version.startswith("W/"):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            file.write(version.encode("latin-1", "replace"))


def _read_mark(target: Path) -> str | None:
    path = mark_path(target)
    if path.is_symlink() or not path.is_file():
        return None
    mark = path.read_bytes().decode("latin-1")
    return mark if mark and mark.isprintable() else None


def _continue(url: str, file: BinaryIO, target: Path, size: int | None) -> None:
    """Request the missing part of a file and append it; raise `_Cut` if the connection ends too early."""
    mark = _read_mark(target)
    come = os.fstat(file.fileno()).st_size if mark is not None else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if mark is not None and come:
        request.add_header("Range", f"bytes={come}-")
        request.add_header("If-Range", mark)
    try:
        response = _opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{come}":
            return
        if error.code == 416:
            file.truncate(0)
            raise _Cut("the server has fewer bytes than had come") from None
        if error.code == 429 or error.code >= 500:
            raise _Cut(f"the server answers {error.code} {error.reason}") from None
        raise QuantrustError(
            f"{url}: the server answers {error.code} {_first_line(error.reason)}; correct the address in the config, "
            f"or get the file elsewhere and put it at {target}"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if come:
            raise _Cut(reason(error)) from None
        raise QuantrustError(
            f"{url}: cannot be reached ({reason(error)}); check the network, or get the file elsewhere and put it at "
            f"{target}"
        ) from None
    with response:
        come, total = _extent(url, response, come)
        if size is not None and total is not None and total != size:
            raise QuantrustError(
                f"{url}: has {total:,} bytes now, but the lock records {size:,}; the publisher changed the file"
            )
        require_space(target.parent, 0 if total is None else total - come)
        _write_mark(target, response.headers.get("ETag") or response.headers.get("Last-Modified"))
        _append(response, file, target.name, come, total)


def _extent(url: str, response: http.client.HTTPResponse, come: int) -> tuple[int, int | None]:
    """Return the first byte of the file that a response holds, and the file's size if the server states it."""
    if response.status not in (200, 206):
        raise QuantrustError(f"{url}: the server answers {response.status} {response.reason}; expected a file")
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise QuantrustError(
            f"{url}: the server sends the file as {encoding}, which was not asked for; get it elsewhere"
        )
    if response.status == 206:
        begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if begins is None or int(begins[1]) != come:
            raise QuantrustError(
                f"{url}: the server sends {response.headers.get('Content-Range')!r} of the file where the bytes from "
                f"{come:,} on were asked for; get it elsewhere"
            )
    else:
        come = 0
    length = response.headers.get("Content-Length")
    if length is not None and not re.fullmatch(r"\d{1,18}", length.strip()):
        raise QuantrustError(f"{url}: the server says Content-Length {length!r}; expected a number of bytes")
    return come, None if length is None else come + int(length)


def _append(response: http.client.HTTPResponse, file: BinaryIO, name: str, come: int, total: int | None) -> None:
    megabytes = 0 if total is None else total >> 20
    file.seek(come)
    file.truncate()
    with progress(f"downloading {name}", megabytes, "MiB") as bar:
        bar.update(come >> 20)
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _Cut(reason(error)) from None
            if not chunk:
                break
            file.write(chunk)
            file.flush()
            bar.update((come + len(chunk) >> 20) - (come >> 20))
            come += len(chunk)
    if total is not None and come < total:
        raise _Cut(f"{come:,} of {total:,} bytes had come")


def reason(error: Exception) -> str:
    """Return the first line of a network library's error message."""
    cause = getattr(error, "reason", None) or error
    return _first_line(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _first_line(text: object) -> str:
    return (str(text).splitlines() or [""])[0]
