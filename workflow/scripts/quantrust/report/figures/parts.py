"""What the figures share: which schemes and estimators they show, panels, points with intervals, legends and notes."""

import math
import textwrap
from collections.abc import Iterable, Sequence

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from quantrust.errors import QuantrustError
from quantrust.evaluation.metric_records import metric_named
from quantrust.quantization.method_traits import method_traits
from quantrust.report.results import distinct
from quantrust.report.style import (
    BIT_COLOURS,
    ESTIMATOR_DASHES,
    ESTIMATOR_LABELS,
    UNQUANTIZED_COLOUR,
    UNQUANTIZED_MARKER,
    Look,
    Series,
    by_series,
    series_markers,
)
from quantrust.report.wording import in_words, metric_label

NEUTRAL = "#555555"
LETTERS = 120
"""Of a note, that fit the width of a figure."""
FEWEST = 10
"""Answers below which a figure says nothing: what rests on fewer is left out or marked."""


def shown_estimators(rows: pl.DataFrame) -> list[str]:
    """Return the estimators that figures show, of those in a table.

    Raises
    ------
    QuantrustError
        If the study has none of them.
    """
    found = [name for name in ESTIMATOR_LABELS if name in distinct(rows, "estimator")]
    if not found:
        raise QuantrustError(
            f"the figures show {' and '.join(ESTIMATOR_LABELS)}, the study has neither; add one to study.estimators"
        )
    return found


def columns_of(shown: Iterable[Look]) -> list[tuple[Series | None, list[Look]]]:
    """Return a panel's looks for each series; with no quantized scheme one panel without a series."""
    return list(by_series(shown).items()) or [(None, [])]


def risk_label(risk: float) -> str:
    """Return the name of the coverage at a risk limit, for example `C@5 %` and `C@0.5 %`."""
    return metric_label("coverage_at_risk", risk)


def gain(metric: str, parameter: float | None = None) -> tuple[str, int]:
    """Return what an improvement of a metric is called, and the sign that a difference has where it is one.

    Examples
    --------
    >>> gain("coverage_at_risk", 0.01), gain("ece")
    (('gain in C@1 %', 1), ('fall of ECE', -1))
    """
    label = metric_label(metric, parameter)
    return (f"gain in {label}", 1) if metric_named(metric).higher_is_better else (f"fall of {label}", -1)


def risks_note(risks: Sequence[float]) -> str:
    """Explain the coverages at some risk limits, for the note above a figure.

    Examples
    --------
    >>> risks_note([0.01, 0.05])
    'C@1 % and C@5 %: coverage at a risk of at most 1 % and 5 %'
    """
    names, limits = (" and ".join(of(risk) for risk in risks) for of in (risk_label, in_words))
    return f"{names}: coverage at a risk of at most {limits}"


def in_percent(*axes: Axis, unit: str = " %") -> None:
    """Label fractions as percentages, with decimals only where they have some."""
    for axis in axes:
        axis.set_major_formatter(
            FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}{unit}".replace("-", "\u2212"))
        )


def bars(rows: pl.DataFrame) -> list[list[float]]:
    """Lengths of the error bars; a bootstrap interval need not contain the point, and a bar cannot be negative."""
    below = (rows["value"] - rows["low"]).clip(lower_bound=0)
    above = (rows["high"] - rows["value"]).clip(lower_bound=0)
    return [below.to_list(), above.to_list()]


def title(axes: Axes, text: str, panels: int, inches: float = 7.0) -> None:
    """Put a left-aligned title over a panel, broken to fit one of `panels` beside each other on `inches`."""
    # An average letter is six tenths of its size wide; a point is 1/72 inch.
    size = 8 if panels < 5 else 7
    letters = int((inches / panels - 0.3) * 72 / (0.6 * size))
    lines = [textwrap.fill(line, letters, break_on_hyphens=False, break_long_words=False) for line in text.split("\n")]
    axes.set_title("\n".join(lines), loc="left", fontsize=size)


def blocks(count: int, most: int) -> int:
    """Return how many rows of at most `most` panels hold `count` of them."""
    return math.ceil(count / most)


def only_say(figure: Figure, text: str) -> None:
    """Fill a figure that has nothing to show with the reason."""
    figure.text(0.5, 0.5, textwrap.fill(text, 80), ha="center", va="center")


def bit_handles(shown: Sequence[Look], *, with_marker: bool = False) -> list[Line2D]:
    """Return legend entries for the colours: no quantization, the bits, and schemes that the config names.

    `with_marker` gives the first its marker, for figures where markers tell series apart.
    """
    used = sorted({look.bits for look in shown if look.bits is not None}, reverse=True)
    marked = {"marker": UNQUANTIZED_MARKER, "markersize": 5} if with_marker else {}
    handles = [
        Line2D([], [], color=UNQUANTIZED_COLOUR, label=look.name, **marked) for look in shown if look.series is None
    ]
    handles += [Line2D([], [], color=BIT_COLOURS[bits], label=f"{bits} bits") for bits in used]
    named = [look for look in shown if look.series is not None and look.bits is None]
    return handles + [Line2D([], [], color=look.colour, label=look.label) for look in named]


def series_handles(shown: Sequence[Look]) -> list[Line2D]:
    """Return legend entries for the markers."""
    series = list(by_series(shown))
    return [
        Line2D([], [], color=NEUTRAL, marker=marker, linestyle="none", label=short_label(one, series))
        for one, marker in series_markers(series).items()
    ]


def estimator_handles(estimators: Sequence[str]) -> list[Line2D]:
    """Return legend entries for the dashes."""
    return [
        Line2D([], [], color=NEUTRAL, linestyle=ESTIMATOR_DASHES[name], label=ESTIMATOR_LABELS[name])
        for name in estimators
    ]


def short_label(one: Series | None, series: Sequence[Series | None]) -> str:
    """Return a series' method alone where all series agree in the rest, and the whole label where they do not."""
    if one is None:
        return "not quantized"
    same = len({other.manner for other in series if other is not None}) == 1
    return method_traits(one.method).label if same and one.method is not None else one.label


def manner_note(shown: Sequence[Look]) -> str:
    """Return what all series have in common, for the note above the figure; empty where they differ."""
    manners = {series.manner for series in by_series(shown)}
    return f"; {manners.pop()}" if len(manners) == 1 else ""


def hidden_note(shown: Sequence[Look]) -> str:
    """Return why a line may be hidden: those of many bits are the likeliest to lie under others."""
    bits = [look.bits for look in shown if look.bits is not None]
    unquantized = [look.name for look in shown if look.series is None]
    if not bits or not unquantized:
        return ""
    most = f"{max(bits)} bits"
    return f"; drawn from {most} down, {unquantized[0]} last: where {most} cannot be seen, a later line covers them"


def in_lines(note: str, letters: int = LETTERS) -> str:
    """Return a note in lines that fit the width of a figure; none begins with a percent sign."""
    return textwrap.fill(note.replace(" %", "\u00a0%"), letters)


def legend(figure: Figure, handles: Sequence[Artist], note: str, letters: int = LETTERS) -> None:
    """Put the legend above the panels, under a note that states data, counts and intervals."""
    # A handle and the space around it take as much room as seven letters.
    lengths = [len(str(handle.get_label())) + 7 for handle in handles]
    columns = len(handles) if sum(lengths) <= letters else max(1, letters // max(lengths))
    box = figure.legend(
        handles=list(handles),
        loc="outside upper center",
        ncols=columns,
        title=in_lines(note, letters),
        title_fontsize=7,
        columnspacing=1.4,
        handlelength=2.2,
    )
    box.get_title().set_multialignment("center")
