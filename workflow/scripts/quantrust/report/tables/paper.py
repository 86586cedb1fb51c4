"""The paper's two main tables, MaxProb under quantization and what the Selector gives back, as CSV, Markdown, LaTeX."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.artifacts.documents import writing_document
from quantrust.artifacts.tables import read_table
from quantrust.evaluation.comparison import fewest_resamples
from quantrust.evaluation.limits import as_given
from quantrust.evaluation.metric_records import OF_ANSWERS_ALONE, Key, metric_named
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.published import Published, read_published
from quantrust.report.results import corpus_metrics_in, distinct, in_distribution, pick, read_tables
from quantrust.report.style import ESTIMATOR_LABELS, Look, looks
from quantrust.report.wording import SIGNIFICANT, in_words, items, metric_label, one_decimal

FROM_UNQUANTIZED, FROM_MAXPROB = "*", "†"
UNTESTED = "°"
"""Marks numbers for which the study tests no difference, so that no mark means that none was found."""


@dataclass(frozen=True)
class Column:
    """One metric of the tables: its key, its name in a CSV and its heading."""

    key: Key
    name: str
    heading: str


@dataclass
class Cell:
    """One number, a fraction; None where undefined.

    Attributes
    ----------
    value, low, high : float or None
    marks : str
        Of `FROM_UNQUANTIZED` and `FROM_MAXPROB` those that differ significantly; or `UNTESTED`.
    comparable : bool
        Whether there is anything to test it against: another scheme or another estimator with other answers.
    p_values : mapping of str to float or None
        Corrected, by mark.
    published : float or None
        The paper's number.
    best : bool
        Whether no other of the model at these bits is better.
    """

    value: float | None
    low: float | None
    high: float | None
    marks: str = ""
    comparable: bool = False
    p_values: dict[str, float | None] = field(default_factory=dict)
    published: float | None = None
    best: bool = False

    @property
    def tested(self) -> bool:
        """Whether the study tests any difference of it."""
        return any(p is not None for p in self.p_values.values())


@dataclass(frozen=True)
class Row:
    """A variant under an estimator: its names, bits of the language model (None without one number) and numbers."""

    model: str
    scheme: str
    estimator: str
    bits: int | None
    cells: dict[Key, Cell]


@dataclass(frozen=True)
class Settings:
    """What the table is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    estimators : sequence of str
        A row of each variant for each of these that the study has.
    risks, costs : sequence of float
        Risk limits of the coverages and costs of the effective reliabilities.
    resamples : int
        Of the comparisons; the caption says where they are too few to find any difference.
    level : float in (0, 1)
        Confidence level of the intervals, for the caption.
    """

    id_dataset: str
    estimators: Sequence[str]
    risks: Sequence[float]
    costs: Sequence[float]
    resamples: int
    level: float


def write(
    csv: str | Path,
    markdown: str | Path,
    latex: str | Path,
    settings: Settings,
    *,
    metric_paths: Iterable[str | Path],
    comparisons_path: str | Path,
    published_path: str | Path,
) -> None:
    """Write one of the paper's tables in distribution: a row per model, scheme and estimator, a column per metric.

    Numbers are fractions in the CSV and in percent in the others. Marked are differences, significant after Holm's
    correction, from the unquantized model under the same estimator (*) and from MaxProb on the same answers (†), where
    the study compares them; headings and numbers for which it does not are marked as well (°). Bold is the best of a
    model at the same number of bits, where there is a choice. Beside them stand the paper's numbers, where the study is
    of its models, dataset and schemes.

    Parameters
    ----------
    csv, markdown, latex : str or Path
        The files to write. The CSV has the columns model, scheme, estimator and n, then for each metric value, low,
        high, p_bf16, p_maxprob (corrected) and published. The name of the LaTeX file is the table's label.
    settings : Settings
    metric_paths : iterable of str or Path
        Metrics of the study's variants.
    comparisons_path : str or Path
        The table of `quantrust.evaluation.comparison.write_comparisons`.
    published_path : str or Path
        The file of what the paper prints.
    """
    metrics = in_distribution(read_tables(metric_paths), settings.id_dataset)
    metrics = metrics.filter(pl.col("estimator").is_in(list(settings.estimators)))
    columns = table_columns(settings.risks, settings.costs, corpus_metrics_in(metrics))
    published = read_published(published_path, settings.id_dataset)
    comparisons = read_table(comparisons_path)
    tests = comparisons["p_holm"].count()
    needed = fewest_resamples(tests, SIGNIFICANT)
    unmarked = "no difference was found"
    if settings.resamples < needed:
        unmarked += (
            f", as none could be: {tests:,} tests take {needed:,} resamples, and there are {settings.resamples:,}"
        )
    rows = _rows(metrics, comparisons.filter(pl.col("dataset") == settings.id_dataset), columns, published)
    mark_best(rows)
    columns = mark_untested(rows, columns)
    count = metrics["n"].max()
    caption = (
        f"{settings.id_dataset}, {count:,} test {items()}; in percent, with {in_words(settings.level)} bootstrap "
        "intervals over images. Best of a model at the same number of bits in bold. Paired tests at "
        f"{in_words(SIGNIFICANT)} after Holm's correction: {FROM_UNQUANTIZED} differs from {UNQUANTIZED}, "
        f"{FROM_MAXPROB} from MaxProb; without a mark {unmarked}; {UNTESTED} was not tested. "
        "AURC: area under the risk-coverage curve, the paper's AUC."
    )
    if any(cell.published is not None for row in rows for cell in row.cells.values()):
        caption += f" In parentheses: {published.source}."
    with writing_document(csv) as first, writing_document(markdown) as second, writing_document(latex) as third:
        _table(rows, columns, count).write_csv(first)
        second.write_text(as_markdown(rows, columns, caption), encoding="utf-8")
        third.write_text(as_latex(rows, columns, caption, Path(latex).stem), encoding="utf-8")


def table_columns(risks: Sequence[float], costs: Sequence[float], corpus: Sequence[str]) -> list[Column]:
    """Return the columns of the tables, with a coverage for each risk and an effective reliability for each cost.

    Behind the accuracy stand the metrics of all answers together.
    """
    keys: list[tuple[Key, str]] = [((name, None), name) for name in corpus]
    keys += [(("ece", None), "ece")]
    keys += [(("coverage_at_risk", risk), f"coverage_at_risk_{risk}") for risk in risks]
    keys += [(("aurc", None), "aurc")]
    keys += [(("effective_reliability", cost), f"effective_reliability_{as_given(cost)}") for cost in costs]
    # Abbreviated, as the paper does it.
    label = metric_label("accuracy")
    accuracy = Column(("accuracy", None), "accuracy", "Acc." if label == "Accuracy" else label)
    return [accuracy, *(Column(key, name, metric_label(*key)) for key, name in keys)]


def shown_variants(metrics: pl.DataFrame) -> Iterator[tuple[str, Look, str, pl.DataFrame]]:
    """Yield model, scheme, estimator and metrics of each variant in the order of the tables' rows.

    Like the paper's: by bits, the methods at the same bits one after another, MaxProb before the Selector.
    """
    shown = sorted(looks(distinct(metrics, "scheme")), key=lambda look: (look.series is not None, -(look.bits or 0)))
    estimators = [name for name in ESTIMATOR_LABELS if name in distinct(metrics, "estimator")]
    found = metrics.partition_by("model", "scheme", "estimator", as_dict=True)
    for model in distinct(metrics, "model"):
        for look in shown:
            for estimator in estimators:
                here = found.get((model, look.name, estimator))
                if here is not None:
                    yield model, look, estimator, here


def cells_of(variant: pl.DataFrame) -> dict[Key, Cell]:
    """Return the numbers of the metrics of one variant under one estimator."""
    return {
        (row["metric"], row["parameter"]): Cell(row["value"], row["low"], row["high"])
        for row in variant.iter_rows(named=True)
    }


def _rows(
    metrics: pl.DataFrame, comparisons: pl.DataFrame, columns: Sequence[Column], published: Published
) -> list[Row]:
    rows = []
    unquantized = set(pick(metrics, scheme=UNQUANTIZED)["model"])
    compared = comparisons.partition_by("first_model", "first_scheme", as_dict=True)
    for model, look, estimator, here in shown_variants(metrics):
        other_scheme = look.name != UNQUANTIZED and model in unquantized
        own = _p_values(compared.get((model, look.name), comparisons.clear()), model, look.name, estimator)
        numbers = published.of_variant(model, look.name, estimator)
        found = cells_of(here)
        cells = {column.key: found[column.key] for column in columns}
        for key, cell in cells.items():
            other_estimator = estimator != "maxprob" and key[0] not in OF_ANSWERS_ALONE
            cell.comparable = cell.value is not None and (other_scheme or other_estimator)
            cell.p_values = {mark: p_values.get(key) for mark, p_values in own.items()}
            cell.marks = "".join(m for m, p in cell.p_values.items() if p is not None and p < SIGNIFICANT)
            cell.published = numbers.get(key)
        rows.append(Row(model, look.name, estimator, look.bits, cells))
    return rows


def _p_values(comparisons: pl.DataFrame, model: str, scheme: str, estimator: str) -> dict[str, dict[Key, float | None]]:
    """Return corrected p-values of a variant by mark and metric; of the answers' metrics under whatever estimator.

    `comparisons` are those whose first side is the variant.
    """
    of_model = pl.col("second_model") == model
    from_unquantized = comparisons.filter(
        of_model
        & (pl.col("second_scheme") == UNQUANTIZED)
        & (pl.col("first_scheme") != UNQUANTIZED)
        & (pl.col("first_estimator") == pl.col("second_estimator"))
        & ((pl.col("first_estimator") == estimator) | pl.col("metric").is_in(OF_ANSWERS_ALONE))
    )
    from_maxprob = comparisons.filter(
        of_model
        & (pl.col("second_scheme") == scheme)
        & (pl.col("first_estimator") == estimator)
        & (pl.col("second_estimator") == "maxprob")
    )
    return {
        mark: {(row["metric"], row["parameter"]): row["p_holm"] for row in table.iter_rows(named=True)}
        for mark, table in ((FROM_UNQUANTIZED, from_unquantized), (FROM_MAXPROB, from_maxprob))
    }


def as_shown(value: float) -> float:
    """Return a number in percent rounded like the printed one, so that no difference is marked that cannot be seen."""
    return float(one_decimal(value))


def mark_best(rows: Sequence[Row]) -> None:
    """Mark the best numbers of each model at the same number of bits, where there are more and they differ as shown."""
    places = list(dict.fromkeys((row.model, row.scheme == UNQUANTIZED, row.bits) for row in rows))
    for model, unquantized, bits in places:
        if bits is None and not unquantized:
            # Schemes that the config names have no one number of bits at which they could be compared.
            continue
        together = [
            row for row in rows if (row.model, row.scheme == UNQUANTIZED, row.bits) == (model, unquantized, bits)
        ]
        for key in together[0].cells:
            sign = 1 if metric_named(key[0]).higher_is_better else -1
            worth = [sign * as_shown(row.cells[key].value) for row in together if row.cells[key].value is not None]
            if len(set(worth)) < 2:
                continue
            for row in together:
                value = row.cells[key].value
                row.cells[key].best = value is not None and sign * as_shown(value) == max(worth)


def mark_untested(rows: Sequence[Row], columns: Sequence[Column]) -> list[Column]:
    """Mark what could be tested and is not: the headings of whole columns, which are returned, and single numbers."""
    marked = []
    for column in columns:
        cells = [row.cells[column.key] for row in rows if row.cells[column.key].comparable]
        if cells and not any(cell.tested for cell in cells):
            marked.append(replace(column, heading=column.heading + UNTESTED))
            continue
        marked.append(column)
        for cell in cells:
            if not cell.tested:
                cell.marks = UNTESTED
    return marked


def _table(rows: Sequence[Row], columns: Sequence[Column], count: int) -> pl.DataFrame:
    records = []
    for row in rows:
        record: dict[str, Any] = {"model": row.model, "scheme": row.scheme, "estimator": row.estimator, "n": count}
        for column in columns:
            cell = row.cells[column.key]
            record[column.name] = cell.value
            record[f"{column.name}_low"] = cell.low
            record[f"{column.name}_high"] = cell.high
            record[f"{column.name}_p_bf16"] = cell.p_values[FROM_UNQUANTIZED]
            record[f"{column.name}_p_maxprob"] = cell.p_values[FROM_MAXPROB]
            record[f"{column.name}_published"] = cell.published
        records.append(record)
    return pl.DataFrame(records, infer_schema_length=None)


def as_markdown(rows: Sequence[Row], columns: Sequence[Column], caption: str) -> str:
    """Return the table in Markdown, the caption under it."""
    lines = ["| " + " | ".join(["model", "scheme", "confidence", *(column.heading for column in columns)]) + " |"]
    lines.append("|" + " --- |" * 3 + " ---: |" * len(columns))
    for row in rows:
        cells = [_markdown_cell(row.cells[column.key]) for column in columns]
        lines.append("| " + " | ".join([row.model, row.scheme, ESTIMATOR_LABELS[row.estimator], *cells]) + " |")
    return "\n".join([*lines, "", caption.replace("*", r"\*"), ""])


def _markdown_cell(cell: Cell) -> str:
    if cell.value is None:
        return "-"
    value = f"**{one_decimal(cell.value)}**" if cell.best else one_decimal(cell.value)
    parts = [value + cell.marks.replace("*", r"\*")]
    if cell.low is not None and cell.high is not None:
        parts.append(f"[{one_decimal(cell.low)}, {one_decimal(cell.high)}]")
    if cell.published is not None:
        parts.append(f"({one_decimal(cell.published)})")
    return " ".join(parts)


def as_latex(rows: Sequence[Row], columns: Sequence[Column], caption: str, name: str) -> str:
    """Return the table in LaTeX, intervals under the numbers."""
    heading = " & ".join(["scheme", "confidence", *(escaped(column.heading) for column in columns)]) + r" \\"
    lines = []
    for row in rows:
        cells = [row.cells[column.key] for column in columns]
        lines.append((row, [_latex_value(cell) for cell in cells], [_latex_interval(cell) for cell in cells]))
    return latex_table(name, caption, "c" * len(columns), [heading], lines)


def latex_table(
    name: str,
    caption: str,
    alignment: str,
    headings: Sequence[str],
    lines: Sequence[tuple[Row, Sequence[str], Sequence[str]]],
) -> str:
    """Return a table in LaTeX over both columns of a page; it needs `booktabs`.

    Parameters
    ----------
    name : str
        Of its label, after `tab:`.
    caption : str
        Not escaped yet.
    alignment : str
        Of the columns after scheme and confidence, a letter each.
    headings : sequence of str
        Whole lines.
    lines : sequence of (Row, sequence of str, sequence of str)
        What stands in each row, and what stands under it.
    """
    text = [
        r"\begin{table*}",
        r"\centering",
        r"\small",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{name}}}",
        rf"\begin{{tabular}}{{ll{alignment}}}",
        r"\toprule",
        *headings,
    ]
    model = None
    for row, numbers, under in lines:
        if row.model != model:
            model = row.model
            text += [r"\midrule", rf"\multicolumn{{{2 + len(alignment)}}}{{l}}{{\textit{{{escaped(model)}}}}} \\"]
        text.append(" & ".join([escaped(row.scheme), ESTIMATOR_LABELS[row.estimator], *numbers]) + r" \\*[-3pt]")
        text.append(" & ".join(["", "", *under]) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def _latex_value(cell: Cell) -> str:
    if cell.value is None:
        return "--"
    value = rf"\textbf{{{one_decimal(cell.value)}}}" if cell.best else one_decimal(cell.value)
    marks = cell.marks.replace(FROM_MAXPROB, r"\dagger").replace(UNTESTED, r"\circ")
    value += f"$^{{{marks}}}$" if marks else ""
    return value if cell.published is None else f"{value} ({one_decimal(cell.published)})"


def _latex_interval(cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return rf"{{\tiny [{one_decimal(cell.low)}, {one_decimal(cell.high)}]}}"


def escaped(text: str) -> str:
    """Return text as LaTeX takes it, the marks as symbols."""
    written = {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", FROM_MAXPROB: r"$\dagger$", UNTESTED: r"$^{\circ}$"}
    # The space before a percent sign is one at which no line breaks.
    text = text.replace(" %", "~%").translate(str.maketrans(written))
    # The Greek letter with its cost as an index.
    return re.sub(r"Φ(\d+)", r"$\\Phi_{\1}$", text)
