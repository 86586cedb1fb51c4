"""Drift from bf16: how many answers change behind an accuracy that hardly does, and how far the first token moves."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.artifacts.tables import read_table
from quantrust.evaluation.drift_from_bf16 import CHANGED, CONFIDENCE_CHANGE, DIVERGENCE, TO_RIGHT, TO_WRONG
from quantrust.report.figures.parts import NEUTRAL, bars, in_percent, legend, only_say, title
from quantrust.report.results import distinct, pick
from quantrust.report.style import (
    DATASET_COLOURS,
    DATASET_MARKERS,
    ESTIMATOR_LABELS,
    looks,
    save_figure,
    styled_figure,
)
from quantrust.report.wording import in_words, items

SHARES = {CHANGED: "answers that change", TO_WRONG: "right to wrong", TO_RIGHT: "wrong to right"}


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    level: float


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, drift_path: str | Path) -> None:
    """Draw the drift of every scheme from bf16 on every test set: a row of panels per model, a column per measure.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    drift_path : str or Path
        The table of `quantrust.evaluation.drift_from_bf16.write_drift`. Of its estimators the first is shown.
    """
    table = read_table(drift_path)
    if table.is_empty():
        with styled_figure(height=1) as figure:
            only_say(figure, "The study has no scheme beside bf16, so that nothing can drift from it.")
            save_figure(figure, pdf, png)
        return
    estimator = next(iter(table["estimator"].drop_nulls()), None)
    # of answers that are found there is no distribution of tokens
    written = DIVERGENCE in table["measure"]
    columns = {**SHARES, **({DIVERGENCE: "KL divergence, nats"} if written else {})}
    if estimator is not None:
        columns[CONFIDENCE_CHANGE] = f"change of {ESTIMATOR_LABELS.get(estimator, estimator)}"
    shown = table.filter(pl.col("estimator").is_null() | (pl.col("estimator") == estimator))
    models, datasets = distinct(table, "model"), distinct(table, "dataset")
    names = [look.name for look in looks(distinct(table, "scheme"))]
    pitch = 0.06 + 0.07 * len(datasets)
    with styled_figure(height=1.1 + len(models) * (0.45 + pitch * len(names))) as figure:
        grid = figure.subplots(len(models), len(columns), squeeze=False, sharex="col", sharey=True)
        for row, model in enumerate(models):
            for column, (measure, label) in enumerate(columns.items()):
                axes = grid[row][column]
                axes.axvline(0, color=NEUTRAL, linewidth=0.8)
                for place, dataset in enumerate(datasets):
                    shift = (place - (len(datasets) - 1) / 2) * 0.8 / len(datasets)
                    here = pick(shown, model=model, dataset=dataset, measure=measure)
                    _draw(axes, here, names, shift, DATASET_COLOURS[place % 5], DATASET_MARKERS[place % 5])
                if measure in SHARES:
                    in_percent(axes.xaxis)
                axes.locator_params(axis="x", nbins=3)
                axes.set_yticks(range(len(names)), names)
                axes.set_ylim(len(names) - 0.5, -0.5)
                axes.grid(False, axis="y")
                if column == 0:
                    title(axes, model, len(columns))
                if row == len(models) - 1:
                    axes.set_xlabel(label)
        handles = [
            Line2D([], [], color=DATASET_COLOURS[place % 5], marker=DATASET_MARKERS[place % 5], label=dataset)
            for place, dataset in enumerate(datasets)
        ]
        counts = ", ".join(f"{name}: {pick(table, dataset=name)['n'].max():,}" for name in datasets)
        note = f"Every scheme against bf16 on the same {items()}; test {items()}: {counts}; "
        note += "KL divergence: of the first answer token; " if written else ""
        note += f"bars: {in_words(settings.level)} bootstrap intervals over images, paired"
        legend(figure, handles, note)
        save_figure(figure, pdf, png)


def _draw(axes: Axes, rows: pl.DataFrame, names: list[str], shift: float, colour: str, marker: str) -> None:
    if rows.is_empty():
        return
    axes.errorbar(
        rows["value"].to_list(),
        [names.index(name) + shift for name in rows["scheme"]],
        xerr=bars(rows),
        color=colour,
        marker=marker,
        linestyle="none",
        markersize=3,
        elinewidth=0.7,
    )
