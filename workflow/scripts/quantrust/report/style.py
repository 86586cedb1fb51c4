"""One look for all figures: sizes, fonts, colours, and files whose bytes depend on the data alone."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.image import imsave

from quantrust.artifacts.documents import writing_document
from quantrust.quantization.method_traits import method_traits
from quantrust.quantization.scheme import Scheme, is_scheme_word, parse_scheme

# Inches: the text width of a two-column paper.
PAGE_WIDTH = 7.0
PNG_DPI = 200
# Colours of bits: from Okabe and Ito's colour-blind-safe palette.
BIT_COLOURS = {8: "#56B4E9", 6: "#0072B2", 5: "#CC79A7", 4: "#009E73", 3: "#E69F00", 2: "#D55E00"}
UNQUANTIZED_COLOUR = "#000000"
UNQUANTIZED_MARKER = "*"
# A series has the colour and marker of its method. Where two series have one method, or a method has none, each series
# takes the next of these; so do schemes that are named in the config. They are kept apart from the colours of bits.
OTHER_COLOURS = ("#0072B2", "#CC79A7", "#8C6D1F", "#5B3A8E", "#7A7A7A", "#B22222", "#117733", "#44AA99")
OTHER_MARKERS = ("s", "o", "^", "D", "v", "P", "X", "<", ">", "p")
# Datasets and metrics that share a panel.
DATASET_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
DATASET_MARKERS = ("o", "s", "^", "D", "v")
RIGHT_COLOUR, WRONG_COLOUR = "#0072B2", "#D55E00"
ESTIMATOR_DASHES = {"maxprob": (0, (3.5, 1.5)), "selector": "solid", "match-margin": "solid"}
ESTIMATOR_LABELS = {"maxprob": "MaxProb", "selector": "Selector", "match-margin": "Margin of scores"}
BAND_ALPHA = 0.13

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Series:
    """Schemes that differ only in their bits: a method, how it groups, and which components it quantizes.

    Attributes
    ----------
    method : str or None
        None for schemes that the config names.
    manner : str
        The rest in words, for example `groups of 64, all components`.
    quantized : str
        What has the bits by which its schemes differ: `the language model` or `all components`; empty without a method.
    """

    method: str | None
    manner: str
    quantized: str = ""

    @property
    def label(self) -> str:
        """Method and manner, for titles and legends."""
        return self.manner if self.method is None else f"{method_traits(self.method).label}, {self.manner}"


NAMED = Series(None, "schemes of the config")


@dataclass(frozen=True)
class Look:
    """How a scheme is drawn.

    Attributes
    ----------
    name : str
        The scheme.
    series : Series or None
        None where nothing is quantized.
    bits : int or None
        Bits of the weights that differ from scheme to scheme of the series; None without one number of them.
    label : str
        For a legend that has the series' name beside it.
    colour, marker : str
        Colour by the bits, marker by the series.
    """

    name: str
    series: Series | None
    bits: int | None
    label: str
    colour: str
    marker: str


def looks(names: Sequence[str]) -> list[Look]:
    """Give every scheme its look: no quantization first, then series after series, each by falling bits."""
    sorted_in = {name: _series_and_bits(name) for name in names}
    series = list(dict.fromkeys(one for one, _ in sorted_in.values() if one is not None))
    markers = series_markers(series)
    named = [name for name in names if sorted_in[name][0] == NAMED]
    found = []
    for name, (one, bits) in sorted_in.items():
        if one is None:
            found.append(Look(name, None, None, name, UNQUANTIZED_COLOUR, UNQUANTIZED_MARKER))
        elif bits is None:
            found.append(
                Look(name, one, None, name, OTHER_COLOURS[named.index(name) % len(OTHER_COLOURS)], markers[one])
            )
        else:
            found.append(Look(name, one, bits, f"{bits} bits", BIT_COLOURS[bits], markers[one]))
    order = [None, *series]
    return sorted(found, key=lambda look: (order.index(look.series), -(look.bits or 0)))


def by_series(shown: Iterable[Look]) -> dict[Series, list[Look]]:
    """Divide the looks of quantized schemes by series, in their order."""
    found: dict[Series, list[Look]] = {}
    for look in shown:
        if look.series is not None:
            found.setdefault(look.series, []).append(look)
    return found


def series_markers(series: Sequence[Series]) -> dict[Series, str]:
    """Return a marker for each series: its method's own, or the next where two have one method."""
    return _apart(series, {method: method_traits(method).marker for method in _methods(series)}, OTHER_MARKERS)


def series_colours(series: Sequence[Series]) -> dict[Series, str]:
    """Return a colour for each series: its method's own, or the next where two have one method."""
    return _apart(series, {method: method_traits(method).colour for method in _methods(series)}, OTHER_COLOURS)


def _methods(series: Sequence[Series]) -> list[str]:
    return [one.method for one in series if one.method is not None]


def _apart(series: Sequence[Series], own: dict[str, str | None], others: Sequence[str]) -> dict[Series, str]:
    if len(own) == len(series):
        found = {one: own[one.method] for one in series if one.method is not None}
        kept = {one: value for one, value in found.items() if value is not None}
        if len(kept) == len(series):
            return kept
    return {one: others[place % len(others)] for place, one in enumerate(series)}


def _series_and_bits(name: str) -> tuple[Series | None, int | None]:
    if not is_scheme_word(name):
        # The name of a table in the config, which has no one number of bits.
        return NAMED, None
    scheme = parse_scheme(name)
    if scheme.method is None:
        return None, None
    return series_of(scheme), scheme.component_bits("language")


def series_of(scheme: Scheme) -> Series:
    """Return the series that a quantized scheme belongs to."""
    parts = ["per channel" if scheme.group_size is None else f"groups of {scheme.group_size}"]
    if scheme.symmetric:
        parts.append("symmetric")
    quantized = "the language model"
    # The preset, not the bits: at 8 bits the two presets that quantize everything are the same weights.
    if scheme.name.endswith("-mixed"):
        parts.append("8 bits outside the language model")
    elif scheme.name.endswith("-full"):
        quantized = "all components"
        parts.append(quantized)
    else:
        parts.append("language model")
    return Series(scheme.method, ", ".join(parts), quantized)


@contextmanager
def styled_figure(height: float, width: float = PAGE_WIDTH) -> Iterator[Figure]:
    """Yield an empty figure, in inches, in the common look."""
    with matplotlib.rc_context(RC):
        yield Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, pdf: str | Path, png: str | Path) -> None:
    """Write a figure for print and for the screen; neither file says when it was made."""
    save_pages([figure], pdf, png)


def save_pages(figures: Sequence[Figure], pdf: str | Path, png: str | Path) -> None:
    """Write figures for print, a page each, and for the screen, one under another.

    Parameters
    ----------
    figures : sequence of Figure
        Of one width, at least one.
    pdf, png : str or Path
        The files to write; neither says when it was made.
    """
    images = []
    with matplotlib.rc_context(RC):
        for figure in figures:
            figure.set_dpi(PNG_DPI)
            # The layout is found once and is the same in both files.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            images.append(np.asarray(canvas.buffer_rgba()))
        with writing_document(png) as partial:
            imsave(partial, np.concatenate(images), format="png", dpi=PNG_DPI)
            with writing_document(pdf) as partial_pdf, PdfPages(partial_pdf, metadata={"CreationDate": None}) as pages:
                for figure in figures:
                    pages.savefig(figure)
