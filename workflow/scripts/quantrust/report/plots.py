"""Figures of single tables of scores, for the command line: drawn in the look of the report's figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from quantrust.evaluation.importance import Stratum
from quantrust.report.figures.parts import FEWEST, in_percent, legend, title
from quantrust.report.figures.reliability_diagrams import draw_bins
from quantrust.report.style import BAND_ALPHA, DATASET_COLOURS, DATASET_MARKERS, PNG_DPI, RC, styled_figure
from quantrust.report.wording import in_words

SMALLEST_COVERAGE = 0.02
"""Where curves begin: below, they rest on a handful of answers."""
# The same file each time: no date, and names of parts that do not change.
METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}
FORMS = tuple(METADATA)
STABLE = {"svg.hashsalt": "quantrust"}
WRAP = 105


@dataclass(frozen=True)
class Drawn:
    """Answers of one table as figures show them.

    Attributes
    ----------
    label : str
        For the legend.
    curve : polars.DataFrame
        ``coverage``, ``risk``, ``low``, ``high``: the risk-coverage curve with its band.
    bins : polars.DataFrame or None
        ``n``, ``confidence``, ``accuracy``, ``low``, ``high`` of each bin of confidence; None where the confidences are
        not probabilities.
    """

    label: str
    curve: pl.DataFrame
    bins: pl.DataFrame | None


def draw_reliability(path: Path, form: str, drawn: Sequence[Drawn], risks: Sequence[float], note: str) -> None:
    """Draw risk against coverage with bands, and beside it the reliability diagram where confidences are probabilities.

    Parameters
    ----------
    path : Path
        The file to write.
    form : str
        One of `FORMS`.
    drawn : sequence of Drawn
        At most as many as there are `DATASET_COLOURS`.
    risks : sequence of float
        Risk limits, drawn as lines where the risk reaches them.
    note : str
        Data, counts and intervals.
    """
    panels = 2 if all(one.bins is not None for one in drawn) else 1
    with styled_figure(height=3.4, width=6.8 if panels == 2 else 4.2) as figure:
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _draw_curves(axes[0], drawn, risks)
        title(axes[0], "risk and coverage", panels)
        if panels == 2:
            _draw_bins(axes[1], drawn)
            title(axes[1], "reliability diagram", panels)
        handles = [
            Line2D([], [], color=colour, marker=marker, label=one.label)
            for one, colour, marker in zip(drawn, DATASET_COLOURS, DATASET_MARKERS, strict=False)
        ]
        legend(figure, handles, note, WRAP if panels == 2 else 62)
        save_plot(figure, path, form)


def _draw_curves(axes: Axes, drawn: Sequence[Drawn], risks: Sequence[float]) -> None:
    top = 0.0
    for one, colour in zip(drawn, DATASET_COLOURS, strict=False):
        curve = one.curve.filter(pl.col("coverage") >= SMALLEST_COVERAGE)
        axes.fill_between(curve["coverage"], curve["low"], curve["high"], color=colour, alpha=BAND_ALPHA, linewidth=0)
        axes.plot(curve["coverage"], curve["risk"], color=colour)
        top = max(top, *curve["high"].drop_nulls().to_list(), 0.0)
    top = min(1.0, 1.05 * top) or 1.0
    for risk in risks:
        if risk <= top:
            axes.axhline(risk, color="#555555", linestyle=":", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, top), xlabel="coverage", ylabel="risk (1 - quality)")
    in_percent(axes.xaxis, axes.yaxis)


def _draw_bins(axes: Axes, drawn: Sequence[Drawn]) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.7, linestyle=":")
    for one, colour, marker in zip(drawn, DATASET_COLOURS, DATASET_MARKERS, strict=False):
        if one.bins is not None:
            draw_bins(axes, one.bins.filter(pl.col("n") >= FEWEST), colour, marker)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="mean quality")
    in_percent(axes.xaxis, axes.yaxis)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])


@dataclass(frozen=True)
class PowerCurve:
    """The power for one question by the number of images.

    Attributes
    ----------
    label : str
    curve : polars.DataFrame
        ``images``, ``power``, ``low``, ``high``, by images.
    needed : int or None
        The fewest images with the power that is wanted; None where no number that was tried has it.
    """

    label: str
    curve: pl.DataFrame
    needed: int | None


def draw_power(path: Path, form: str, curves: Sequence[PowerCurve], pilot: int, wanted: float, note: str) -> None:
    """Draw power against the number of images, with bands.

    Parameters
    ----------
    path : Path
        The file to write.
    form : str
        One of `FORMS`.
    curves : sequence of PowerCurve
        At most as many as there are `DATASET_COLOURS`.
    pilot : int
        Images of the pilot, drawn as a line.
    wanted : float
        The power that is wanted, in (0, 1), drawn as a line.
    note : str
    """
    with styled_figure(height=3.2, width=5.6) as figure:
        axes = figure.subplots()
        for one, colour, marker in zip(curves, DATASET_COLOURS, DATASET_MARKERS, strict=False):
            rows = one.curve
            axes.fill_between(rows["images"], rows["low"], rows["high"], color=colour, alpha=BAND_ALPHA, linewidth=0)
            axes.plot(rows["images"], rows["power"], color=colour, marker=marker, markersize=2.2)
            if one.needed is not None:
                axes.axvline(one.needed, color=colour, linewidth=0.8, linestyle="--")
        axes.axhline(wanted, color="#555555", linestyle=":", linewidth=0.8)
        axes.axvline(pilot, color="#999999", linewidth=0.8)
        axes.set(xscale="log", ylim=(0, 1), xlabel="images", ylabel="power")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        in_percent(axes.yaxis)
        handles = [
            Line2D([], [], color=colour, marker=marker, label=one.label)
            for one, colour, marker in zip(curves, DATASET_COLOURS, DATASET_MARKERS, strict=False)
        ]
        legend(figure, handles, f"{note}; dotted: a power of {in_words(wanted)}", 84)
        save_plot(figure, path, form)


def draw_importance(path: Path, form: str, metric: str, strata: Sequence[Stratum], note: str) -> None:
    """Draw the shares of the parts as bars, one for each stratum, with the standard deviation above.

    Parameters
    ----------
    path : Path
        The file to write.
    form : str
        One of `FORMS`.
    metric : str
    strata : sequence of Stratum
        At most as many factors as there are `DATASET_COLOURS`.
    note : str
    """
    factors = list(strata[0].shapley)
    with styled_figure(height=3.2, width=max(3.6, 1.4 + 0.75 * len(strata))) as figure:
        axes = figure.subplots()
        bottom = np.zeros(len(strata))
        for factor, colour in zip(factors, DATASET_COLOURS, strict=False):
            shares = np.nan_to_num([stratum.shapley[factor] for stratum in strata])
            mains = np.nan_to_num([stratum.main[factor] for stratum in strata])
            places = np.arange(len(strata))
            axes.bar(places, shares, bottom=bottom, color=colour, alpha=0.45, width=0.62)
            axes.bar(places, mains, bottom=bottom, color=colour, width=0.62)
            bottom += shares
        for place, stratum in enumerate(strata):
            axes.text(place, 1.01, f"sd {stratum.sd:.3g}", ha="center", va="bottom", fontsize=6.5)
        axes.set_xticks(
            range(len(strata)), [f"{stratum.least_bits:g} bits\n{stratum.schemes} schemes" for stratum in strata]
        )
        axes.set(ylim=(0, 1.08), xlabel="no part has fewer than", ylabel=f"share of the variance of {metric}")
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(axis="x", visible=False)
        in_percent(axes.yaxis)
        handles = [Patch(color=colour, label=factor) for factor, colour in zip(factors, DATASET_COLOURS, strict=False)]
        legend(figure, handles, f"{note}; full colour: main effect; light: its part of interactions", 84)
        save_plot(figure, path, form)


def save_plot(figure: Figure, path: Path, form: str) -> None:
    """Write a figure of the command line; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
    path : Path
    form : str
        One of `FORMS`.
    """
    with matplotlib.rc_context(RC | STABLE):
        figure.savefig(path, format=form, dpi=PNG_DPI, metadata=METADATA[form])
