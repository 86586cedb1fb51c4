"""The table of accuracies."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import write_csv
from quantrust.report.results import (
    VARIANT,
    corpus_metrics_in,
    interval_columns,
    read_tables,
    rows_of,
    whole_test_sets,
)


@dataclass(frozen=True)
class Settings:
    """What the table is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    """

    id_dataset: str


def write(csv: str | Path, settings: Settings, *, metric_paths: Iterable[str | Path]) -> None:
    """Write the mean quality of answers with its interval, a row per variant and dataset.

    Beside it stand the metrics of all answers together that a task of the study has, such as CIDEr-D.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns model, scheme, dataset, n, accuracy, accuracy_low, accuracy_high, and three
        more for each further metric, by its name.
    settings : Settings
    metric_paths : iterable of str or Path
        Metrics of the study's variants.
    """
    metrics = whole_test_sets(read_tables(metric_paths), settings.id_dataset)
    keys = [*VARIANT, "dataset"]
    table = _once(metrics, "accuracy").select(*keys, "n", *interval_columns("accuracy"))
    for name in corpus_metrics_in(metrics):
        further = _once(metrics, name).select(*keys, *interval_columns(name))
        table = table.join(further, on=keys, how="left", maintain_order="left")
    write_csv(table, csv)


def _once(metrics: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the rows of a metric that is the same under every estimator."""
    return rows_of(metrics, name).unique([*VARIANT, "dataset"], keep="first", maintain_order=True)
