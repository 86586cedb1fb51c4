"""Reliability diagrams: how often answers of a confidence are right."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes

from quantrust.report.figures.parts import (
    FEWEST,
    bit_handles,
    blocks,
    columns_of,
    in_percent,
    legend,
    manner_note,
    short_label,
    shown_estimators,
    title,
)
from quantrust.report.results import distinct, pick, read_tables
from quantrust.report.style import ESTIMATOR_LABELS, looks, save_figure, styled_figure
from quantrust.report.wording import in_words, items

# Models beside each other.
MOST_MODELS = 2


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    id_dataset: str
    level: float


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, bin_paths: Iterable[str | Path]) -> None:
    """Draw mean quality against confidence in distribution: a column per model and estimator, a row per series.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    bin_paths : iterable of str or Path
        Tables of `quantrust.evaluation.breakdowns.BINS_SCHEMA`.
    """
    bins = pick(read_tables(bin_paths), dataset=settings.id_dataset)
    estimators = shown_estimators(bins)
    models = distinct(bins, "model")
    shown = looks(distinct(bins, "scheme"))
    columns = columns_of(shown)
    wide = min(len(models), MOST_MODELS) * len(estimators)
    deep = blocks(len(models), MOST_MODELS) * len(columns)
    side = 6.6 / max(wide, 3)
    with styled_figure(height=0.8 + (side + 0.1) * deep) as figure:
        grid = figure.subplots(deep, wide, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat:
            axes.set_visible(False)
        for place, model in enumerate(models):
            for row, (series, quantized) in enumerate(columns):
                for column, estimator in enumerate(estimators):
                    axes = grid[place // MOST_MODELS * len(columns) + row][
                        place % MOST_MODELS * len(estimators) + column
                    ]
                    axes.set_visible(True)
                    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.7, linestyle=":")
                    for look in [*quantized, *(look for look in shown if look.series is None)]:
                        here = pick(bins, model=model, scheme=look.name, estimator=estimator)
                        draw_bins(axes, here.filter(pl.col("n") >= FEWEST), look.colour)
                    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
                    in_percent(axes.xaxis, axes.yaxis)
                    axes.set_xticks([0, 0.5, 1])
                    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
                    method = short_label(series, [one for one, _ in columns])
                    title(axes, f"{model}, {method}\n{ESTIMATOR_LABELS[estimator]}", max(wide, 3))
        for axes in grid[-1]:
            axes.set_xlabel("confidence")
        for line in grid:
            line[0].set_ylabel("mean quality")
        count = bins.group_by("model", "scheme", "estimator").agg(pl.col("n").sum())["n"].max()
        legend(
            figure,
            bit_handles(shown),
            f"{settings.id_dataset}, {count:,} test {items()}{manner_note(shown)}; 15 bins of equal width, those "
            f"with at least {FEWEST} answers; bars: {in_words(settings.level)} bootstrap intervals over images; "
            "dotted: perfect calibration",
        )
        save_figure(figure, pdf, png)


def draw_bins(axes: Axes, rows: pl.DataFrame, colour: str, marker: str = "o") -> None:
    """Draw mean quality against mean confidence of bins with their intervals.

    Parameters
    ----------
    axes : Axes
    rows : polars.DataFrame
        ``confidence``, ``accuracy``, ``low`` and ``high`` of the bins to draw.
    colour, marker : str
    """
    below, above = (rows["accuracy"] - rows["low"]).clip(0), (rows["high"] - rows["accuracy"]).clip(0)
    axes.errorbar(
        rows["confidence"],
        rows["accuracy"],
        yerr=[below.to_list(), above.to_list()],
        color=colour,
        marker=marker,
        markersize=2.2,
        linewidth=0.9,
        elinewidth=0.5,
    )
