"""What Selectors gain over MaxProb for the labels that they are trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from quantrust.evaluation.metric_records import Key
from quantrust.report.figures.parts import NEUTRAL, gain, in_percent, legend, title
from quantrust.report.results import distinct, pick, read_tables
from quantrust.report.style import Look, looks, save_figure, styled_figure
from quantrust.report.wording import in_words, items

DASHES = {"selector": "solid", "selector-residual": (0, (3.5, 1.5))}
NAMES = {"selector": "Selector", "selector-residual": "Selector that corrects MaxProb"}


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    risk : float in [0, 1]
        The risk limit of the coverage.
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    risk: float
    level: float


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, curve_paths: Iterable[str | Path]) -> None:
    """Draw gains over MaxProb against labels: rows of panels per model and test set, a column per metric.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    curve_paths : iterable of str or Path
        Tables of `quantrust.evaluation.learning.write_learning_curve`.
    """
    at_limit = pl.col("parameter").is_null() | (pl.col("parameter") == settings.risk)
    table = read_tables(curve_paths).filter(pl.col("difference").is_not_null(), at_limit)
    # A gain points up in every panel: more coverage, less area, less error.
    shown_metrics: list[Key] = [("coverage_at_risk", settings.risk), ("aurc", None), ("ece", None)]
    columns = [(key[0], *gain(*key)) for key in shown_metrics]
    shown = looks(distinct(table, "scheme"))
    estimators = [name for name in DASHES if name in distinct(table, "estimator")]
    rows = [(model, dataset) for model in distinct(table, "model") for dataset in distinct(table, "dataset")]
    labels = sorted(set(table["labels"]))
    with styled_figure(height=1.0 + 1.75 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True)
        for row, (model, dataset) in enumerate(rows):
            for column, (metric, label, sign) in enumerate(columns):
                axes = grid[row][column]
                axes.axhline(0, color=NEUTRAL, linewidth=0.8)
                lines = [(look, estimator) for look in shown for estimator in estimators]
                for place, (look, estimator) in enumerate(lines):
                    here = pick(
                        table, model=model, dataset=dataset, scheme=look.name, estimator=estimator, metric=metric
                    )
                    # Beside one another, a twentieth of the way to a doubling apart.
                    shift = 2 ** ((place - (len(lines) - 1) / 2) / 20)
                    _draw(axes, here.sort("labels"), sign, shift, look, DASHES[estimator])
                _label(axes, labels)
                title(axes, f"{model}, {dataset}\n{label}" if column == 0 else f"\n{label}", len(columns))
                if row == len(rows) - 1:
                    axes.set_xlabel(f"labelled {items()} of dev")
        figure.supylabel("percentage points", fontsize=7.5)
        handles = [Line2D([], [], color=look.colour, marker=look.marker, label=look.name) for look in shown]
        handles += [Line2D([], [], color=NEUTRAL, linestyle=DASHES[name], label=NAMES[name]) for name in estimators]
        counts = ", ".join(f"{name}: {pick(table, dataset=name)['n'].max():,}" for name in distinct(table, "dataset"))
        legend(
            figure,
            handles,
            f"Against MaxProb on the same answers; test {items()}: {counts}; bars: {in_words(settings.level)} paired "
            "bootstrap intervals over images and trainings; small points: single trainings",
        )
        save_figure(figure, pdf, png)


def _draw(axes: Axes, rows: pl.DataFrame, sign: int, shift: float, look: Look, dashes: object) -> None:
    if rows.is_empty():
        return
    places = (shift * rows["labels"]).to_list()
    values = (sign * rows["difference"]).to_list()
    ends = [sorted((sign * row["low"], sign * row["high"])) for row in rows.iter_rows(named=True)]
    bars = [
        [max(0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
        [max(0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
    ]
    axes.errorbar(
        places,
        values,
        yerr=bars,
        color=look.colour,
        linestyle=dashes,
        marker=look.marker,
        markersize=3,
        linewidth=1,
        elinewidth=0.7,
    )
    members = [(place, sign * one) for place, own in zip(places, rows["members"], strict=True) for one in own]
    axes.plot(*zip(*members, strict=True), linestyle="none", marker=".", markersize=1.5, color=look.colour, alpha=0.6)


def _label(axes: Axes, labels: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    in_percent(axes.yaxis, unit="")
