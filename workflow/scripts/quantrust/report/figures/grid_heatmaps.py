"""Accuracy and coverage over a grid of schemes, as heat maps: what is left at which bits of two parts."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from quantrust.artifacts.tables import read_table
from quantrust.evaluation.components import GridDesign
from quantrust.report.figures.grids import GridSettings, in_bits, metric_names, named, of_design, under, values_by_bits
from quantrust.report.figures.parts import in_lines, only_say, title
from quantrust.report.results import distinct, rows_of
from quantrust.report.style import ESTIMATOR_LABELS, save_figure, styled_figure
from quantrust.report.wording import in_words, items

Settings = GridSettings
MOST_FACTORS = 3
"""Of a grid with more factors no plane shows what it is about."""


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, grid_path: str | Path) -> None:
    """Draw a heat map of the first and the last factor for every level of the one between them.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : GridSettings
    grid_path : str or Path
        The table of metrics of `quantrust.evaluation.components`.
    """
    table = read_table(grid_path)
    grids = [design for design in settings.full_grids if len(design.factors) <= MOST_FACTORS]
    if not grids:
        with styled_figure(height=1) as figure:
            only_say(figure, "The study has no full grid of two or three parts, which a heat map could show.")
            save_figure(figure, pdf, png)
        return
    rows = [
        (model, design, key, label)
        for model in distinct(table, "model")
        for design in grids
        for key, label in zip(settings.shown, metric_names(settings.shown), strict=True)
    ]
    columns = max(len(_between(design)) for design in grids)
    with styled_figure(height=0.6 + 1.75 * len(rows)) as figure:
        axes_of = figure.subplots(len(rows), columns, squeeze=False)
        for axes_row, (model, design, key, label) in zip(axes_of, rows, strict=True):
            here = under(of_design(table, design, key, model=model), settings.estimator)
            for place, axes in enumerate(axes_row):
                between = _between(design)
                if place >= len(between):
                    axes.set_axis_off()
                    continue
                _draw_plane(axes, here, design, between[place])
                middle = "" if len(design.factors) < MOST_FACTORS else f"{design.factors[1]} {in_bits(between[place])}"
                head = f"{named(design, model, grids)}\n{label}" if place == 0 else "\n"
                title(axes, f"{head}{', ' if place == 0 and middle else ''}{middle}", columns)
        by = ESTIMATOR_LABELS.get(settings.estimator, settings.estimator)
        told = [f"{settings.id_dataset}, test {items()}, in percent; coverage by {by}", *_resolution(table, settings)]
        figure.suptitle("\n".join(map(in_lines, told)), fontsize=7)
        save_figure(figure, pdf, png)


def _resolution(table: pl.DataFrame, settings: Settings) -> list[str]:
    """Return in words how far the interval of a scheme's difference from the unquantized model reaches."""
    reaches = []
    for key, label in zip(settings.shown, metric_names(settings.shown), strict=True):
        rows = under(rows_of(table, *key), settings.estimator)
        widths = rows.select(width=pl.col("difference_high") - pl.col("difference_low")).filter(pl.col("width") > 0)
        if widths.height:
            reaches.append(f"{50 * widths['width'].median():.1f} points ({label})")
    if not reaches:
        return []
    return [
        f"{in_words(settings.level)} intervals of differences from the unquantized model reach "
        f"{' and '.join(reaches)} to either side (median over the schemes)"
    ]


def _levels(design: GridDesign, place: int) -> list[int]:
    return sorted({bits[place] for _, bits in design.cells})


def _between(design: GridDesign) -> list[int]:
    """Return the levels of the factor between the first and the last; of two factors a single one."""
    return _levels(design, 1) if len(design.factors) == MOST_FACTORS else [0]


def _draw_plane(axes: Axes, rows: pl.DataFrame, design: GridDesign, middle: int) -> None:
    cells = values_by_bits(rows, design)
    down, across = _levels(design, 0), _levels(design, len(design.factors) - 1)
    between = [middle] if len(design.factors) == MOST_FACTORS else []
    values = np.array([[cells[(one, *between, other)]["value"] for other in across] for one in down], dtype=float)
    axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(values.shape):
        shown = "" if np.isnan(values[i, j]) else f"{100 * values[i, j]:.1f}"
        axes.text(j, i, shown, ha="center", va="center", fontsize=6.5, color="black" if values[i, j] > 0.5 else "white")
    axes.set_xticks(range(len(across)), [str(bits) for bits in across])
    axes.set_yticks(range(len(down)), [str(bits) for bits in down])
    axes.set(xlabel=f"bits of {design.factors[-1]}", ylabel=f"bits of {design.factors[0]}")
    axes.grid(visible=False)
    axes.tick_params(length=0)
