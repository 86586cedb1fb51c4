"""Accuracy and coverage at risk limits as questions in distribution give way to shifted ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes

from quantrust.report.figures.parts import (
    bit_handles,
    columns_of,
    estimator_handles,
    hidden_note,
    in_percent,
    legend,
    manner_note,
    only_say,
    risk_label,
    risks_note,
    short_label,
    shown_estimators,
    title,
)
from quantrust.report.results import distinct, pick, read_tables, rows_of
from quantrust.report.style import (
    ESTIMATOR_DASHES,
    Look,
    looks,
    save_pages,
    styled_figure,
)
from quantrust.report.wording import in_words, items, quality_name

# Panels beside each other.
MOST_COLUMNS = 2
# Of bands: a panel has two for each scheme.
ALPHA = 0.12


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    risks : sequence of float in [0, 1]
        The risk limits.
    level : float in (0, 1)
        Confidence level of the bands, for the note.
    """

    id_dataset: str
    risks: Sequence[float]
    level: float


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, metric_paths: Iterable[str | Path]) -> None:
    """Draw accuracy and coverage at risk limits against the share of questions in distribution.

    A page per model. On it, for every shift and series of schemes, a panel for the accuracy and under it one for each
    coverage, with a line for each estimator.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    metric_paths : iterable of str or Path
    """
    metrics = read_tables(metric_paths).filter(
        (pl.col("dataset") != settings.id_dataset) & pl.col("id_share").is_not_null()
    )
    if metrics.is_empty():
        with styled_figure(height=1) as figure:
            only_say(figure, "The study has no shifted dataset (study.shifts in the config).")
            save_pages([figure], pdf, png)
        return
    estimators = shown_estimators(metrics)
    shown = looks(distinct(metrics, "scheme"))
    columns = columns_of(shown)
    # No confidence enters the accuracy; it is drawn like the last estimator, solid.
    rows = [(quality_name(), rows_of(metrics, "accuracy"), estimators[-1:])]
    rows += [(risk_label(risk), rows_of(metrics, "coverage_at_risk", risk), estimators) for risk in settings.risks]
    panels = [(shift, *column) for shift in distinct(metrics, "dataset") for column in columns]
    lines = [panels[first : first + MOST_COLUMNS] for first in range(0, len(panels), MOST_COLUMNS)]
    counts = " and ".join(f"{n:,}" for n in sorted(set(metrics["n"])))
    pages = []
    by_row: list[list[Axes]] = [[] for _ in rows]
    for model in distinct(metrics, "model"):
        with styled_figure(height=0.8 + (0.35 + 1.2 * len(rows)) * len(lines)) as figure:
            grid = figure.subplots(len(rows) * len(lines), len(lines[0]), squeeze=False, sharex=True, sharey="row")
            for axes in grid.flat:
                axes.set_visible(False)
            for first, line in zip(range(0, len(grid), len(rows)), lines, strict=True):
                for column, (shift, series, quantized) in enumerate(line):
                    schemes = [*quantized, *(look for look in shown if look.series is None)]
                    for row, (_, values, drawn) in enumerate(rows):
                        axes = grid[first + row][column]
                        axes.set_visible(True)
                        by_row[row].append(axes)
                        for estimator in drawn:
                            here = pick(values, model=model, dataset=shift, estimator=estimator)
                            _draw(axes, here, schemes, estimator)
                    # The panel below may have no place in the grid, and with it no labels.
                    grid[first + len(rows) - 1][column].tick_params(labelbottom=True)
                    title(
                        grid[first][column],
                        f"{model}, {short_label(series, [one for one, _ in columns])}, to {shift}",
                        len(lines[0]),
                    )
                labelled = grid[first : first + len(rows), 0]
                for axes, (label, _, _) in zip(labelled, rows, strict=True):
                    axes.set_ylabel(label)
                # line by line, as each label is compared with all that it is aligned with
                figure.align_ylabels(labelled)
            figure.supxlabel(f"{items()} of {settings.id_dataset} : {items()} of the shift", fontsize=7.5)
            legend(
                figure,
                [*bit_handles(shown), *estimator_handles(estimators)],
                f"{counts} test {items()} in every mixture{manner_note(shown)}; bands, of {_banded(shown)}: "
                f"{in_words(settings.level)} bootstrap intervals over images; {risks_note(settings.risks)}, with the "
                f"threshold read off the test labels{hidden_note(shown)}",
            )
        pages.append(figure)
    for row, same in enumerate(by_row):
        # Once everything is drawn, because a limit that is set ends the growth of axes: one scale for all models.
        bottom = min(axes.get_ylim()[0] for axes in same) if row == 0 else 0
        top = max(axes.get_ylim()[1] for axes in same)
        for axes in same:
            axes.set_ylim(bottom, top)
    save_pages(pages, pdf, png)


def _banded(shown: Sequence[Look]) -> str:
    """Return which schemes have bands, in words."""
    names = [look.name for look in shown if look.series is None]
    names += ["a panel's fewest bits"] if any(look.bits is not None for look in shown) else []
    names += ["schemes of the config"] if any(look.series is not None and look.bits is None for look in shown) else []
    return " and ".join(names)


def _draw(axes: Axes, values: pl.DataFrame, schemes: list[Look], estimator: str) -> None:
    # Bands of all schemes could not be told apart; those that the config names have no order and keep theirs.
    fewest = min((look.bits for look in schemes if look.bits is not None), default=None)
    for look in schemes:
        rows = pick(values, scheme=look.name).sort("id_share")
        if rows.is_empty():
            continue
        if look.series is None or look.bits == fewest:
            axes.fill_between(rows["id_share"], rows["low"], rows["high"], color=look.colour, alpha=ALPHA, linewidth=0)
        axes.plot(
            rows["id_share"],
            rows["value"],
            color=look.colour,
            linestyle=ESTIMATOR_DASHES[estimator],
            marker=".",
            markersize=2.5,
        )
    in_percent(axes.yaxis)
    axes.set_xlim(1.02, -0.02)
    axes.set_xticks([1, 0.5, 0], ["100:0", "50:50", "0:100"])
    # The outer labels would meet those of the panels beside; panels above others have none.
    for label, side in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=False):
        label.set_horizontalalignment(side)
