"""One entry of the config's `downloads`: fetched if it is missing, checked, recorded, and unpacked."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantrust.artifacts.documents import writing_document
from quantrust.downloads.archive import unpack
from quantrust.downloads.hub import fetch_repository
from quantrust.downloads.lock import checked, read_lock
from quantrust.downloads.web import download_file, file_name
from quantrust.errors import QuantrustError
from quantrust.files import json_text, path_inside, write_json

_log = logging.getLogger(__name__)


def fetch(
    name: str,
    settings: Mapping[str, Any],
    lock_path: str | Path,
    record_path: str | Path,
    endpoint: str | None = None,
) -> None:
    """Get the files of one entry of the config's `downloads`, as far as they are missing, and check them.

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
        If the lock is damaged or of another source, the network or the server fails, something asked for does not
        exist, the disk is too small, or what came is not what the lock says. What has come so far stays for the next
        attempt.
    """
    lock_path = Path(lock_path)
    source = {"url": settings["url"]} if "url" in settings else dict(settings["hub"])
    lock = read_lock(lock_path, name, source)
    folder = Path(settings["folder"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QuantrustError(
            f"downloads.{name}: the folder {folder} cannot be made ({error.strerror}); correct downloads.{name}.folder "
            "in the config, or remove what stands in its place"
        ) from None
    if "url" in source:
        file = file_name(source["url"])
        target = path_inside(folder, file, source["url"])
        if not target.exists():
            recorded = {} if lock is None else lock.files.get(file, {})
            download_file(source["url"], target, recorded.get("bytes"))
        found = {"source": source, "files": {file: checked(target, file, lock)}}
    else:
        found = fetch_repository(name, source, folder, lock, endpoint)
    paths = [path_inside(folder, file, lock_path) for file in sorted(found["files"])]
    if settings.get("unpack"):
        for path in paths:
            unpack(path, folder)
    if "rows" in settings:
        # Slow to import, and needed by few.
        from quantrust.data.rows import write_official

        write_official(paths, settings["rows"], folder)
    if lock is None:
        write_json(lock_path, found)
        _log.info("recorded in %s", lock_path)
    with writing_document(record_path) as partial:
        partial.write_text(json_text(found), encoding="utf-8")
