"""The table of accuracies."""

from collections.abc import Iterable
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
    """

    id_dataset: str


def write(csv: str | Path, settings: Settings, *, metric_paths: Iterable[str | Path]) -> None:
    """Write the mean quality of answers with its interval, a row per variant and dataset.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns model, scheme, dataset, n, accuracy, accuracy_low, accuracy_high.
    settings : Settings
    metric_paths : iterable of str or Path
        Metrics of the study's variants.
    """
    rows = whole_test_sets(rows_of(read_tables(metric_paths), "accuracy"), settings.id_dataset)
    rows = rows.unique([*VARIANT, "dataset"], keep="first", maintain_order=True)
    write_csv(rows.select(*VARIANT, "dataset", "n", *interval_columns("accuracy")), csv)
