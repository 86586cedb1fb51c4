"""Tables of a study, Parquet and the CSV of reports: complete or absent when written, and whole when read.

All tables of the workflow are written and read here, or in `quantrust.artifacts.row_groups` where pyarrow streams them.
So a table whose bytes have changed is never used.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from quantrust.artifacts.documents import check_document, writing_document
from quantrust.artifacts.parquet_seal import BLANK, KEY, check_seal, seal
from quantrust.files import atomic_path

FORMAT_KEYS = (KEY, "ARROW:schema")
"""Metadata that belong to the format and say nothing of the content."""


def write_table(table: pl.DataFrame, path: str | Path) -> None:
    """Write a table; it is complete or absent, and its parent folder is created.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    write_tables({path: table})


def write_tables(tables: Mapping[str | Path, pl.DataFrame]) -> None:
    """Write tables by their paths; none is put in its place before all are written.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    with ExitStack() as stack:
        for path, table in tables.items():
            partial = stack.enter_context(atomic_path(path))
            table.write_parquet(partial, metadata={KEY: BLANK})
            seal(partial)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a table, or some columns of it.

    Raises
    ------
    QuantrustError
        If it is missing, cannot be read or is damaged.
    """
    check_seal(path)
    return pl.read_parquet(path, columns=None if columns is None else list(columns), glob=False)


def scan_table(path: str | Path) -> pl.LazyFrame:
    """Return a lazy frame of a table; raises as `read_table`."""
    check_seal(path)
    return pl.scan_parquet(path, glob=False)


def write_csv(table: pl.DataFrame, path: str | Path) -> None:
    """Write a table of a report as CSV, with its digest beside it; complete or absent, as `write_table`."""
    with writing_document(path) as partial:
        table.write_csv(partial)


def read_csv(path: str | Path, **how: Any) -> pl.DataFrame:
    """Read a table of a report.

    Parameters
    ----------
    path : str or Path
    **how
        As `polars.read_csv` takes it.

    Raises
    ------
    QuantrustError
        If it or its digest is missing, cannot be read or is damaged.
    """
    check_document(path)
    return pl.read_csv(path, glob=False, **how)


def table_notes(path: str | Path) -> dict[str, str]:
    """Return the metadata of a table by name, those of the format left out; raises as `read_table`."""
    check_seal(path)
    # the library returns them in another order each time
    notes = sorted(pl.read_parquet_metadata(path).items())
    return {key: value for key, value in notes if key not in FORMAT_KEYS}


def count_rows(path: str | Path) -> int:
    """Return the number of rows of a table; raises as `read_table`."""
    return scan_table(path).select(pl.len()).collect().item()


def read_others_table(path: str | Path) -> pl.DataFrame:
    """Read a Parquet file that may come from a user; if it has a digest, its bytes must match it.

    Raises
    ------
    QuantrustError
        If it is an artifact of a study and is damaged.
    OSError, polars.exceptions.PolarsError
        If it cannot be read as Parquet.
    """
    # polars panics at damaged files and at metadata that are no UTF-8; pyarrow raises, or takes them
    try:
        with pq.ParquetFile(path) as file:
            if KEY.encode() not in (file.metadata.metadata or {}):
                table = file.read().replace_schema_metadata()
                table.validate(full=True)
                return pl.DataFrame(table)
    except (pa.ArrowException, UnicodeDecodeError, pl.exceptions.PanicException) as error:
        raise pl.exceptions.ComputeError(str(error)) from None
    check_seal(path)
    return pl.read_parquet(path, glob=False)


def others_columns(path: str | Path) -> list[str] | None:
    """Return the names of the columns of a Parquet file that may come from a user; None if it cannot be read as one."""
    try:
        return pq.read_schema(path).names
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None
