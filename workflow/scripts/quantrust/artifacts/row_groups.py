"""Tables of a study that are written and read a row group at a time, with pyarrow."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quantrust.artifacts.parquet_seal import BLANK, KEY, check_seal, seal
from quantrust.files import atomic_path


class RowGroupWriter:
    """Writes a table a row group at a time; each is on disk before the next is computed."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    def write(self, table: pa.Table) -> None:
        """Append a row group."""
        self._writer.write_table(table)

    def describe(self, notes: Mapping[str, str]) -> None:
        """Give the file its metadata."""
        self._writer.add_key_value_metadata(dict(sorted(notes.items())))


@contextmanager
def writing_row_groups(path: str | Path, schema: pa.Schema, dictionaries: Sequence[str]) -> Iterator[RowGroupWriter]:
    """Yield a writer of a table, which is complete or absent.

    Parameters
    ----------
    path : str or Path
        Its parent folder is created.
    schema : pyarrow.Schema
    dictionaries : sequence of str
        Columns whose values repeat, and are stored once.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    with atomic_path(path) as partial:
        with pq.ParquetWriter(partial, schema, compression="zstd", use_dictionary=list(dictionaries)) as writer:
            yield RowGroupWriter(writer)
            writer.add_key_value_metadata({KEY: BLANK})
        seal(partial)


def read_schema(path: str | Path) -> pa.Schema:
    """Return the schema of a table.

    Raises
    ------
    QuantrustError
        If it is missing, cannot be read or is damaged.
    """
    check_seal(path)
    return pq.read_schema(path)


def read_row_groups(path: str | Path) -> Iterator[pa.Table]:
    """Yield the row groups of a table in order; raises as `read_schema`."""
    check_seal(path)
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)
