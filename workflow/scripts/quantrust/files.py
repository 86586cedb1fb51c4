"""Writing files so that they are complete or absent, reading JSON, and resolving names of files that a file holds."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from quantrust.artifacts.folder_record import check_file
from quantrust.disk import naming_full_disk
from quantrust.durable import sync, sync_tree
from quantrust.errors import QuantrustError
from quantrust.partials import CONTENT, partial_file, partial_folder, put_in_place

LONGEST_NAME = 255
"""Bytes in the name of a file or folder: what Linux and macOS allow."""
LONGEST_PATH = 1000
"""Bytes in a path below its folder: less than macOS allows of a whole path, and Linux four times over."""
SHOWN = 100
"""Characters of a name that messages show."""
# Unicode's categories Cc, Zl and Zp
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@contextmanager
def atomic_path(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `path`; move it there when the block ends well, delete it when it raises.

    Parameters
    ----------
    path : str or Path
        The file to write. Its parent folder is created.
    durable : bool
        Whether it is on the disk when it appears, so that a loss of power leaves it whole or absent. A caller that
        writes many files may leave this to `quantrust.durable.sync_files` at the end.

    Yields
    ------
    Path
        An empty file in the same folder, so that the final rename is atomic. Each writer of `path` has a file of its
        own, and the last one to finish wins as a whole.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_full_disk(path), partial_file(path) as partial:
        yield partial
        if durable:
            sync(partial)
        os.replace(partial, path)
        if durable:
            sync(path.parent)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder near `path`; put it in the place of `path` when the block ends well.

    Everything in it is on the disk before it takes that place. If it replaces a folder, there is a moment between two
    renames in which neither is there; a crash in that moment loses neither (`quantrust.partials.put_in_place`).

    Parameters
    ----------
    path : str or Path
        The folder to write. A folder that stands there is replaced as a whole.

    Yields
    ------
    Path
        A folder on the same file system.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_full_disk(path), partial_folder(path) as partial:
        yield partial / CONTENT
        sync_tree(partial / CONTENT)
        put_in_place(partial, path)
        sync(path.parent)


def read_json(path: str | Path, unique_keys: bool = False) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : str or Path
    unique_keys : bool
        Whether a key that an object has twice is an error. Otherwise the last one counts.

    Raises
    ------
    QuantrustError
        If the file is missing, unreadable, truncated or otherwise not JSON, or damaged and of an artifact; or if an
        object has a key twice where keys must be unique.
    """
    check_file(path)
    try:
        kind = os.stat(path).st_mode
        # A device may have no end. A pipe may be what a shell puts in the place of a command's output.
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            raise QuantrustError(f"{path}: is a device or a socket; expected a JSON file")
        # Some editors put a byte order mark before UTF-8.
        content = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise QuantrustError(f"{path}: no such file; expected a JSON file") from None
    except OSError as error:
        raise QuantrustError(f"{path}: cannot be read ({error.strerror}); expected a JSON file") from None
    except UnicodeDecodeError as error:
        raise QuantrustError(f"{path}: is not UTF-8 text at byte {error.start}; expected a JSON file") from None
    except ValueError as error:
        # A path that no file can have.
        raise QuantrustError(f"{path}: cannot be read ({error}); expected a JSON file") from None
    return parse_json(content, path, unique_keys)


def parse_json(text: str, where: str | Path, unique_keys: bool = False) -> Any:
    """Parse JSON that comes from a file.

    Parameters
    ----------
    text : str
    where : str or Path
        The file, and the place in it if the text is a part of it, for messages.
    unique_keys : bool
        Whether a key that an object has twice is an error. Otherwise the last one counts.

    Raises
    ------
    QuantrustError
        If the text is truncated or otherwise not JSON, is nested too deeply, or holds a number of thousands of digits;
        or if an object has a key twice where keys must be unique.

    Examples
    --------
    >>> parse_json('{"a": [1, 2]}', "notes.json")
    {'a': [1, 2]}
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except _RepeatedKeyError as error:
        raise QuantrustError(f"{where}: has the key {error.args[0]!a:.200} twice; expected it once") from None
    except json.JSONDecodeError as error:
        raise QuantrustError(
            f"{where}: is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "the file may be truncated: fetch or write it again"
        ) from None
    except RecursionError:
        raise QuantrustError(f"{where}: is nested too deeply; expected lists of plain objects") from None
    except ValueError as error:
        # An integer of thousands of digits.
        raise QuantrustError(f"{where}: cannot be read ({error}); expected a JSON file") from None


class _RepeatedKeyError(Exception):
    """A key that a JSON object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(key)
            seen.add(key)
    return content


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    QuantrustError
        As `read_json`, and if it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise QuantrustError(f"{path} holds a {type(content).__name__}; expected an object: get the file again")
    return content


def path_inside(folder: str | Path, name: str, named_by: str | Path, *, links_out: bool = False) -> Path:
    """Join a name that a file holds to the folder that it is meant to be in.

    Parameters
    ----------
    folder : str or Path
        It need not exist. It may be a link itself.
    name : str
        The name of a file in that folder or below it, with slashes between folders.
    named_by : str or Path
        The file that the name comes from, for messages; with the place in it where that helps.
    links_out : bool
        Whether the file may be a link to another folder. Model folders of the hub's cache hold only such links.

    Returns
    -------
    Path
        `folder` and `name`. There need not be such a file.

    Raises
    ------
    QuantrustError
        If the name is absolute, has a part ``..``, a backslash or a control character, names no file, or cannot be the
        name of a file; or if it leads through a link out of the folder.
    """
    parts = PurePosixPath(name).parts
    if fault := _fault_of_name(name, parts):
        raise QuantrustError(
            f"{named_by}: names the file {name!r:.{SHOWN}}, {fault}; expected the name of a file in {folder}"
        )
    path = os.fspath(folder)
    for position, part in enumerate(parts, start=1):
        path = os.path.join(path, part)
        if (position < len(parts) or not links_out) and os.path.islink(path):
            target, root = os.path.realpath(path), os.path.realpath(folder)
            if os.path.commonpath([target, root]) != root:
                raise QuantrustError(
                    f"{named_by}: names the file {name!r}, but {path} is a link to {target}, outside {folder}; put the "
                    "file itself there"
                )
    return Path(path)


def _fault_of_name(name: str, parts: Sequence[str]) -> str | None:
    """Return the fault of a file's name; None if there is none."""
    if name.startswith("/"):
        return "an absolute path"
    if ".." in parts:
        return "which leads out of its folder"
    if "\\" in name or has_control(name):
        return "which holds a backslash or a control character"
    if not parts:
        return "which is none"
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "which has a lone surrogate"
    if max(lengths) > LONGEST_NAME or sum(lengths) + len(lengths) > LONGEST_PATH:
        return f"which is longer than {LONGEST_NAME:,} bytes a part and {LONGEST_PATH:,} in all"
    return None


def has_control(text: str) -> bool:
    """Return whether a text holds an invisible character: a line break, a tab, a NUL, a terminal's command."""
    return _CONTROL.search(text) is not None


def write_json(path: str | Path, value: Any) -> None:
    """Write `json_text` of a value, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """Return a value as indented JSON with a final newline; NaN and infinity are a ValueError."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
