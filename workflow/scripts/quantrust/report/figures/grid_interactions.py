"""How two parts act together: a metric by the bits of one part, a line for every number of bits of another."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.artifacts.tables import read_table
from quantrust.evaluation.components import GridDesign
from quantrust.report.figures.grids import (
    UNTOUCHED,
    GridSettings,
    in_bits,
    metric_names,
    named,
    of_design,
    under,
    values_by_bits,
)
from quantrust.report.figures.parts import in_percent, legend, only_say, title
from quantrust.report.results import distinct
from quantrust.report.style import BIT_COLOURS, ESTIMATOR_LABELS, UNQUANTIZED_COLOUR, save_figure, styled_figure
from quantrust.report.wording import items

Settings = GridSettings


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, grid_path: str | Path) -> None:
    """Draw accuracy and coverage by the bits of the last factor, a line for each level of the first.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : GridSettings
    grid_path : str or Path
        The table of metrics of `quantrust.evaluation.components`.
    """
    table = read_table(grid_path)
    grids = [design for design in settings.full_grids if not design.two_levels]
    if not grids:
        with styled_figure(height=1) as figure:
            only_say(figure, "The study has no full grid of three levels or more, to draw lines of.")
            save_figure(figure, pdf, png)
        return
    panels = [(model, design) for model in distinct(table, "model") for design in grids]
    with styled_figure(height=0.8 + 1.7 * len(panels)) as figure:
        axes_of = figure.subplots(len(panels), 2, squeeze=False)
        for row, (model, design) in zip(axes_of, panels, strict=True):
            for axes, key, label in zip(row, settings.shown, metric_names(settings.shown), strict=True):
                here = under(of_design(table, design, key, model=model), settings.estimator)
                here = here.with_columns(pl.col("value").fill_null(float("nan")))
                cells = {bits: row["value"] for bits, row in values_by_bits(here, design).items()}
                _draw_lines(axes, cells, design)
                title(axes, f"{named(design, model, grids)}\n{label}", 2)
                in_percent(axes.yaxis)
        levels = sorted({bits for design in grids for bits in design.levels[0]})
        first, last = grids[0].factors[0], grids[0].factors[-1]
        handles = [
            Line2D([], [], color=_colour(bits), marker="o", label=f"{first}: {in_bits(bits)}") for bits in levels
        ]
        by = ESTIMATOR_LABELS.get(settings.estimator, settings.estimator)
        legend(
            figure,
            handles,
            f"{settings.id_dataset}, test {items()}; mean over the bits of all other parts; coverage by {by}; parallel "
            f"lines: {first} and {last} do not act together",
        )
        save_figure(figure, pdf, png)


def _colour(bits: int) -> str:
    return UNQUANTIZED_COLOUR if bits == UNTOUCHED else BIT_COLOURS[bits]


def _draw_lines(axes: Axes, cells: dict[tuple[int, ...], float], design: GridDesign) -> None:
    first, last = (sorted({bits[place] for bits in cells}) for place in (0, len(design.factors) - 1))
    for one in first:
        means = [
            np.mean([value for bits, value in cells.items() if (bits[0], bits[-1]) == (one, other)]) for other in last
        ]
        axes.plot(range(len(last)), means, color=_colour(one), marker="o")
    axes.set_xticks(range(len(last)), [in_bits(bits) for bits in last])
    axes.set_xlabel(design.factors[-1])
