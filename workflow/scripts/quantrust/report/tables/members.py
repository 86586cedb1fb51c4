"""The table of how far another training of a learned estimator moves its results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import write_csv
from quantrust.report.results import VARIANT, read_tables, rows_of, whole_test_sets


@dataclass(frozen=True)
class Settings:
    """What the table is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    risks : sequence of float in [0, 1]
        The risk limits of the coverages.
    """

    id_dataset: str
    risks: Sequence[float]


def write(csv: str | Path, settings: Settings, *, metric_paths: Iterable[str | Path]) -> None:
    """Write how far another training of a learned estimator moves its results, a row per variant, dataset and metric.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns model, scheme, dataset, estimator, metric, parameter, n, members, value (of
        the first member, which is the estimator), mean, deviation (standard, of the members), lowest and highest; for
        AURC, ECE and coverage at every risk limit.
    settings : Settings
    metric_paths : iterable of str or Path
        Metrics of the study's variants.
    """
    metrics = whole_test_sets(read_tables(metric_paths), settings.id_dataset).filter(pl.col("members").is_not_null())
    wanted: list[tuple[str, float | None]] = [("aurc", None), ("ece", None)]
    wanted += [("coverage_at_risk", risk) for risk in settings.risks]
    rows = pl.concat([rows_of(metrics, metric, parameter) for metric, parameter in wanted])
    members = pl.col("members").list
    table = rows.select(
        *VARIANT,
        *("dataset", "estimator", "metric", "parameter", "n"),
        members.len().alias("members"),
        "value",
        members.mean().alias("mean"),
        members.std().alias("deviation"),
        members.min().alias("lowest"),
        members.max().alias("highest"),
    )
    write_csv(table, csv)
