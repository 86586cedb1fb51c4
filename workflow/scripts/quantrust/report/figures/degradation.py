"""What is left at fewer bits, in distribution."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.report.figures.parts import (
    bars,
    estimator_handles,
    in_percent,
    legend,
    manner_note,
    risk_label,
    risks_note,
    short_label,
    shown_estimators,
    title,
)
from quantrust.report.results import distinct, in_distribution, pick, read_tables, rows_of
from quantrust.report.style import (
    BAND_ALPHA,
    ESTIMATOR_DASHES,
    Look,
    Series,
    by_series,
    looks,
    save_figure,
    series_colours,
    series_markers,
    styled_figure,
)
from quantrust.report.wording import in_words, items, metric_label, quality_name

REFERENCE_COLOUR = "#999999"


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    risks : sequence of float in [0, 1]
        The risk limits of the coverages.
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    id_dataset: str
    risks: Sequence[float]
    level: float


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, metric_paths: Iterable[str | Path]) -> None:
    """Draw what is left at fewer bits, in distribution: a column per model, a row per metric.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    metric_paths : iterable of str or Path
    """
    metrics = in_distribution(read_tables(metric_paths), settings.id_dataset)
    estimators = shown_estimators(metrics)
    shown = looks(distinct(metrics, "scheme"))
    series = by_series(shown)
    models = distinct(metrics, "model")
    rows = [
        (quality_name(), rows_of(metrics, "accuracy"), estimators[-1:]),
        *((risk_label(risk), rows_of(metrics, "coverage_at_risk", risk), estimators) for risk in settings.risks),
        *(
            (metric_label(name), rows_of(metrics, name), estimators)
            for name in ("aurc", "ece")
            # of scores that are no probabilities there is no calibration error
            if rows_of(metrics, name)["value"].count()
        ),
    ]
    bits = sorted({look.bits for look in shown if look.bits is not None}, reverse=True)
    # Schemes without one number of bits follow, each in a place of its own.
    named = [look.name for look in shown if look.series is not None and look.bits is None]
    places = {str(number): place for place, number in enumerate(bits)}
    places |= {name: len(bits) + place for place, name in enumerate(named)}
    colours, markers = series_colours(list(series)), series_markers(list(series))
    with styled_figure(height=0.8 + 1.25 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(models), squeeze=False, sharex=True, sharey="row")
        for row, (label, values, drawn) in enumerate(rows):
            for column, model in enumerate(models):
                axes = grid[row][column]
                count = len(series) * len(drawn)
                for second, estimator in enumerate(drawn):
                    here = pick(values, model=model, estimator=estimator)
                    for look in shown:
                        if look.series is None:
                            _draw_reference(axes, pick(here, scheme=look.name), estimator)
                    for first, (one, schemes) in enumerate(series.items()):
                        shift = min(0.09, 0.7 / count) * (first * len(drawn) + second - (count - 1) / 2)
                        _draw(axes, here, schemes, places, shift, estimator, colours[one], markers[one])
                in_percent(axes.yaxis)
                axes.set_xticks(range(len(places)), list(places), rotation=20 if named else 0)
                # Fixed, because limits that follow the data would draw the methods of a single place far apart.
                axes.set_xlim(-0.5, max(len(places), 1) - 0.5)
                if row == 0:
                    title(axes, model, len(models))
                if row == len(rows) - 1:
                    axes.set_xlabel(_bits_of(series))
            grid[row][0].set_ylabel(label)
        figure.align_ylabels()
        handles = [
            Line2D([], [], color=colours[one], marker=markers[one], label=short_label(one, list(series)))
            for one in series
        ]
        handles += [Line2D([], [], color=REFERENCE_COLOUR, label=look.name) for look in shown if look.series is None]
        legend(
            figure,
            [*handles, *estimator_handles(estimators)],
            f"{settings.id_dataset}, {metrics['n'].max():,} test {items()}{manner_note(shown)}; bars and bands: "
            f"{in_words(settings.level)} bootstrap intervals over images; {risks_note(settings.risks)}",
        )
        save_figure(figure, pdf, png)


def _bits_of(series: Iterable[Series]) -> str:
    """Say whose bits the axis has; where that is not the same for all series, the legend has it of each."""
    quantized = {one.quantized for one in series if one.method is not None}
    if not quantized:
        return "scheme"
    return f"bits per weight of {quantized.pop()}" if len(quantized) == 1 else "bits per weight; the legend has of what"


def _draw_reference(axes: Axes, row: pl.DataFrame, estimator: str) -> None:
    if row.is_empty() or row["value"][0] is None:
        return
    axes.axhspan(row["low"][0], row["high"][0], color=REFERENCE_COLOUR, alpha=BAND_ALPHA, linewidth=0)
    axes.axhline(row["value"][0], color=REFERENCE_COLOUR, linewidth=0.8, linestyle=ESTIMATOR_DASHES[estimator])


def _draw(
    axes: Axes,
    values: pl.DataFrame,
    schemes: list[Look],
    places: dict[str, int],
    shift: float,
    estimator: str,
    colour: str,
    marker: str,
) -> None:
    rows = pl.concat([pick(values, scheme=look.name) for look in schemes])
    axes.errorbar(
        [places[look.name if look.bits is None else str(look.bits)] + shift for look in schemes],
        rows["value"],
        yerr=bars(rows),
        color=colour,
        marker=marker,
        # Bits have an order; schemes that the config names have none, and no line leads from one to the next.
        linestyle="none" if schemes[0].bits is None else ESTIMATOR_DASHES[estimator],
        markerfacecolor="white" if estimator == "maxprob" else colour,
        linewidth=1,
        elinewidth=0.6,
    )
