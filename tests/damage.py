"""Damage to files of data: other values in the place of any of theirs, and bytes that are no such file at all."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from quantrust.errors import QuantrustError

Path = tuple[str | int, ...]


def nested(depth: int) -> list[Any]:
    """Return lists in lists, so deep."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


OTHERS: tuple[Any, ...] = (
    None, True, 0, -7, 1.5, float("inf"), float("nan"), 10**400, "", " ", "\n", "\u200b", "\ud800", "\0", "7", "07",
    "../x.png", "/etc/hostname", "a\\b", ".", "x" * 300, "x" * 10**5, "x/" * 10**4, [], {}, [None], [[]],
    {"answer": "\udfff"}, nested(500),
)  # fmt: skip
"""What stands in the place of a value, one after another."""

NO_JSON = {
    "empty": b"",
    "a word": b"questions",
    "null": b"null",
    "a number": b"7",
    "a text": b'"questions"',
    "a long number": b"1" * 5000,
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "zeros": bytes(1000),
    "UTF-16": '{"questions": []}'.encode("utf-16"),
    "Latin-1": '["é"]'.encode("latin-1"),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "lines of objects": b'{"question_id": 1}\n{"question_id": 2}\n',
    "two values": b"[] []",
    "an open text": b'["',
    "an escape cut short": b'["\\ud8',
}
"""Files that are no JSON, or none that a reader expects."""


def places(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the place of every value in a JSON value, its own first."""
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*at, key))


def replaced(value: Any, at: Path, other: Any) -> Any:
    """Return a JSON value with another value at one of its places."""
    if not at:
        return other
    changed = copy.deepcopy(value)
    parent = changed
    for key in at[:-1]:
        parent = parent[key]
    parent[at[-1]] = other
    return changed


def removed(value: Any, at: Path) -> Any:
    """Return a JSON value without what is at one of its places, which is not its own."""
    changed = copy.deepcopy(value)
    parent = changed
    for key in at[:-1]:
        parent = parent[key]
    del parent[at[-1]]
    return changed


def damaged(value: Any) -> Iterator[tuple[str, bytes]]:
    """Yield files with one fault each, and what it is: bytes that are no such JSON, then faulty values, then cuts."""
    yield from NO_JSON.items()
    for at in places(value):
        where = "/".join(map(str, at))
        for other in OTHERS:
            yield f"{where} is {other!a:.40}", json.dumps(replaced(value, at, other)).encode()
        if at:
            yield f"{where} is not there", json.dumps(removed(value, at)).encode()
            if isinstance(at[-1], int):
                yield f"{where} is there twice", json.dumps(doubled(value, at)).encode()
    whole = json.dumps(value).encode()
    for end in range(0, len(whole), 7):
        yield f"cut after {end} bytes", whole[:end]


def doubled(value: Any, at: Path) -> Any:
    """Return a JSON value with an entry of a list twice."""
    changed = copy.deepcopy(value)
    parent = changed
    for key in at[:-1]:
        parent = parent[key]
    parent.insert(at[-1], parent[at[-1]])
    return changed


def refusal(read: Callable[[], Any], *names: str) -> str | None:
    """Return the message with which a reader refuses files, None where it takes them.

    Whatever is wrong with them, the message must be one line that a terminal can show, and name one of the files.
    """
    try:
        read()
    except QuantrustError as error:
        message = str(error)
        message.encode()
        assert "\n" not in message and len(message) < 2000, message
        assert any(name in message for name in names), message
        return message
    return None
