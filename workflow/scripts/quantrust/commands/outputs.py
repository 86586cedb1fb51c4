"""The files that a command is asked to write, checked before any work."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.errors import QuantrustError
from quantrust.files import atomic_path, write_json
from quantrust.partials import partial_file

TABLE_SUFFIXES = (".csv", ".json")


def check_writable(path: Path) -> None:
    """Try to write beside `path` and remove everything again, because permissions alone do not tell.

    Raises
    ------
    QuantrustError
        If something other than a file is at `path`, or nothing can be written there.
    """
    try:
        if path.exists() and not path.is_file():
            raise unwritable(path, "not a file")
        with ExitStack() as undo:
            make_folders(path, undo)
            undo.enter_context(partial_file(path))
    except (OSError, ValueError) as error:
        # A path with a NUL or a lone surrogate is a ValueError.
        raise unwritable(path, getattr(error, "strerror", None) or error) from None


def make_folders(path: Path, undo: ExitStack) -> None:
    """Make the folders that `path` lacks; `undo` removes them."""
    parent = path.parent.resolve()
    for folder in reversed([folder for folder in (parent, *parent.parents) if not folder.exists()]):
        folder.mkdir()
        undo.callback(folder.rmdir)


def unwritable(path: Path, reason: object) -> QuantrustError:
    """Return the error that says why an output cannot be written."""
    shown = ascii(str(path))[1:-1]
    return QuantrustError(f"{shown}: cannot be written ({reason}); expected the path of a file in a writable folder")


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file; not if either does not exist."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        # One of them does not exist. If it is an input, its reader will say so.
        return False


def check_not_read(path: Path, inputs: Iterable[Path]) -> None:
    """Raise a `QuantrustError` if an output is one of the files that the command reads."""
    for other in inputs:
        if same_file(path, other):
            raise QuantrustError(f"{path}: is also read, as {other}; expected the path of another file")


def check_table(path: Path, inputs: Iterable[Path]) -> None:
    """Raise a `QuantrustError` if a table cannot be written to `path`, or if the command also reads that file."""
    if path.suffix not in TABLE_SUFFIXES:
        raise QuantrustError(f"{path}: expected --out with a name that ends in {' or '.join(TABLE_SUFFIXES)}")
    check_writable(path)
    check_not_read(path, inputs)


def write_table(path: Path, table: pl.DataFrame, head: Mapping[str, Any]) -> None:
    """Write a table as CSV, or as JSON below facts about the whole.

    Parameters
    ----------
    path : Path
        Its suffix is one of `TABLE_SUFFIXES`.
    table : polars.DataFrame
    head : mapping
        The facts that JSON holds beside the rows.

    Raises
    ------
    QuantrustError
        If it cannot be written.
    """
    try:
        if path.suffix == ".csv":
            with atomic_path(path) as partial_file:
                table.write_csv(partial_file)
        else:
            write_json(path, {**head, "rows": table.to_dicts()})
    except OSError as error:
        raise unwritable(path, error.strerror or error) from None
