"""Risk against coverage in distribution, with the low coverages where decisions are made enlarged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from quantrust.report.figures.parts import (
    bit_handles,
    blocks,
    columns_of,
    estimator_handles,
    hidden_note,
    in_percent,
    legend,
    manner_note,
    short_label,
    shown_estimators,
    title,
)
from quantrust.report.results import distinct, in_distribution, pick, read_tables, rows_of
from quantrust.report.style import BAND_ALPHA, ESTIMATOR_DASHES, looks, save_figure, styled_figure
from quantrust.report.wording import in_words, items

# Where the small panel begins: below, a curve rests on a handful of answers.
SMALLEST_COVERAGE = 0.02
# The small panel in fractions of the large one: left, bottom, width, height.
INSET = (0.1, 0.6, 0.4, 0.37)
# Up to here, in largest limits, the small panel shows risks.
LIMITS = 2


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    risks : sequence of float in (0, 1)
        The risk limits, lines in the small panels.
    level : float in (0, 1)
        Confidence level of the bands, for the note.
    """

    id_dataset: str
    risks: Sequence[float]
    level: float


def draw(
    pdf: str | Path,
    png: str | Path,
    settings: Settings,
    *,
    curve_paths: Iterable[str | Path],
    metric_paths: Iterable[str | Path],
) -> None:
    """Draw risk against coverage in distribution: rows of panels per model, a panel per series of schemes.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    curve_paths, metric_paths : iterable of str or Path
        Curves and metrics of the study's variants.
    """
    curves = in_distribution(read_tables(curve_paths), settings.id_dataset)
    accuracy = in_distribution(rows_of(read_tables(metric_paths), "accuracy"), settings.id_dataset)
    models = distinct(curves, "model")
    shown = looks(distinct(curves, "scheme"))
    columns = columns_of(shown)
    estimators = shown_estimators(curves)
    curves = curves.filter(pl.col("estimator").is_in(estimators))
    top = _top(curves)
    wide = len(columns) if len(columns) <= 3 else (2 if len(columns) == 4 else 3)
    deep = blocks(len(columns), wide)
    with styled_figure(height=0.5 + 2.3 * len(models) * deep) as figure:
        grid = figure.subplots(len(models) * deep, wide, squeeze=False, sharex=True, sharey=True)
        for row, model in enumerate(models):
            here = pick(curves, model=model)
            cells = [axes for line in grid[row * deep : (row + 1) * deep] for axes in line]
            for axes in cells[len(columns) :]:
                axes.set_visible(False)
            for axes, (series, quantized) in zip(cells, columns, strict=False):
                inset = axes.inset_axes(INSET)
                for look in [*quantized, *(look for look in shown if look.series is None)]:
                    for estimator in estimators:
                        curve = pick(here, scheme=look.name, estimator=estimator)
                        for target in (axes, inset):
                            _draw_curve(target, curve, look.colour, estimator)
                _dress(axes, inset, top, settings.risks)
                title(axes, f"{model}: {short_label(series, [one for one, _ in columns])}", wide)
        for place in range(wide):
            in_column = [line[place] for line in grid if line[place].get_visible()]
            in_column[-1].set_xlabel("coverage")
            in_column[-1].tick_params(labelbottom=True)
        for line in grid:
            line[0].set_ylabel("risk (1 - quality)")
        count = accuracy["n"].max()
        limits = " and ".join(in_words(risk) for risk in settings.risks)
        legend(
            figure,
            [*bit_handles(shown), *estimator_handles(estimators)],
            f"{settings.id_dataset}, {count:,} test {items()}{manner_note(shown)}; bands: {in_words(settings.level)} "
            "bootstrap intervals over images; small panels: the same, coverage on a log scale, dotted: a risk of "
            f"{limits}{hidden_note(shown)}",
        )
        save_figure(figure, pdf, png)


def _draw_curve(axes: Axes, curve: pl.DataFrame, colour: str, estimator: str) -> None:
    if curve.is_empty():
        return
    curve = curve.filter(pl.col("coverage") >= SMALLEST_COVERAGE).sort("coverage")
    axes.fill_between(curve["coverage"], curve["low"], curve["high"], color=colour, alpha=BAND_ALPHA, linewidth=0)
    axes.plot(curve["coverage"], curve["risk"], color=colour, linestyle=ESTIMATOR_DASHES[estimator])


def _top(curves: pl.DataFrame) -> float:
    """Return a height at which no curve that is shown is taller than a panel or reaches its small one."""
    shown = curves.filter(pl.col("coverage") >= SMALLEST_COVERAGE)
    left, bottom, width, _ = INSET
    # The small panel's tick labels hang below it.
    room = bottom - 0.1
    under = shown.filter(pl.col("coverage") <= left + width)["high"].max()
    return max(1.05 * float(shown["high"].max()), float(under or 0.0) / room)


def _dress(axes: Axes, inset: Axes, top: float, risks: Sequence[float]) -> None:
    axes.set(xlim=(0, 1), ylim=(0, top))
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, min(top, 1))
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= 1]))
    in_percent(axes.xaxis, axes.yaxis)
    for risk in risks:
        inset.axhline(risk, color="#555555", linestyle=":", linewidth=0.8)
    highest = LIMITS * max(risks)
    inset.set(xscale="log", xlim=(SMALLEST_COVERAGE, 1), ylim=(0, highest))
    inset.set_xticks([0.02, 0.1, 0.5])
    inset.xaxis.set_minor_formatter(NullFormatter())
    inset.set_yticks([*risks, highest])
    in_percent(inset.xaxis, inset.yaxis)
    inset.tick_params(labelsize=6, length=2, pad=1.5)
