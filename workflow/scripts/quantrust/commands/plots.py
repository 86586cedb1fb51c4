"""Figures on the command line: checked before any work, and drawn from the answers that a command reports on."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from quantrust.commands.reliability import PROBABILITY
from quantrust.commands.tables import Answers
from quantrust.errors import QuantrustError
from quantrust.evaluation.breakdowns import BINS_SCHEMA, rows_of_bins
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.variant import rows_of_curve

FORMS = ("pdf", "png", "svg")
FEWEST_RESAMPLES = 200
"""Resamples that the bands of a figure rest on at least."""


def add_plot_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option that names the file of a figure."""
    forms = ", ".join(f".{form}" for form in FORMS)
    parser.add_argument("--plot", type=Path, metavar="OUT.pdf", help=f"draw {what} here ({forms}); takes [report]")


def check_plot(path: Path | None) -> list[Path]:
    """Return the file of a figure as an output, none if no figure is asked for.

    Raises
    ------
    QuantrustError
        If its name does not say which kind of file it is.
    ModuleNotFoundError
        If the packages that draw are not installed.
    """
    if path is None:
        return []
    if form_of(path) not in FORMS:
        raise QuantrustError(
            f"{path}: expected --plot with a name that ends in .{', .'.join(FORMS[:-1])} or .{FORMS[-1]}"
        )
    # Before any work, and not where the core is installed alone.
    import quantrust.report.plots  # noqa: F401

    return [path]


def form_of(path: Path) -> str:
    """Return the kind of file that a name says."""
    return path.suffix.lower().removeprefix(".")


def reliability_writer(
    path: Path, parts: Sequence[tuple[str, Answers, str]], risks: Sequence[float], resamples: int, seed: int
) -> Callable[[Path], None]:
    """Return what draws risk-coverage curves and the reliability diagram.

    Parameters
    ----------
    path : Path
        The file as the user names it.
    parts : sequence of (label, answers, kind of the confidences)
    risks : sequence of float
        Risk limits to show.
    resamples, seed : int
        Of the bands; at least `FEWEST_RESAMPLES` are drawn.
    """
    from quantrust.report.plots import Drawn, draw_reliability

    drawn = []
    for label, answers, kind in parts:
        draws = draw_images(answers.images, max(resamples, FEWEST_RESAMPLES), seed)
        curve = pl.DataFrame(
            list(rows_of_curve([answers.ranking], Resampler(answers.quality, draws), LEVEL)),
            schema=["coverage", "risk", "low", "high"],
            orient="row",
        )
        bins = None
        if kind == PROBABILITY:
            table = pl.DataFrame({"quality": answers.quality, "confidence": answers.confidence})
            names = list(BINS_SCHEMA)[list(BINS_SCHEMA).index("lower") :]
            schema = {name: BINS_SCHEMA[name] for name in names}
            bins = pl.DataFrame(list(rows_of_bins(table, ["confidence"], draws, LEVEL)), schema=schema, orient="row")
        drawn.append(Drawn(label, curve, bins))
    first = parts[0][1]
    note = (
        f"{first.ranking.n:,} answers about {first.image_count:,} images; bands and bars: {100 * LEVEL:g} % bootstrap "
        "intervals over images; dotted: risk limits, and perfect calibration; bins of fewer than 10 answers are left "
        "out"
    )
    return lambda partial: draw_reliability(partial, form_of(path), drawn, risks, note)
