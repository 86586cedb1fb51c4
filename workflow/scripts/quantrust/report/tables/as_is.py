"""Tables of the evaluation as they are."""

from collections.abc import Iterable
from pathlib import Path

from quantrust.artifacts.tables import write_csv
from quantrust.report.results import read_tables


def write(csv: str | Path, *, paths: Iterable[str | Path]) -> None:
    """Write tables of the evaluation as they are, one after another.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns of the tables.
    paths : iterable of str or Path
        Parquet files of one schema.
    """
    write_csv(read_tables(paths), csv)
