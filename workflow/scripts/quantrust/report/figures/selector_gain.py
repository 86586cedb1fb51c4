"""What the Selector gains over MaxProb, with paired intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.artifacts.tables import read_table
from quantrust.evaluation.metric_records import Key
from quantrust.report.figures.parts import NEUTRAL, gain, in_percent, legend, only_say, title
from quantrust.report.results import distinct, pick
from quantrust.report.style import DATASET_COLOURS, DATASET_MARKERS, looks, save_figure, styled_figure
from quantrust.report.wording import SIGNIFICANT, in_words, items


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    risks : sequence of float in [0, 1]
        The risk limits of the coverages.
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    risks: Sequence[float]
    level: float


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, comparisons_path: str | Path) -> None:
    """Draw what the Selector gains over MaxProb on every test set: rows of panels per model, a column per metric.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    comparisons_path : str or Path
        The table of `quantrust.evaluation.comparison.write_comparisons`.
    """
    table = read_table(comparisons_path).filter(
        (pl.col("first_estimator") == "selector")
        & (pl.col("second_estimator") == "maxprob")
        & (pl.col("first_scheme") == pl.col("second_scheme"))
    )
    if table.is_empty():
        with styled_figure(height=1) as figure:
            only_say(figure, "The study compares no Selector with MaxProb (comparison.estimators in the config).")
            save_figure(figure, pdf, png)
        return
    # A gain points to the right in every panel: more coverage, less area, less error.
    columns: list[Key] = [*(("coverage_at_risk", risk) for risk in settings.risks), ("aurc", None), ("ece", None)]
    models, datasets = distinct(table, "first_model"), distinct(table, "dataset")
    names = [look.name for look in looks(distinct(table, "first_scheme"))]
    pitch = 0.06 + 0.07 * len(datasets)
    with styled_figure(height=1.1 + len(models) * (0.35 + pitch * len(names))) as figure:
        grid = figure.subplots(len(models), len(columns), squeeze=False, sharex="col", sharey=True)
        for row, model in enumerate(models):
            for column, (metric, parameter) in enumerate(columns):
                label, sign = gain(metric, parameter)
                axes = grid[row][column]
                axes.axvline(0, color=NEUTRAL, linewidth=0.8)
                for place, dataset in enumerate(datasets):
                    here = pick(table, first_model=model, dataset=dataset, metric=metric)
                    here = here.filter(pl.col("parameter").eq_missing(pl.lit(parameter)))
                    shift = (place - (len(datasets) - 1) / 2) * 0.8 / len(datasets)
                    _draw(axes, here, names, shift, sign, DATASET_COLOURS[place % 5], DATASET_MARKERS[place % 5])
                in_percent(axes.xaxis, unit="")
                axes.set_yticks(range(len(names)), names)
                axes.set_ylim(len(names) - 0.5, -0.5)
                axes.grid(False, axis="y")
                if column == 0:
                    title(axes, model, len(columns))
                if row == len(models) - 1:
                    axes.set_xlabel(label)
        figure.supxlabel("percentage points", fontsize=7.5)
        handles = [
            Line2D([], [], color=DATASET_COLOURS[place % 5], marker=DATASET_MARKERS[place % 5], label=dataset)
            for place, dataset in enumerate(datasets)
        ]
        filled = {"color": NEUTRAL, "marker": "o", "linestyle": "none"}
        handles.append(Line2D([], [], **filled, label=f"significant at {in_words(SIGNIFICANT)}"))
        handles.append(Line2D([], [], **filled, markerfacecolor="white", label="not significant"))
        counts = ", ".join(f"{name}: {pick(table, dataset=name)['n'].max():,}" for name in datasets)
        legend(
            figure,
            handles,
            f"Selector against MaxProb on the same answers; test {items()}: {counts}; bars: {in_words(settings.level)} "
            "paired bootstrap intervals over images; significance after Holm's correction",
        )
        save_figure(figure, pdf, png)


def _draw(axes: Axes, rows: pl.DataFrame, names: list[str], shift: float, sign: int, colour: str, marker: str) -> None:
    for row in rows.filter(pl.col("difference").is_not_null()).iter_rows(named=True):
        value, ends = sign * row["difference"], sorted((sign * row["low"], sign * row["high"]))
        axes.errorbar(
            [value],
            [names.index(row["first_scheme"]) + shift],
            xerr=[[max(0, value - ends[0])], [max(0, ends[1] - value)]],
            color=colour,
            marker=marker,
            markerfacecolor=colour if row["p_holm"] < SIGNIFICANT else "white",
            markersize=3,
            markeredgewidth=0.7,
            elinewidth=0.7,
        )
