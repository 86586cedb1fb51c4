"""The features file: its columns and metadata, writing and reading. No torch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import polars as pl
import pyarrow as pa

from quantrust.artifacts.row_groups import RowGroupWriter, writing_row_groups
from quantrust.artifacts.tables import count_rows, scan_table

SHARD = "shard"
"""Entry of the metadata of a shard: its place."""
HALVED = "halved_batches"
"""Entry of the metadata: batches, and parts of them, that did not fit the memory and were halved."""
DEVICE = "device"
"""Entry of the metadata: `cpu`, or the names of the GPUs that shards were dumped on."""
ROWS_AT_ONCE = 1 << 14
"""Of a features file, in memory at a time: some 3 GB with the states of a model of 4,096 channels and their copies."""
TEXT_COLUMNS = ("question_id", "dataset", "split", "image_id", "answer_type", "question_kind", "answer")
RANK = "rank"
"""Column of the best rank of what a query looks for, from 1 on; what is not ranked at all stands behind all that is."""


def features_schema(hidden: int, corpus_metrics: Iterable[str] = ()) -> pa.Schema:
    """Return the Arrow schema of a features file.

    Parameters
    ----------
    hidden : int
        Channels of the language model.
    corpus_metrics : iterable of str
        Names of the metrics of all answers together that the task has. Each is a column: what the answer adds to it.
    """
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
            ("quality", pa.float64()),
        ]
        + [(name, pa.float64()) for name in corpus_metrics]
    )


def matches_schema(recalls: Iterable[str] = ()) -> pa.Schema:
    """Return the Arrow schema of a features file of a model that matches images with texts.

    For each query there is what ranks first, the best first, with its score.

    Parameters
    ----------
    recalls : iterable of str
        Names of the recalls that the task has. Each is a column: whether the query counts as a hit there, null where it
        is of another kind.
    """
    return pa.schema(
        [(name, pa.string()) for name in TEXT_COLUMNS]
        + [
            ("match_ids", pa.list_(pa.string())),
            ("match_scores", pa.list_(pa.float32())),
            (RANK, pa.int32()),
            ("quality", pa.float64()),
        ]
        + [(name, pa.float64()) for name in recalls]
    )


def corpus_metrics_of(schema: pa.Schema) -> list[str]:
    """Return the names of the metrics that only some tasks have and a features file has columns of, from its schema."""
    usual = {*features_schema(0).names, *matches_schema().names}
    return [name for name in schema.names if name not in usual]


def place_of_shard(shard: int, shards: int) -> str:
    """Return the entry `SHARD` in the metadata of a shard; a file that one job writes has no such entry."""
    return f"{shard} of {shards}"


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
    lazy = scan_table(path).select(columns)
    for start in range(0, count_rows(path), rows):
        yield lazy.slice(start, rows).collect()


def writing_features(path: str | Path, schema: pa.Schema) -> AbstractContextManager[RowGroupWriter]:
    """Return a context with a writer of a features file, which is complete or absent.

    Parameters
    ----------
    path : str or Path
    schema : pyarrow.Schema
        As `features_schema` returns it.
    """
    # Only texts repeat; a dictionary of numbers would take more than the numbers.
    return writing_row_groups(path, schema, TEXT_COLUMNS)
