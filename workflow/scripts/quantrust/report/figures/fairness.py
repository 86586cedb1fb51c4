"""Coverage and risk of every group of questions under the one threshold of each variant."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.artifacts.tables import read_table
from quantrust.evaluation.fairness import COVERAGE, RISK, WIDENS
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.figures.clusters import draw_clusters, name_clusters, offset, pitch
from quantrust.report.figures.parts import (
    NEUTRAL,
    bit_handles,
    in_percent,
    legend,
    manner_note,
    only_say,
    series_handles,
    title,
)
from quantrust.report.results import distinct, pick
from quantrust.report.style import ESTIMATOR_LABELS, Look, looks, save_figure, styled_figure
from quantrust.report.wording import in_words, items

ALL = ("", "all questions")
"""The first cluster."""
RING = 6.5
"""Points: the diameter of the ring around a group that is further behind than without quantization."""


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
        The dataset whose groups are shown.
    groupings : sequence of str
        In their order from the top.
    estimator : str
        By whose confidence questions are answered.
    risk : float in (0, 1)
        The risk limit of the thresholds.
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    id_dataset: str
    groupings: Sequence[str]
    estimator: str
    risk: float
    level: float


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, fairness_path: str | Path) -> None:
    """Draw coverage and risk of all questions and of each group in distribution, a row of two panels per model.

    Groups of which nothing is said, because they have too few images, are left out.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    fairness_path : str or Path
        The table of `quantrust.evaluation.fairness`.
    """
    table = pick(read_table(fairness_path), dataset=settings.id_dataset, estimator=settings.estimator)
    table = table.with_columns(
        section=pl.col("grouping").fill_null(ALL[0]).str.replace_all("_", " "),
        group=pl.col("group").fill_null(ALL[1]),
        measured=pl.lit(True),
    )
    said = table.filter(pl.col("value").is_not_null())
    clusters = said.select("section", "group").unique(maintain_order=True).rows()
    if len(clusters) < 2:
        with styled_figure(height=1) as figure:
            only_say(figure, f"No group of {items()} of {settings.id_dataset} has enough images to say anything.")
            save_figure(figure, pdf, png)
        return
    order = {name.replace("_", " "): place for place, name in enumerate([ALL[0], *settings.groupings])}
    clusters.sort(key=lambda cluster: order[cluster[0]])
    shown, models = looks(distinct(table, "scheme")), distinct(table, "model")
    with styled_figure(height=1.1 + len(models) * (0.35 + pitch(shown) * len(clusters))) as figure:
        grid = figure.subplots(len(models), 2, squeeze=False, sharex="col", sharey=True)
        for row, model in enumerate(models):
            for axes, metric, label in zip(grid[row], (COVERAGE, RISK), ("coverage", "risk"), strict=True):
                values = pick(said, model=model, metric=metric)
                draw_clusters(axes, values, clusters, shown)
                _ring(axes, values, clusters, shown)
                in_percent(axes.xaxis)
                if metric == RISK:
                    axes.axvline(settings.risk, color=NEUTRAL, linestyle=":", linewidth=0.8)
                if row == len(models) - 1:
                    axes.set_xlabel(f"{label} under one threshold")
            title(grid[row][0], model, 2)
            name_clusters(grid[row][0], clusters, with_section=True)
        # Once everything is drawn: a limit that is set ends the axes' growth, and the models share them.
        for axes in grid[0]:
            axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        legend(
            figure,
            [*bit_handles(shown, with_marker=True), *series_handles(shown), *_ring_handles(said)],
            _note(settings, table, said, shown),
        )
        save_figure(figure, pdf, png)


def _note(settings: Settings, table: pl.DataFrame, said: pl.DataFrame, shown: Sequence[Look]) -> str:
    estimator = ESTIMATOR_LABELS.get(settings.estimator, settings.estimator)
    groups = ["section", "group"]
    without = table.select(groups).unique().join(said.select(groups).unique(), on=groups, how="anti").height
    left_out = f"; groups of too few images, which are left out: {without}" if without else ""
    return (
        f"{settings.id_dataset}, test {items()}{manner_note(shown)}; threshold: the one that keeps a risk of "
        f"{in_words(settings.risk)} (dotted) on all val {items()} by {estimator}, the same for every group; bars: "
        f"{in_words(settings.level)} bootstrap intervals over images, which hold for all groups of a grouping at once"
        f"{left_out}"
    )


def _ring(axes: Axes, values: pl.DataFrame, clusters: Sequence[tuple[str, str]], shown: Sequence[Look]) -> None:
    """Put a ring around the points of groups that are further behind than without quantization."""
    places = {look.name: place for place, look in enumerate(shown)}
    wider = values.filter(pl.col("effect") == WIDENS).select("scheme", "section", "group", "value").rows()
    axes.plot(
        [value for *_, value in wider],
        [clusters.index((section, group)) + offset(places[scheme], len(shown)) for scheme, section, group, _ in wider],
        marker="o",
        markersize=RING,
        markerfacecolor="none",
        markeredgecolor=NEUTRAL,
        markeredgewidth=0.7,
        linestyle="none",
    )


def _ring_handles(said: pl.DataFrame) -> list[Line2D]:
    if said.filter(pl.col("effect") == WIDENS).is_empty():
        return []
    label = f"further behind than {UNQUANTIZED}"
    return [
        Line2D(
            [],
            [],
            marker="o",
            markersize=RING,
            markerfacecolor="none",
            markeredgecolor=NEUTRAL,
            linestyle="none",
            label=label,
        )
    ]
