"""The table of calibration errors, areas under the risk-coverage curve, and coverages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantrust.artifacts.tables import write_csv
from quantrust.report.results import VARIANT, interval_columns, read_tables, rows_of, whole_test_sets


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
    """Write ECE, AURC and coverage at every risk limit, a row per variant, dataset and estimator.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns model, scheme, dataset, estimator, n, then value, low and high of every
        metric; empty where a metric is undefined.
    settings : Settings
    metric_paths : iterable of str or Path
        Metrics of the study's variants.
    """
    metrics = whole_test_sets(read_tables(metric_paths), settings.id_dataset)
    keys = [*VARIANT, "dataset", "estimator"]
    table = metrics.select(*keys, "n").unique(keys, keep="first", maintain_order=True)
    wanted: list[tuple[str, str, float | None]] = [("ece", "ece", None), ("aurc", "aurc", None)]
    wanted += [(f"coverage_at_risk_{risk}", "coverage_at_risk", risk) for risk in settings.risks]
    for name, metric, parameter in wanted:
        values = rows_of(metrics, metric, parameter).select(*keys, *interval_columns(name))
        table = table.join(values, on=keys, how="left", maintain_order="left")
    write_csv(table, csv)
