"""The files that a command is asked to write, checked before any work."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.errors import QuantrustError
from quantrust.files import atomic_path, json_text
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


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise a `QuantrustError` if one of several files cannot be written, is read as well, or is or holds another."""
    for path in outputs:
        check_writable(path)
    for path in outputs:
        check_not_read(path, inputs)
    for place, path in enumerate(outputs):
        for before in outputs[:place]:
            one, other = before.resolve(), path.resolve()
            if one == other or one in other.parents or other in one.parents:
                raise QuantrustError(
                    f"{path}: is, holds or lies in the other output, {before}; expected paths of two files"
                )


def write_outputs(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write several files: all, or none where one cannot be written.

    Parameters
    ----------
    writers : mapping of Path to callable
        What writes each file; it is given another path to write to.

    Raises
    ------
    QuantrustError
        If a file cannot be written.
    """
    path = Path()
    try:
        with ExitStack() as undo:
            for path in writers:
                make_folders(path, undo)
            with ExitStack() as stack:
                for path, write in writers.items():
                    write(stack.enter_context(atomic_path(path)))
            undo.pop_all()
    except OSError as error:
        raise unwritable(path, error.strerror or error) from None


def json_writer(value: Any) -> Callable[[Path], object]:
    """Return what writes a value as JSON."""
    return lambda path: path.write_text(json_text(value), encoding="utf-8")


def check_table(path: Path, inputs: Iterable[Path]) -> None:
    """Raise a `QuantrustError` if a table cannot be written to `path`, or if the command also reads that file."""
    if path.suffix not in TABLE_SUFFIXES:
        raise QuantrustError(f"{path}: expected --out with a name that ends in {' or '.join(TABLE_SUFFIXES)}")
    check_writable(path)
    check_not_read(path, inputs)


def table_writer(path: Path, table: pl.DataFrame, head: Mapping[str, Any]) -> Callable[[Path], object]:
    """Return what writes a table as CSV, or as JSON below facts about the whole.

    Parameters
    ----------
    path : Path
        The file as the user names it; its suffix is one of `TABLE_SUFFIXES`.
    table : polars.DataFrame
    head : mapping
        The facts that JSON holds beside the rows.
    """
    return table.write_csv if path.suffix == ".csv" else json_writer({**head, "rows": table.to_dicts()})


def write_table(path: Path, table: pl.DataFrame, head: Mapping[str, Any]) -> None:
    """Write what `table_writer` writes; raise a `QuantrustError` if it cannot be written."""
    write_outputs({path: table_writer(path, table, head)})
