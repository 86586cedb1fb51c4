"""Which part of the model moves a metric: shares of the variance over a grid of schemes, with intervals."""

from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.artifacts.tables import read_table
from quantrust.evaluation.components import GridDesign
from quantrust.evaluation.metric_records import Key
from quantrust.report.figures.grids import FACTOR_COLOURS, GridSettings, metric_names, named, of_design, under
from quantrust.report.figures.parts import NEUTRAL, in_percent, legend, only_say, title
from quantrust.report.results import corpus_metrics_in, distinct
from quantrust.report.style import ESTIMATOR_LABELS, save_figure, styled_figure
from quantrust.report.wording import in_words, items

Settings = GridSettings
OPEN = "not determined"
UNEQUAL = "*"


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, importance_path: str | Path) -> None:
    """Draw the share of every part with its interval: a row per model and grid, a column per metric.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : GridSettings
    importance_path : str or Path
        The table of shares of `quantrust.evaluation.components`.
    """
    table = read_table(importance_path)
    grids = settings.full_grids
    if table.is_empty() or not grids:
        with styled_figure(height=1) as figure:
            only_say(figure, "The study has no full grid of schemes: a fraction has main effects, and no shares.")
            save_figure(figure, pdf, png)
        return
    accuracy, coverage = settings.shown
    # one of a kind: there is no room for recall at every depth
    corpus: list[Key] = [(name, None) for name in corpus_metrics_in(table)[:1]]
    # of scores that are no probabilities there is no calibration error
    undefined = table.filter(metric="ece")["share"].count() == 0
    keys: list[Key] = [accuracy, *corpus, coverage, ("aurc", None), *([] if undefined else [("ece", None)])]
    panels = [(model, design) for model in distinct(table, "model") for design in grids]
    heights = [0.35 + 0.16 * _lines(table, design) for _, design in panels]
    with styled_figure(height=1.2 + sum(heights)) as figure:
        axes_of = figure.subplots(len(panels), len(keys), squeeze=False, sharex=True, height_ratios=heights)
        for row, (model, design) in zip(axes_of, panels, strict=True):
            for place, (axes, key, label) in enumerate(zip(row, keys, metric_names(keys), strict=True)):
                _draw_shares(axes, of_design(table, design, key, model=model), design, settings)
                title(axes, f"{named(design, model, grids)}\n{label}" if place == 0 else f"\n{label}", len(keys))
                if place:
                    axes.set_yticklabels([])
                axes.set_xlim(-0.05, 1.05)
                in_percent(axes.xaxis)
        for axes in axes_of[-1]:
            axes.set_xlabel("share of the variance")
        filled = Line2D([], [], color=NEUTRAL, marker="o", linestyle="none", label="determined")
        hollow = Line2D([], [], color=NEUTRAL, marker="o", markerfacecolor="white", linestyle="none", label=OPEN)
        legend(figure, [filled, hollow], _note(settings, table))
        save_figure(figure, pdf, png)


def _note(settings: Settings, table: pl.DataFrame) -> str:
    unequal = "" if table["equal_levels"].all() else f"; {UNEQUAL}: one part has bits that another lacks"
    by = ESTIMATOR_LABELS.get(settings.estimator, settings.estimator)
    return (
        f"{settings.id_dataset}, test {items()}; share: main effect and an equal part of each interaction; sd: that of "
        f"the metric over the schemes in which no part has fewer bits, in points; bars: {in_words(settings.level)} "
        f"intervals over images; {OPEN}: the lower bound of the part's variance is not above 0; coverage, AURC and ECE "
        f"by {by}, on test sets of half the size{unequal}"
    )


def _lines(table: pl.DataFrame, design: GridDesign) -> int:
    strata = table.filter(pl.col("design") == design.name, pl.col("method") == design.method)["least_bits"].n_unique()
    return strata * (len(design.factors) + 1)


def _draw_shares(axes: Axes, rows: pl.DataFrame, design: GridDesign, settings: Settings) -> None:
    rows = under(rows, settings.estimator)
    places, labels = [], []
    line = 0.0
    for (least,), stratum in rows.group_by("least_bits", maintain_order=True):
        sd = stratum["sd"][0]
        axes.text(1.04, line, "" if sd is None else f"sd {100 * sd:.2g}", ha="right", va="center", fontsize=6)
        places.append(line)
        labels.append(f"{least} bits or more{'' if stratum['equal_levels'][0] else UNEQUAL}")
        for place, colour in zip(range(len(design.factors)), FACTOR_COLOURS, strict=False):
            line += 1
            row = stratum.row(place, named=True)
            # colours alone would not do: grids have more parts than there are colours
            places.append(line)
            labels.append(row["factor"])
            if row["share"] is None:
                continue
            determined = bool(row["determined"])
            axes.plot(
                [row["low"], row["high"]], [line, line], color=colour, linewidth=0.9, alpha=1.0 if determined else 0.45
            )
            axes.plot(
                row["share"],
                line,
                marker="o",
                color=colour,
                markerfacecolor=colour if determined else "white",
                linestyle="none",
                markersize=4,
            )
        line += 1
    axes.set_yticks(places, labels, fontsize=6)
    axes.set_ylim(line - 0.4, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
