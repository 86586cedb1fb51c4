"""The best bits for every budget: accuracy and coverage of all cells of a grid against true bytes."""

from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.artifacts.tables import read_table
from quantrust.evaluation.components import GridDesign
from quantrust.report.figures.efficiency import pareto_front, unit_of
from quantrust.report.figures.grids import (
    UNTOUCHED,
    GridSettings,
    metric_names,
    named,
    of_design,
    under,
    values_by_bits,
)
from quantrust.report.figures.parts import in_percent, legend, only_say, title
from quantrust.report.results import distinct
from quantrust.report.style import BIT_COLOURS, ESTIMATOR_LABELS, UNQUANTIZED_COLOUR, save_figure, styled_figure
from quantrust.report.wording import in_words, items

Settings = GridSettings
MIXED_COLOUR, FRONT_COLOUR = "#AAAAAA", "#555555"


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, grid_path: str | Path) -> None:
    """Draw every cell of the grids by its bytes, the Pareto front, and the cells with equal bits in all parts.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : GridSettings
    grid_path : str or Path
        The table of metrics of `quantrust.evaluation.components`.
    """
    table = read_table(grid_path)
    grids = settings.full_grids
    if not grids:
        with styled_figure(height=1) as figure:
            only_say(figure, "The study has no full grid of schemes.")
            save_figure(figure, pdf, png)
        return
    panels = [(model, design) for model in distinct(table, "model") for design in grids]
    with styled_figure(height=0.9 + 2.0 * len(panels)) as figure:
        axes_of = figure.subplots(len(panels), 2, squeeze=False)
        for row, (model, design) in zip(axes_of, panels, strict=True):
            for axes, key, label in zip(row, settings.shown, metric_names(settings.shown), strict=True):
                here = under(of_design(table, design, key, model=model), settings.estimator)
                _draw_cells(axes, here.filter(pl.col("value").is_not_null()), design)
                title(axes, f"{named(design, model, grids)}\n{label}", 2)
                in_percent(axes.yaxis)
        levels = sorted({cell[0] for design in grids for _, cell in design.cells if len(set(cell)) == 1})
        handles = [
            Line2D([], [], color=MIXED_COLOUR, marker="o", linestyle="none", markersize=3, label="mixed"),
            *(
                Line2D([], [], color=_colour(bits), marker="D", linestyle="none", label=f"all parts {bits} bits")
                for bits in levels
            ),
            Line2D([], [], color=FRONT_COLOUR, label="Pareto front"),
        ]
        by = ESTIMATOR_LABELS.get(settings.estimator, settings.estimator)
        legend(
            figure,
            handles,
            f"{settings.id_dataset}, test {items()}; bytes of the weights file; coverage by {by}; bars: "
            f"{in_words(settings.level)} bootstrap intervals over images; numbers at a point: bits of the best cell "
            f"that is no larger than the next diamond, in the order {', '.join(grids[0].factors)}; the front is chosen "
            "after the fact: its values are a little too high",
        )
        save_figure(figure, pdf, png)


def _colour(bits: int) -> str:
    return UNQUANTIZED_COLOUR if bits == UNTOUCHED else BIT_COLOURS[bits]


def _draw_cells(axes: Axes, rows: pl.DataFrame, design: GridDesign) -> None:
    divisor, unit = unit_of(rows["bytes"].max())
    axes.plot(rows["bytes"] / divisor, rows["value"], marker="o", linestyle="none", color=MIXED_COLOUR, markersize=2.4)
    front = rows[pareto_front(rows["bytes"].to_list(), rows["value"].to_list())]
    axes.step(front["bytes"] / divisor, front["value"], where="post", color=FRONT_COLOUR, linewidth=1, zorder=1)
    cells = values_by_bits(rows, design) if rows.height == len(design.cells) else {}
    for bits, row in cells.items():
        if len(set(bits)) > 1:
            continue
        low, high = (abs(row["value"] - row[end]) for end in ("low", "high"))
        axes.errorbar(
            row["bytes"] / divisor,
            row["value"],
            yerr=[[low], [high]],
            marker="D",
            color=_colour(bits[0]),
            elinewidth=0.7,
            markersize=4,
        )
        best = max(
            (other for other in cells.items() if other[1]["bytes"] <= row["bytes"]), key=lambda one: one[1]["value"]
        )
        if len(set(best[0])) > 1:
            axes.annotate(
                "-".join(map(str, best[0])),
                (best[1]["bytes"] / divisor, best[1]["value"]),
                textcoords="offset points",
                xytext=(0, 4),
                ha="center",
                fontsize=6,
            )
    axes.set_xlabel(f"checkpoint on disk in {unit}")
