"""Records of a user's table, column by column: a Parquet, CSV or JSONL file, whatever its columns mean.

What the columns mean is the matter of the modules of `quantrust.data.tables`.
"""

import csv
import io
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.artifacts.tables import read_others_table
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError
from quantrust.files import parse_json

SUFFIXES = (".parquet", ".csv", ".jsonl")
EXPECTED = f"a table in a file whose name ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
MOST_NAMED = 30
"""Columns that a message lists."""
MOST_VALUES = 100_000_000
"""Rows times columns of a JSONL file. Lines with a key of their own each would need the square of their number."""


class _Missing:
    """Stands where a record lacks a column that others have."""

    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


@dataclass(frozen=True)
class Records:
    """The rows of a table.

    Attributes
    ----------
    path : Path
    columns : mapping of str to sequence
        Values as the file has them, `MISSING` where a record lacks the column; at least one row.
    places : sequence of str
        How messages name each row, such as `line 3`.
    is_text : bool
        Whether every value is a text, because the file has no types.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[str]
    is_text: bool

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.places)

    def where(self, row: int) -> str:
        """Return how messages name a row, with the file."""
        return f"{self.path}: {self.places[row]}"

    def has(self, name: str) -> bool:
        """Whether there is a column, or an object with such an entry in it: `doc.image` is entry `image` of `doc`."""
        return name in self.columns or any(value is not MISSING for value in self._entries(name))

    def column(self, name: str, option: str | None = None) -> Sequence[Any]:
        """Return the values of a column, or of an entry of objects in a column.

        Parameters
        ----------
        name : str
            A column, or a column and the keys of entries in it with dots between them.
        option : str, optional
            The option that names it, for the message; without it, the table has to have a column of this name.

        Raises
        ------
        QuantrustError
            If there is none of this name, or a row lacks it.
        """
        values = self.columns.get(name)
        if values is None:
            values = self._entries(name)
            if all(value is MISSING for value in values):
                wanted = "a column of this name" if option is None else f"one of them in {option}"
                raise QuantrustError(
                    f"{self.path}: has no column {shown(name)}, only {listed(self.columns)}; expected {wanted}"
                )
        for row, value in enumerate(values):
            if value is MISSING:
                raise QuantrustError(f"{self.where(row)}: has no {shown(name)}; expected it in every row")
        return values

    def keep(self, wanted: Sequence[bool]) -> "Records":
        """Return some of the rows, with their places in the file."""
        columns = {name: [v for v, keep in zip(values, wanted, strict=True) if keep] for name, values in self._all()}
        places = [place for place, keep in zip(self.places, wanted, strict=True) if keep]
        return replace(self, columns=columns, places=places)

    def _all(self) -> list[tuple[str, Sequence[Any]]]:
        return list(self.columns.items())

    def _entries(self, name: str) -> Sequence[Any]:
        column, _, path = name.partition(".")
        if not path or column not in self.columns:
            return [MISSING] * self.size
        return [_entry(value, path) for value in self.columns[column]]


def listed(names: Collection[str]) -> str:
    """Return names of a file as a message lists them."""
    some = ", ".join(shown(name) for name in list(names)[:MOST_NAMED])
    return some if len(names) <= MOST_NAMED else f"{some} and {len(names) - MOST_NAMED} more"


def read_records(path: str | Path) -> Records:
    """Read a table.

    Parameters
    ----------
    path : str or Path
        Its suffix says what it is. CSV has commas and names its columns in the first line. A line of JSONL is an
        object. Text is UTF-8.

    Raises
    ------
    QuantrustError
        If it is not a file, has another suffix, cannot be read as what its suffix says, has two columns of one name, or
        has no rows. The message names the file, and the line where it has one.
    """
    path = Path(path)
    read = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}.get(path.suffix.lower())
    if read is None:
        raise QuantrustError(f"{shown(str(path))[1:-1]}: is no table by its name; expected {EXPECTED}")
    _check_file(path)
    records = read(path)
    if not records.places:
        raise QuantrustError(f"{path}: holds no rows; expected at least one")
    return records


def _check_file(path: Path) -> None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise QuantrustError(f"{path}: no such file; expected {EXPECTED}") from None
    except OSError as error:
        raise QuantrustError(f"{path}: cannot be read ({error.strerror}); expected {EXPECTED}") from None
    if stat.S_ISDIR(mode):
        raise QuantrustError(f"{path}: is a folder; expected {EXPECTED}")
    if not stat.S_ISREG(mode):
        raise QuantrustError(f"{path}: is a pipe, a device or a socket; write what it yields to a file and give that")


def _parquet(path: Path) -> Records:
    try:
        table = read_others_table(path)
        columns = {name: table[name].to_list() for name in table.columns if not _has_bytes(table[name].dtype)}
    # of a date that Python has not, polars raises either of the last two
    except (OSError, pl.exceptions.PolarsError, ValueError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise QuantrustError(f"{path}: cannot be read as Parquet ({reason}); write the file again") from None
    return Records(path, columns, [f"row {row}" for row in range(1, table.height + 1)], is_text=False)


def _has_bytes(kind: pl.DataType) -> bool:
    """Whether a column holds bytes, such as pictures, which say nothing of an answer."""
    return "Binary" in str(kind)


def _text_of(path: Path) -> str:
    try:
        # Some editors put a byte order mark before UTF-8.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise QuantrustError(f"{path}: cannot be read ({error.strerror}); expected {EXPECTED}") from None
    except UnicodeDecodeError as error:
        raise QuantrustError(f"{path}: is not UTF-8 text at byte {error.start}; write it as UTF-8") from None


def _csv(path: Path) -> Records:
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    rows: list[list[str]] = []
    places: list[str] = []
    try:
        header = next(reader, [])
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise QuantrustError(
                    f"{path}: line {reader.line_num}: has {len(row)} fields; expected {len(header)}, as many as the "
                    "first line names"
                )
            rows.append(row)
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise QuantrustError(f"{path}: line {reader.line_num}: is not CSV ({error}); write the file again") from None
    seen: set[str] = set()
    for name in header:
        if name in seen:
            raise QuantrustError(f"{path}: names the column {shown(name)} twice; expected each name once")
        seen.add(name)
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
    return Records(path, columns, places, is_text=True)


def _jsonl(path: Path) -> Records:
    records: list[dict[str, Any]] = []
    places: list[str] = []
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            records.append(_object(line, f"{path}: line {number}"))
            places.append(f"line {number}")
    names = dict.fromkeys(name for record in records for name in record)
    if len(names) * len(records) > MOST_VALUES:
        raise QuantrustError(
            f"{path}: has {len(records):,} lines and {len(names):,} different keys, a column each; expected at most "
            f"{MOST_VALUES:,} values in the table"
        )
    columns = {name: [record.get(name, MISSING) for record in records] for name in names}
    return Records(path, columns, places, is_text=False)


def _object(line: str, where: str) -> dict[str, Any]:
    value = parse_json(line, where, unique_keys=True)
    if not isinstance(value, dict):
        raise QuantrustError(f"{where}: is {shown(value)}; expected an object, {{..}}")
    return value


def _entry(value: Any, path: str) -> Any:
    """Return an entry within objects, `MISSING` where there is none."""
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return MISSING
        value = value[key]
    return value
