"""Reading metrics and curves for the report: tables of one or many variants, and the rows that a figure shows."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import read_table, scan_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.metric_records import OF_CORPUS

VARIANT = ["model", "scheme"]
"""Columns that name a variant."""


def read_tables(paths: Iterable[str | Path], wanted: pl.Expr | None = None) -> pl.DataFrame:
    """Read Parquet tables of the same columns into one, in the order of the paths.

    Parameters
    ----------
    paths : iterable of str or Path
    wanted : polars.Expr, optional
        Which rows are read; the others are never in memory together. By default all.
    """
    if wanted is None:
        return pl.concat([read_table(path) for path in paths])
    return pl.concat([scan_table(path).filter(wanted).collect() for path in paths])


def rows_of(metrics: pl.DataFrame, metric: str, parameter: float | None = None) -> pl.DataFrame:
    """Return the rows of one metric, and of one risk or cost where it has one.

    Raises
    ------
    QuantrustError
        If there is none: the study did not compute what the report shows.
    """
    same = pl.col("parameter").is_null() if parameter is None else pl.col("parameter") == parameter
    rows = metrics.filter((pl.col("metric") == metric) & same)
    if rows.is_empty():
        what = metric if parameter is None else f"{metric} at {parameter}"
        raise QuantrustError(f"the metrics hold no {what}; add it to `evaluation` in the config")
    return rows


def corpus_metrics_in(metrics: pl.DataFrame) -> list[str]:
    """Return the names of the metrics of all answers together that a table of metrics has."""
    return [name for name in OF_CORPUS if name in metrics["metric"]]


def in_distribution(rows: pl.DataFrame, id_dataset: str) -> pl.DataFrame:
    """Return the rows of the whole test split of the ID dataset."""
    return rows.filter((pl.col("dataset") == id_dataset) & (pl.col("id_share") == 1))


def whole_test_sets(rows: pl.DataFrame, id_dataset: str) -> pl.DataFrame:
    """Return the rows of every dataset's whole test split, the order of variants kept.

    A shift's whole test split has no `id_share`, or is its mixture of share 0 where that holds every question.
    """
    whole = set(rows.filter(pl.col("id_share").is_null())["dataset"])
    in_parts = pl.col("dataset").is_in(whole)
    return rows.filter(
        ((pl.col("dataset") == id_dataset) & (pl.col("id_share") == 1))
        | (
            (pl.col("dataset") != id_dataset)
            & pl.when(in_parts).then(pl.col("id_share").is_null()).otherwise(pl.col("id_share") == 0)
        )
    )


def pick(rows: pl.DataFrame, **values: str | float) -> pl.DataFrame:
    """Return the rows with these values in these columns."""
    return rows.filter(*(pl.col(name) == value for name, value in values.items()))


def distinct(rows: pl.DataFrame, column: str) -> list[str]:
    """Return the different values of a column in the order of their first rows."""
    return rows[column].unique(maintain_order=True).to_list()


def interval_columns(name: str) -> list[pl.Expr]:
    """Return value, low and high of rows of metrics as columns that are named after the metric."""
    return [
        pl.col(column).alias(label)
        for column, label in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high"))
    ]
