"""Tables of scores: an answer a row, with its quality and a confidence, from whoever measured them.

A module of `quantrust.data.tables` knows what the columns of one kind of table mean. It is found by its name.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.data.records import Records, listed, read_records
from quantrust.data.texts import identifier, shown
from quantrust.errors import QuantrustError
from quantrust.named_modules import TABLE_FORMATS, load_module, module_names

PLAIN = "table"
"""The format of a table that no other format recognises."""
TRUTHS = {"true": 1.0, "false": 0.0}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Wanted:
    """What a user says about the columns of a table; None leaves it to the format.

    Attributes
    ----------
    id, quality, confidence, image, group, split : str or None
        Names of columns.
    metric : str or None
        Which of a log's metrics is the quality.
    filter : str or None
        Which of the filters whose results a log has.
    dataset : str or None
        Which of the datasets whose answers a scores file has.
    """

    id: str | None = None
    quality: str | None = None
    confidence: str | None = None
    image: str | None = None
    group: str | None = None
    split: str | None = None
    metric: str | None = None
    filter: str | None = None
    dataset: str | None = None


@dataclass(frozen=True)
class Column:
    """Values of the rows as a file has them, under the name that messages use."""

    name: str
    values: Sequence[Any]


@dataclass(frozen=True)
class Read:
    """What a format makes of records.

    Attributes
    ----------
    records : Records
        The rows that count.
    id, quality, confidence : Column
    image, group, split : Column or None
        None where the table has no such column.
    notes : tuple of str
        What a reader should know of how these were found, above all where the confidence comes from.
    """

    records: Records
    id: Column
    quality: Column
    confidence: Column
    image: Column | None
    group: Column | None
    split: Column | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableFormat:
    """A kind of table. A module of `quantrust.data.tables` has one, called ``TABLE``.

    Attributes
    ----------
    recognises : callable
        Whether records seem to be of this kind, and of no other.
    read : callable
        Takes `Records` and `Wanted` and returns a `Read`; raises a `QuantrustError` that names the file.
    """

    recognises: Callable[[Records], bool]
    read: Callable[[Records, Wanted], Read]


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores.

    Attributes
    ----------
    path : Path
    format : str
    answers : polars.DataFrame
        ``id``, ``image``: texts, the first unique, the second as the first where the table has no images. ``quality``:
        in [0, 1]. ``confidence``: finite. ``group``, ``split``: texts, only where the table has them.
    has_images : bool
        Whether the table says which answers share an image.
    notes : tuple of str
        As in `Read`.
    """

    path: Path
    format: str
    answers: pl.DataFrame
    has_images: bool
    notes: tuple[str, ...]


def table_format_names() -> list[str]:
    """Return the names of the formats, sorted."""
    return module_names(TABLE_FORMATS)


def load_table_format(name: str) -> TableFormat:
    """Return the format of a name."""
    found: TableFormat = load_module(TABLE_FORMATS, name, ("TABLE",)).TABLE
    return found


def read_score_table(path: str | Path, wanted: Wanted, table_format: str | None = None) -> ScoreTable:
    """Read a table of scores.

    Parameters
    ----------
    path : str or Path
        As `quantrust.data.records.read_records` takes it.
    wanted : Wanted
    table_format : str, optional
        By default the one that recognises the table.

    Raises
    ------
    QuantrustError
        If the file cannot be read, lacks a column, names an answer twice, a quality is not in [0, 1], or a confidence
        is not a finite number. The message names the file, and the row where it has one.
    """
    records = read_records(path)
    name = recognised_table(records) if table_format is None else table_format
    read = load_table_format(name).read(records, wanted)
    if not read.records.size:
        raise QuantrustError(f"{path}: no rows are left; expected at least one answer")
    answers = {"id": _identifiers(read.records, read.id)}
    _check_unique(read.records, read.id.name, answers["id"])
    columns = (("image", read.image), ("group", read.group), ("split", read.split))
    answers |= {key: _identifiers(read.records, column) for key, column in columns if column is not None}
    answers.setdefault("image", answers["id"])
    frame = pl.DataFrame(answers, schema=dict.fromkeys(answers, pl.String)).with_columns(
        quality=pl.Series(_numbers(read.records, read.quality, _quality), dtype=pl.Float64),
        confidence=pl.Series(_numbers(read.records, read.confidence, _confidence), dtype=pl.Float64),
    )
    return ScoreTable(Path(path), name, frame, read.image is not None, read.notes)


def recognised_table(records: Records) -> str:
    """Return the name of the format of a table."""
    others = (name for name in table_format_names() if name != PLAIN)
    return next((name for name in others if load_table_format(name).recognises(records)), PLAIN)


def optional_column(records: Records, named: str | None, default: str | None, option: str) -> Column | None:
    """Return a column that a table need not have: the one that is named, or that of a usual name if it is there."""
    if named is not None:
        return Column(named, records.column(named, option))
    if default is not None and records.has(default):
        return Column(default, records.column(default, option))
    return None


def _identifiers(records: Records, column: Column) -> list[str]:
    return [identifier(value, column.name, records.where(row)) for row, value in enumerate(column.values)]


def _check_unique(records: Records, name: str, ids: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for row, named in enumerate(ids):
        if (first := seen.setdefault(named, row)) != row:
            raise QuantrustError(
                f"{records.where(row)}: {shown(name)} is {shown(named)}, as in {records.places[first]}; expected each "
                "answer once"
            )


def _numbers(records: Records, column: Column, number: Callable[[Any, bool], float | None]) -> list[float]:
    expected = "a number from 0 to 1, or true or false" if number is _quality else "a finite number"
    numbers = []
    for row, value in enumerate(column.values):
        found = number(value, records.is_text)
        if found is None:
            raise QuantrustError(f"{records.where(row)}: {shown(column.name)} is {shown(value)}; expected {expected}")
        numbers.append(found)
    return numbers


def _quality(value: Any, is_text: bool) -> float | None:
    """Return a quality as a number; None if it is none."""
    if isinstance(value, bool):
        return float(value)
    if is_text and value.lower() in TRUTHS:
        return TRUTHS[value.lower()]
    found = _confidence(value, is_text)
    return found if found is not None and 0.0 <= found <= 1.0 else None


def _confidence(value: Any, is_text: bool) -> float | None:
    """Return a finite number; None if it is none."""
    if is_text:
        value = float(value) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    # Not minus zero, which text formats may not have.
    return found + 0.0 if math.isfinite(found) else None


def no_such(records: Records, what: str, named: str, there_are: Sequence[str], option: str) -> QuantrustError:
    """Return the error of a name that a table does not have, with the names that it has."""
    return QuantrustError(
        f"{records.path}: has no {what} {shown(named)}; expected one of {listed(there_are)} in {option}"
    )


def choose(records: Records, what: str, there_are: Sequence[str], option: str) -> QuantrustError:
    """Return the error of a choice that the user has to make."""
    return QuantrustError(
        f"{records.path}: has {len(there_are)} {what}s, {listed(there_are)}; expected one of them in {option}"
    )
