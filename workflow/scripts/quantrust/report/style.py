"""One look for all figures: sizes, fonts, colours, and files whose bytes depend on the data alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from quantrust.files import atomic_path
from quantrust.quantization.scheme import Scheme, parse_scheme

# Inches: the text width of a two-column paper.
PAGE_WIDTH = 7.0
# Colours of bits: from Okabe and Ito's colour-blind-safe palette.
BIT_COLOURS = {8: "#56B4E9", 6: "#0072B2", 5: "#CC79A7", 4: "#009E73", 3: "#E69F00", 2: "#D55E00"}
UNQUANTIZED_COLOUR = "#000000"
# Colours and markers of methods, where bits are on an axis; kept apart from the colours of bits.
METHOD_COLOURS = {"mbq": "#0072B2", "hqq": "#CC79A7", "rtn": "#7A7A7A", "awq": "#8C6D1F", "gptq": "#5B3A8E"}
METHOD_MARKERS = {"mbq": "s", "hqq": "o", "rtn": "^", "awq": "D", "gptq": "v"}
UNQUANTIZED_MARKER = "*"
ESTIMATOR_DASHES = {"maxprob": (0, (3.5, 1.5)), "selector": "solid"}
ESTIMATOR_LABELS = {"maxprob": "MaxProb", "selector": "Selector"}
BAND_ALPHA = 0.15

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
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
    method : str
    manner : str
        The rest in words, for example `groups of 64, all components`.
    """

    method: str
    manner: str

    @property
    def label(self) -> str:
        """Method and manner, for titles and legends."""
        return f"{self.method.upper()}, {self.manner}"


def series_of(scheme: Scheme) -> Series:
    """Return the series that a quantized scheme belongs to."""
    parts = ["per channel" if scheme.group_size is None else f"groups of {scheme.group_size}"]
    if scheme.symmetric:
        parts.append("symmetric")
    # The preset, not the bits: at 8 bits the two presets that quantize everything are the same weights.
    if scheme.name.endswith("-mixed"):
        parts.append("8 bits outside the language model")
    elif len(scheme.bits) > 1:
        parts.append("all components")
    else:
        parts.append("language model")
    return Series(scheme.method, ", ".join(parts))


def quantized_series(names: Sequence[str]) -> dict[Series, dict[int, str]]:
    """Sort scheme names into series, each with its names by the bits of the language model, most bits first."""
    found: dict[Series, dict[int, str]] = {}
    for scheme in map(parse_scheme, names):
        if scheme.method is not None:
            found.setdefault(series_of(scheme), {})[scheme.component_bits("language")] = scheme.name
    return {series: dict(sorted(schemes.items(), reverse=True)) for series, schemes in found.items()}


@contextmanager
def styled_figure(height: float, width: float = PAGE_WIDTH) -> Iterator[Figure]:
    """Yield an empty figure, in inches, in the common look."""
    with matplotlib.rc_context(RC):
        yield Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, pdf: str | Path, png: str | Path) -> None:
    """Write a figure for print and for the screen; neither file says when it was made."""
    with atomic_path(pdf) as partial:
        FigureCanvasPdf(figure).print_pdf(partial, metadata={"CreationDate": None})
    with atomic_path(png) as partial, open(partial, "wb") as handle:
        figure.set_dpi(200)
        FigureCanvasAgg(figure).print_png(handle)
