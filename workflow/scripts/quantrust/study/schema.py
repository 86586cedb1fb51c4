"""What a JSON schema says of a config: strict types, numbers that are finite, and a line in words for every fault.

JSON schema takes any number without a fraction for an integer, and its comparisons let nan pass. Here 2.0 is not an
integer, true is not a number, and every number is finite.
"""

import datetime
import math
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from quantrust.data.texts import is_unicode
from quantrust.files import LONGEST_NAME, LONGEST_PATH

DEEPEST = 40
"""Maps and lists in one another, at most."""
LARGEST = 2**63
LONGEST = 120
"""Characters of a value that a message shows, at most."""
WORDS = {
    "object": "a map",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}
NOT_PLAIN = {datetime.date: "a date", datetime.datetime: "a time", bytes: "binary data", set: "a set"}


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


_CHECKER = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})


def _fits_file_systems(_: Any, wanted: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    """Check the keyword `onDisk`: that file systems can hold a path, which they measure in bytes."""
    if not wanted or not isinstance(value, str):
        return
    whole = os.fsencode(value)
    if len(whole) > LONGEST_PATH or max(map(len, whole.split(b"/"))) > LONGEST_NAME:
        yield ValidationError(f"is longer than {LONGEST_NAME} bytes a part and {LONGEST_PATH} in all")


_Validator = extend(Draft202012Validator, {"onDisk": _fits_file_systems}, type_checker=_CHECKER)


def schema_faults(content: Any, schema_path: str | Path) -> list[str]:
    """Return what is wrong with some content, a line each; nothing where it is as the schema says.

    Parameters
    ----------
    content : Any
        As YAML is read.
    schema_path : str or Path
        The schema, in YAML.
    """
    if faults := sorted(set(_foreign_faults(content, ()))):
        return faults
    errors = _validator(str(schema_path)).iter_errors(content)
    return sorted({fault for error in errors for fault in _in_words(error)})


@cache
def _validator(path: str) -> Any:
    return _Validator(yaml.safe_load(Path(path).read_text(encoding="utf-8")))


def _foreign_faults(
    content: Any, keys: tuple[Any, ...], above: tuple[int, ...] = (), seen: set[int] | None = None
) -> Iterator[str]:
    """Yield what YAML can hold and a schema has no word for; a part that stands in several places is looked at once."""
    path = key_path(keys)
    if kind := NOT_PLAIN.get(type(content)):
        yield (
            f"{path} is {shown(content)}, which YAML reads as {kind}; allowed: text (in quotes), numbers, true, false, "
            "null, lists and maps"
        )
    if isinstance(content, str) and not is_unicode(content):
        yield f"{path} is {shown(content)}, which has a lone surrogate; allowed: Unicode text"
    if isinstance(content, int) and abs(content) >= LARGEST:
        yield f"{path} is a whole number of {content.bit_length()} bits; allowed: one of at most 63"
    if not isinstance(content, dict | list):
        return
    seen = set() if seen is None else seen
    if id(content) in above or len(above) >= DEEPEST:
        yield f"{key_path(keys[:3])} holds itself, or more than {DEEPEST} maps and lists in one another"
        return
    if id(content) in seen:
        return
    seen.add(id(content))
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(content, dict) and not isinstance(key, str):
            yield f"{path} has the key {shown(key)}, which YAML does not read as text; allowed: names, in quotes if so"
        else:
            yield from _foreign_faults(value, (*keys, key), (*above, id(content)), seen)


def _in_words(error: ValidationError) -> Iterator[str]:
    path = key_path(error.absolute_path)
    # A keyword of this project: new names of keys by their old ones. A validator ignores what it does not know.
    renamed: dict[str, str] = error.schema.get("renamed", {})
    if error.validator == "additionalProperties" and error.schema.get("additionalProperties") is False:
        allowed = error.schema["properties"]
        for key in error.instance:
            if key in renamed:
                yield f"{joined(path, key)} was renamed to {joined(path, renamed[key])}"
            elif key not in allowed:
                yield f"unknown key {joined(path, shown_key(key))}; allowed: {', '.join(allowed)}"
    elif error.validator == "required":
        given = {*error.instance, *(new for old, new in renamed.items() if old in error.instance)}
        yield from (f"{joined(path, key)} is missing" for key in error.validator_value if key not in given)
    elif error.validator == "enum":
        yield f"{path} is {shown(error.instance)}; allowed: {', '.join(map(str, error.validator_value))}"
    else:
        rule = f"{error.validator} {error.validator_value}"
        expected = error.schema.get("description") or WORDS.get(error.validator_value, rule)
        yield f"{path} is {shown(error.instance)}; allowed: {expected}{_hint(error.instance)}"


def _hint(value: Any) -> str:
    """Say how a number is written that YAML reads as text, such as 1e-4."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+|[-+]?\d+\.\d*e\d+", value, re.IGNORECASE):
        digits, exponent = value.lower().split("e")
        whole = digits if "." in digits else f"{digits}.0"
        sign = "" if exponent[0] in "+-" else "+"
        return f" (YAML reads {value} as text: write {whole}e{sign}{exponent})"
    return ""


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut where it is long.

    Examples
    --------
    >>> shown("a")
    "'a'"
    """
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def shown_key(key: str) -> str:
    """Return a key as a message shows it: in quotes unless it is a plain word."""
    return key if re.fullmatch(r"[\w.-]{1,60}", key) else shown(key)


def key_path(keys: Iterable[Any]) -> str:
    """Return keys and places in lists as one path.

    Examples
    --------
    >>> key_path(["study", "models", 0])
    'study.models[0]'
    """
    path = ""
    for key in keys:
        path = f"{path}[{key}]" if isinstance(key, int) else joined(path, shown_key(key))
    return path or "the whole"


def joined(path: str, key: str) -> str:
    """Return the path of a key in a map whose path is given."""
    return key if path in ("", "the whole") else f"{path}.{key}"
