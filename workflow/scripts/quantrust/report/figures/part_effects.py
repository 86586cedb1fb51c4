"""What quantizing each part alone moves: main effects of grids of two levels, whole or fractions."""

from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import read_table
from quantrust.report.figures.grids import FACTOR_COLOURS, GridSettings, metric_names, named, of_design, under
from quantrust.report.figures.parts import legend, only_say, title
from quantrust.report.results import distinct
from quantrust.report.style import ESTIMATOR_LABELS, save_figure, styled_figure
from quantrust.report.wording import in_words, items

Settings = GridSettings


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, effects_path: str | Path) -> None:
    """Draw the main effect of every part with its interval: a row per model and grid, a column per metric.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : GridSettings
    effects_path : str or Path
        The table of main effects of `quantrust.evaluation.components`.
    """
    table = read_table(effects_path)
    grids = [design for design in settings.grids if design.two_levels]
    if table.is_empty() or not grids:
        with styled_figure(height=1) as figure:
            only_say(figure, "The study has no grid of two levels, which the main effects of parts are told of.")
            save_figure(figure, pdf, png)
        return
    panels = [(model, design) for model in distinct(table, "model") for design in grids]
    heights = [0.4 + 0.17 * len(design.factors) for _, design in panels]
    with styled_figure(height=0.9 + sum(heights)) as figure:
        axes_of = figure.subplots(len(panels), 2, squeeze=False, height_ratios=heights)
        for row, (model, design) in zip(axes_of, panels, strict=True):
            lows = {levels[0] for levels in design.levels}
            quantized = f"{lows.pop()} bits" if len(lows) == 1 else "the lower level"
            for place, (axes, key, label) in enumerate(
                zip(row, settings.shown, metric_names(settings.shown), strict=True)
            ):
                here = under(of_design(table, design, key, model=model), settings.estimator)
                here = here.filter(pl.col("effect").is_not_null())
                for line, (factor, colour) in enumerate(zip(design.factors, FACTOR_COLOURS, strict=False)):
                    for effect in here.filter(pl.col("factor") == factor).iter_rows(named=True):
                        axes.barh(line, 100 * effect["effect"], color=colour, height=0.6)
                        ends = [100 * effect["low"], 100 * effect["high"]]
                        axes.plot(ends, [line, line], color="black", linewidth=0.8)
                axes.set_yticks(range(len(design.factors)), design.factors if place == 0 else [])
                axes.set_ylim(len(design.factors) - 0.4, -0.6)
                axes.axvline(0, color="black", linewidth=0.6)
                axes.grid(axis="y", visible=False)
                axes.set_xlabel(f"points lost at {quantized}")
                title(axes, f"{named(design, model, grids)}\n{label}" if place == 0 else f"\n{label}", 2)
        by = ESTIMATOR_LABELS.get(settings.estimator, settings.estimator)
        legend(
            figure,
            [],
            f"{settings.id_dataset}, test {items()}; main effect: mean over the schemes that leave the part as it is, "
            f"less the mean over those that quantize it; coverage by {by}; lines: {in_words(settings.level)} bootstrap "
            "intervals over images; in a fraction, effects are mixed up with the interactions in tables/effects.csv",
        )
        save_figure(figure, pdf, png)
