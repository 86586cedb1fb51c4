"""A study's numbers beside those that the paper prints, with their difference, as CSV, Markdown and LaTeX."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quantrust.artifacts.documents import writing_document
from quantrust.errors import QuantrustError
from quantrust.report.published import Published, read_published
from quantrust.report.results import in_distribution, read_tables
from quantrust.report.style import ESTIMATOR_LABELS
from quantrust.report.tables.paper import (
    Cell,
    Column,
    Row,
    cells_of,
    escaped,
    latex_table,
    shown_variants,
    table_columns,
)
from quantrust.report.wording import in_words, items, one_decimal

SCHEMA = {
    "model": pl.String,
    "scheme": pl.String,
    "estimator": pl.String,
    "metric": pl.String,
    "n": pl.Int64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "published": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
}


@dataclass(frozen=True)
class Difference:
    """Ours minus published, a difference of fractions; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Settings:
    """What the table is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    level : float in (0, 1)
        Confidence level of the intervals, for the caption.
    """

    id_dataset: str
    level: float


def write(
    csv: str | Path,
    markdown: str | Path,
    latex: str | Path,
    settings: Settings,
    *,
    metric_paths: Iterable[str | Path],
    published_path: str | Path,
) -> None:
    """Write the study's numbers beside the paper's, for the variants and metrics that the paper has.

    Numbers are in distribution, fractions in the CSV and in percent in the others. The difference is ours minus
    published. A published number has no interval, so the interval of the difference is that of ours, shifted by the
    published number.

    Parameters
    ----------
    csv, markdown, latex : str or Path
        The files to write. The CSV has a row per model, scheme, estimator and metric that the paper prints; the others
        a row per model, scheme and estimator.
    settings : Settings
    metric_paths : iterable of str or Path
        Metrics of the study's variants.
    published_path : str or Path
        The file of what the paper prints.

    Raises
    ------
    QuantrustError
        If the paper has none of the study's variants on this dataset.
    """
    metrics = in_distribution(read_tables(metric_paths), settings.id_dataset)
    published = read_published(published_path, settings.id_dataset)
    rows = _rows(metrics, published)
    if not rows:
        raise QuantrustError(
            f"{published_path} has no numbers of the study's models and schemes on {settings.id_dataset}; expected a "
            "study of one of its models and schemes on its dataset: leave this table out"
        )
    columns = _columns(rows)
    count = int(metrics["n"].max())
    caption = (
        f"{settings.id_dataset}, {count:,} test {items()}, beside the figures of {published.source}. In percent, with "
        f"{in_words(settings.level)} bootstrap intervals over images. Difference: this study's figure minus the "
        "published one. The published one has no interval and one decimal, so that the interval of a difference is "
        "that of this study's figure, shifted: it leaves out how far the published one itself is off by chance."
    )
    with writing_document(csv) as first, writing_document(markdown) as second, writing_document(latex) as third:
        _table(rows, columns, count).write_csv(first)
        second.write_text(_markdown(rows, columns, caption), encoding="utf-8")
        third.write_text(_latex(rows, columns, caption), encoding="utf-8")


def difference(cell: Cell) -> Difference:
    """Return a number minus the published one, with the number's interval shifted by the published one."""
    return Difference(
        *(
            None if bound is None or cell.published is None else bound - cell.published
            for bound in (cell.value, cell.low, cell.high)
        )
    )


def _rows(metrics: pl.DataFrame, published: Published) -> list[Row]:
    rows = []
    for model, look, estimator, here in shown_variants(metrics):
        numbers = published.of_variant(model, look.name, estimator)
        cells = cells_of(here)
        for key, cell in cells.items():
            cell.published = numbers.get(key)
        if any(cell.published is not None for cell in cells.values()):
            rows.append(Row(model, look.name, estimator, look.bits, cells))
    return rows


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the metrics that the paper prints for any of the rows."""
    keys = {key for row in rows for key, cell in row.cells.items() if cell.published is not None}
    risks = sorted(parameter for metric, parameter in keys if metric == "coverage_at_risk" and parameter is not None)
    return [column for column in table_columns(risks, [], []) if column.key in keys]


def _table(rows: Sequence[Row], columns: Sequence[Column], count: int) -> pl.DataFrame:
    records = []
    for row in rows:
        for column in columns:
            cell = row.cells[column.key]
            if cell.published is None:
                continue
            gap = difference(cell)
            numbers = (cell.value, cell.low, cell.high, cell.published, gap.value, gap.low, gap.high)
            records.append((row.model, row.scheme, row.estimator, column.name, count, *numbers))
    return pl.DataFrame(records, schema=SCHEMA, orient="row")


def _markdown(rows: Sequence[Row], columns: Sequence[Column], caption: str) -> str:
    headings = ["model", "scheme", "confidence"]
    headings += [heading for column in columns for heading in (column.heading, "published", "difference")]
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * 3 + " ---: |" * 3 * len(columns)]
    for row in rows:
        cells = [text for column in columns for text in _texts(row.cells[column.key])]
        lines.append("| " + " | ".join([row.model, row.scheme, ESTIMATOR_LABELS[row.estimator], *cells]) + " |")
    return "\n".join([*lines, "", caption, ""])


def _texts(cell: Cell) -> tuple[str, str, str]:
    """Return a number, the published one and the difference with its interval."""
    gap = difference(cell)
    ours, theirs = ("-" if value is None else one_decimal(value) for value in (cell.value, cell.published))
    text = "-" if gap.value is None else _points(gap.value)
    return ours, theirs, f"{text} {_interval(gap)}".rstrip()


def _points(difference: float) -> str:
    """Return a difference in percentage points, with its sign."""
    return f"{100 * difference:+z.1f}"


def _interval(gap: Difference) -> str:
    return "" if gap.low is None or gap.high is None else f"[{_points(gap.low)}, {_points(gap.high)}]"


def _latex(rows: Sequence[Row], columns: Sequence[Column], caption: str) -> str:
    """Return the table in LaTeX, intervals under the differences."""
    groups = [rf"\multicolumn{{3}}{{c}}{{{escaped(column.heading)}}}" for column in columns]
    rules = [rf"\cmidrule(lr){{{3 + 3 * place}-{5 + 3 * place}}}" for place in range(len(columns))]
    headings = [
        " & ".join(["", "", *groups]) + r" \\",
        "".join(rules),
        " & ".join(["scheme", "confidence", *["ours", "publ.", "diff."] * len(columns)]) + r" \\",
    ]
    lines = []
    for row in rows:
        numbers, intervals = [], []
        for column in columns:
            cell = row.cells[column.key]
            gap, interval = difference(cell), _interval(difference(cell))
            # Signs in math mode: a hyphen is not a minus sign.
            shown = "--" if gap.value is None else f"${_points(gap.value)}$"
            ours, theirs = ("--" if value is None else one_decimal(value) for value in (cell.value, cell.published))
            numbers += [ours, theirs, shown]
            intervals += ["", "", rf"{{\tiny ${interval}$}}" if interval else ""]
        lines.append((row, numbers, intervals))
    return latex_table("published", caption, "ccc" * len(columns), headings, lines)
