"""The features file: its columns, how it is written and read, and what its metadata say. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from quantrust.errors import QuantrustError
from quantrust.files import atomic_path

SHARD = "shard"
"""Entry of the metadata of a shard: its place."""
HALVED = "halved_batches"
"""Entry of the metadata: batches, and parts of them, that did not fit the memory and were halved."""
DEVICE = "device"
"""Entry of the metadata: `cpu`, or the names of the GPUs that shards were dumped on."""
ROWS_AT_ONCE = 1 << 14
"""Of a features file, in memory at a time: some 3 GB with the states of a model of 4,096 channels and their copies."""
TEXT_COLUMNS = ("question_id", "dataset", "split", "image_id", "answer_type", "question_kind", "answer")


def features_schema(hidden: int) -> pa.Schema:
    """Return the Arrow schema of a features file for a language model of `hidden` channels."""
    state = pa.list_(pa.float16(), hidden)
    return pa.schema(
        [(name, pa.string()) for name in TEXT_COLUMNS]
        + [
            ("token_ids", pa.list_(pa.int32())),
            ("token_log_probs", pa.list_(pa.float32())),
            ("finished", pa.bool_()),
            ("joint_log_prob", pa.float32()),
            ("top_ids", pa.list_(pa.int32())),
            ("top_logits", pa.list_(pa.float32())),
            ("log_sum_exp", pa.float32()),
            ("entropy", pa.float32()),
            ("image_state", state),
            ("question_state", state),
            ("answer_state", state),
            ("accuracy", pa.float64()),
        ]
    )


def place_of_shard(shard: int, shards: int) -> str:
    """Return what the metadata of a shard say under `SHARD`; a file that one job writes has no such entry."""
    return f"{shard} of {shards}"


def features_notes(path: str | Path) -> dict[str, str]:
    """Return the metadata of a features file, those of the format left out.

    Raises
    ------
    QuantrustError
        If it is missing or no Parquet file.
    """
    try:
        notes = pq.read_metadata(path).metadata or {}
    except FileNotFoundError:
        raise QuantrustError(f"{path} is missing; run the same command again to dump it") from None
    except pa.ArrowInvalid as error:
        raise QuantrustError(f"{path} is no Parquet file ({error}); delete it and run the same command again") from None
    return {key.decode(): value.decode() for key, value in notes.items() if key != b"ARROW:schema"}


def read_slices(path: str | Path, columns: Sequence[str], rows: int = ROWS_AT_ONCE) -> Iterator[pl.DataFrame]:
    """Yield the rows of a features file in order, so many at a time.

    Parameters
    ----------
    path : str or Path
    columns : sequence of str
        Those to read.
    rows : int
        At most, of each table.
    """
    lazy = pl.scan_parquet(path).select(columns)
    for start in range(0, pq.read_metadata(path).num_rows, rows):
        yield lazy.slice(start, rows).collect()


class FeaturesWriter:
    """Writes a features file, a row group at a time; each is on disk before the next is computed."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    def write(self, table: pa.Table) -> None:
        """Append a row group."""
        self._writer.write_table(table)

    def describe(self, notes: Mapping[str, str]) -> None:
        """Give the file its metadata."""
        self._writer.add_key_value_metadata(dict(sorted(notes.items())))


@contextmanager
def writing_features(path: str | Path, schema: pa.Schema) -> Iterator[FeaturesWriter]:
    """Yield a writer of a features file, which is complete or absent.

    Parameters
    ----------
    path : str or Path
    schema : pyarrow.Schema
        As `features_schema` returns it.
    """
    # Only texts repeat; a dictionary of numbers would take more than the numbers.
    with (
        atomic_path(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", use_dictionary=list(TEXT_COLUMNS)) as writer,
    ):
        yield FeaturesWriter(writer)
