"""Histograms of confidence, right answers above a scheme's line and wrong ones below."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from quantrust.report.figures.parts import blocks, in_percent, legend, shown_estimators, title
from quantrust.report.results import distinct, pick, read_tables
from quantrust.report.style import ESTIMATOR_LABELS, RIGHT_COLOUR, WRONG_COLOUR, looks, save_figure, styled_figure
from quantrust.report.wording import in_words, items

# Models beside each other.
MOST_MODELS = 2
# How many times as tall as right answers wrong ones may be drawn.
MAGNIFICATIONS = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    """

    id_dataset: str


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, bin_paths: Iterable[str | Path]) -> None:
    """Draw how confident right and wrong answers are in distribution: a line per scheme, a panel per model, estimator.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    bin_paths : iterable of str or Path
        Tables of `quantrust.evaluation.breakdowns.BINS_SCHEMA`.
    """
    bins = pick(read_tables(bin_paths), dataset=settings.id_dataset)
    total = pl.col("n").sum().over("model", "scheme", "estimator")
    bins = bins.with_columns(
        total=total, right_share=pl.col("right") / total, wrong_share=(pl.col("n") - pl.col("right")) / total
    )
    estimators = shown_estimators(bins)
    bins = bins.filter(pl.col("estimator").is_in(estimators))
    models = distinct(bins, "model")
    names = [look.name for look in looks(distinct(bins, "scheme"))]
    # Wrong answers are few where a model is good: on the scale of the right ones they would not be seen.
    magnified = max(
        (factor for factor in MAGNIFICATIONS if factor * bins["wrong_share"].max() <= bins["right_share"].max()),
        default=1,
    )
    # The lines lie so far apart, in whole twentieths of the answers, that bars of neighbours do not meet.
    tallest = bins["right_share"].max() + magnified * bins["wrong_share"].max()
    pitch = max(1, math.ceil(20 * 1.05 * tallest)) / 20
    wide = min(len(models), MOST_MODELS) * len(estimators)
    deep = blocks(len(models), MOST_MODELS)
    with styled_figure(height=1.0 + deep * (0.6 + 0.48 * len(names))) as figure:
        grid = figure.subplots(deep, wide, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat:
            axes.set_visible(False)
        for place, model in enumerate(models):
            for column, estimator in enumerate(estimators):
                axes = grid[place // MOST_MODELS][place % MOST_MODELS * len(estimators) + column]
                axes.set_visible(True)
                _draw(axes, pick(bins, model=model, estimator=estimator), names, pitch, magnified)
                if place % MOST_MODELS == min(len(models), MOST_MODELS) - 1 and estimator == estimators[-1]:
                    _scale(axes, len(names), pitch)
                title(axes, f"{model}\n{ESTIMATOR_LABELS[estimator]}", wide)
                axes.set_xlabel("confidence")
        taller = f", drawn {magnified} times as tall" if magnified > 1 else ""
        legend(
            figure,
            [
                Patch(color=RIGHT_COLOUR, label="right (above)"),
                Patch(color=WRONG_COLOUR, label="wrong (below)" + taller),
            ],
            f"{settings.id_dataset}, {bins['total'].max():,} test {items()}; bars: share of all answers in each of 15 "
            "bins of equal width, on the scale at the right, which all panels share; right: a quality of at least "
            "one half",
        )
        save_figure(figure, pdf, png)


def _scale(axes: Axes, lines: int, pitch: float) -> None:
    """Put a scale of shares of all answers at the right of a panel, from each line up."""
    step = next(share for share in (0.5, 0.2, 0.1, 0.05, 0.02) if share <= 0.8 * pitch)
    ticks = [(line - share / pitch, share) for line in range(lines) for share in (0.0, step)]
    scale = axes.secondary_yaxis("right")
    scale.set_yticks([place for place, _ in ticks], [in_words(share) for _, share in ticks])
    scale.tick_params(labelsize=6, length=2)
    scale.set_ylabel("share of all answers")


def _draw(axes: Axes, bins: pl.DataFrame, names: list[str], pitch: float, magnified: int) -> None:
    for line, name in enumerate(names):
        here = pick(bins, scheme=name)
        # The axis runs downwards, one scheme after another.
        for share, colour, height in (("right_share", RIGHT_COLOUR, -1), ("wrong_share", WRONG_COLOUR, magnified)):
            axes.bar(
                here["lower"],
                height * here[share] / pitch,
                here["upper"] - here["lower"],
                bottom=line,
                align="edge",
                color=colour,
                edgecolor="white",
                linewidth=0.3,
            )
        axes.axhline(line, color="black", linewidth=0.6)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.8)
    axes.grid(False, axis="y")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1])
    in_percent(axes.xaxis)
