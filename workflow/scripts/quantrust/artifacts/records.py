"""Objects of JSON files read as dataclasses, strictly: every entry there, none too many, each of its type."""

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from quantrust.errors import QuantrustError

LARGEST = sys.float_info.max


def read_record(kind: Any, value: Any, where: str) -> Any:
    """Return a value of JSON as a type, strictly.

    Parameters
    ----------
    kind : type
        A dataclass, `tuple[T, ...]`, `T | None`, `str`, `bool`, `int` or `float`, of which whole numbers are some too.
    value : object
        As JSON makes it. NaN and infinity are no numbers.
    where : str
        Its place, for messages.

    Raises
    ------
    QuantrustError
        If it is of another type, or an object lacks an entry or has one too many.
    """
    if dataclasses.is_dataclass(kind):
        return _read_object(kind, value, where)
    if isinstance(kind, types.UnionType):
        (inner,) = set(typing.get_args(kind)) - {types.NoneType}
        return None if value is None else read_record(inner, value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise QuantrustError(f"{where} is {value!r:.100}, expected a list; write the file again")
        inner, _ = typing.get_args(kind)
        return tuple(read_record(inner, part, f"{where}[{number}]") for number, part in enumerate(value))
    fits = type(value) is kind or (kind is float and type(value) is int)
    # an integer may be larger than any float, and nan is in no range
    if not fits or (kind is float and not -LARGEST <= value <= LARGEST):
        raise QuantrustError(f"{where} is {value!r:.100}, expected {kind.__name__}; write the file again")
    return kind(value)


def _read_object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise QuantrustError(f"{where} is {value!r:.100}, expected an object; write the file again")
    hints = typing.get_type_hints(kind)
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    if lacking := sorted(needed - value.keys()):
        raise QuantrustError(f"{where} lacks {', '.join(lacking)}; write the file again")
    if unknown := sorted(str(key) for key in value.keys() - hints.keys()):
        raise QuantrustError(f"{where} has the unknown entry {unknown[0]!r:.100}; write the file again")
    return kind(**{key: read_record(hints[key], part, f"{where}: {key}") for key, part in value.items()})
