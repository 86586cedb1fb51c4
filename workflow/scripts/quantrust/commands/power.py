"""`quantrust power`: how many images settle a difference or certify a risk limit, judged from a pilot."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quantrust.commands.numbers import as_given, count, inner_share, number_of_resamples, parsed, share
from quantrust.commands.outputs import check_outputs, json_writer, write_outputs
from quantrust.commands.plots import add_plot_option, check_plot, form_of
from quantrust.commands.tables import (
    TABLE_HELP,
    Answers,
    add_column_options,
    answers_of,
    by_split,
    check_same_questions,
    format_option,
    notes_of,
    read_table_option,
)
from quantrust.data.table import ScoreTable
from quantrust.errors import QuantrustError
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.power import (
    MOST_SIMULATED,
    Certifying,
    Estimate,
    Pilot,
    draw_tests,
    fewest_images,
    images_for_difference,
    power_of_certification,
    power_of_difference,
    simulations_of,
    standard_error,
    unpaired_error,
    with_tests,
)
from quantrust.evaluation.resampling import ImageDraws, Resampler, draw_images
from quantrust.evaluation.summary import summarise
from quantrust.progress import progress

SETTLED = ("accuracy", "aurc", "coverage_at_risk")
RISKS = (0.05,)
POWER, ALPHA, DELTA = 0.8, 0.05, 0.1
TIMES = (0.25, 0.5, 1, 2, 4, 8, 16)
"""Numbers of images that are tried, in pilots, where none are given."""
MOST_IMAGES = 10_000_000
MOST_TESTS = 1_000_000_000
FEWEST_RESAMPLES = 500
"""On fewer a standard error is a matter of chance."""

DESCRIPTION = """\
How many questions are enough? From the answers of a pilot: the number of images
with which a test finds a difference between two variants that answer the same
questions, and the number with which quantrust certify finds a threshold for a
risk limit, each with a stated probability, the power. Two tables are a pilot of
both variants; with one, the correlation between the variants is assumed."""

EPILOG = """\
examples:
  how many images show a difference of one point between two variants?
    quantrust power A.parquet B.parquet --difference 0.01
  the same before the second variant is there, for AURC alone
    quantrust power A.csv --difference 0.005 --settle aurc --correlation 0.8
  how many images certify a risk of 5 %, answering half of the questions?
    quantrust power A.csv --certify 0.05 --coverage 0.5 --plot power.pdf

A difference is a share: 0.01 is one percentage point of accuracy, and of
coverage. AURC is an area between 0 and 1."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "power",
        help="how many questions settle a difference or certify a risk limit",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, metavar="A", help=f"pilot: {TABLE_HELP}")
    parser.add_argument(
        "table_b", type=Path, nargs="?", metavar="B", help="the other variant's answers to the same questions"
    )
    parser.add_argument("--difference", type=_share_apart, metavar="D", help="the difference that is to be found")
    parser.add_argument(
        "--settle",
        choices=SETTLED,
        nargs="+",
        default=list(SETTLED),
        metavar="METRIC",
        help=f"metrics whose difference is to be found (default: {' '.join(SETTLED)})",
    )
    parser.add_argument(
        "--risks", type=share, nargs="+", default=list(RISKS), metavar="R", help="limits of coverage_at_risk"
    )
    parser.add_argument(
        "--correlation",
        type=_correlation,
        metavar="C",
        help="with one table: assumed correlation of the two variants' metrics (default: 0, which takes most images)",
    )
    parser.add_argument(
        "--alpha", type=inner_share, default=ALPHA, metavar="A", help=f"level of the test (default: {ALPHA})"
    )
    parser.add_argument("--tests", type=_tests, default=1, metavar="T", help="tests that share this level (default: 1)")
    parser.add_argument(
        "--certify", type=inner_share, nargs="+", metavar="R", help="risk limits that are to be certified"
    )
    parser.add_argument(
        "--delta",
        type=inner_share,
        default=DELTA,
        metavar="D",
        help=f"probability that a certificate fails (default: {DELTA})",
    )
    parser.add_argument(
        "--coverage",
        type=share,
        default=0.0,
        metavar="C",
        help="share of the questions that a certified threshold has to answer (default: 0, any)",
    )
    parser.add_argument(
        "--power", type=inner_share, default=POWER, metavar="P", help=f"the power that is wanted (default: {POWER})"
    )
    parser.add_argument(
        "--images", type=_images, nargs="+", metavar="N", help="numbers of images to tabulate (default: 7 of them)"
    )
    parser.add_argument(
        "--resamples",
        type=_resamples,
        default=2000,
        metavar="B",
        help="resamples of the images for standard errors (default: 2000)",
    )
    parser.add_argument("--seed", type=count, default=0, help="seed of resamples and simulations (default: 0)")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write all numbers here")
    add_plot_option(parser, "power against the number of images")
    columns = add_column_options(parser)
    columns.add_argument("--confidence-b", metavar="NAME", help="column of B's confidences (default: as of A)")
    columns.add_argument("--dataset", metavar="NAME", help="of a study's scores, the dataset (default: the ID dataset)")
    columns.add_argument("--format", **format_option())
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Power:
    """The power for one question by the number of images.

    Attributes
    ----------
    label : str
    facts : mapping of str to object
        What JSON says beside the numbers of images.
    curve : mapping of int to Estimate
        The power by the number of images.
    needed : Estimate or None
        Images with the power that is wanted; None where none of those that were tried has it. The interval of a
        certificate's is not known, and is NaN.
    """

    label: str
    facts: Mapping[str, Any]
    curve: Mapping[int, Estimate]
    needed: Estimate | None


def run(arguments: argparse.Namespace) -> None:
    """Compute, print a table and write the files that were asked for.

    Raises
    ------
    QuantrustError
        If the input cannot be read, nothing is asked, or a file cannot be written. Nothing is then written.
    """
    _check_asked(arguments)
    named = [] if arguments.json is None else [arguments.json]
    inputs = [path for path in (arguments.table, arguments.table_b) if path is not None]
    check_outputs([*named, *check_plot(arguments.plot)], inputs)
    table = read_table_option(arguments.table, arguments, arguments.format)
    pilot = _pilot(table, arguments)
    sizes = arguments.images or [max(10, round(times * pilot.image_count)) for times in TIMES]
    sizes = sorted(dict.fromkeys(sizes))
    found: dict[str, list[_Power]] = {"differences": [], "certified": []}
    if arguments.difference is not None:
        found["differences"] = _differences(pilot, _other(pilot, arguments), sizes, arguments)
    if arguments.certify:
        found["certified"] = _certificates(pilot, sizes, arguments)
    writers: dict[Path, Callable[[Path], object]] = {}
    if arguments.json is not None:
        writers[arguments.json] = json_writer(_record(table, pilot, found, arguments))
    if arguments.plot is not None:
        writers[arguments.plot] = _plot_writer(pilot, [*found["differences"], *found["certified"]], arguments)
    write_outputs(writers)
    print(_text(pilot, found, arguments))
    print("\n".join([*NOTES, *notes_of(table)]))


def _check_asked(arguments: argparse.Namespace) -> None:
    if arguments.difference is None and not arguments.certify:
        raise QuantrustError("nothing is asked; expected --difference, the difference to be found, or --certify")
    if arguments.table_b is not None and arguments.difference is None:
        raise QuantrustError(
            f"{arguments.table_b}: a second table is for a difference; expected --difference beside it"
        )
    if arguments.table_b is not None and arguments.correlation is not None:
        raise QuantrustError("--correlation is assumed with one table alone; two tables show it")


def _pilot(table: ScoreTable, arguments: argparse.Namespace) -> Answers:
    rows, _ = by_split(table, arguments)
    pilot = answers_of(table, rows.sort("id"))
    if pilot.image_count < 2:
        raise QuantrustError(f"{table.path}: a pilot of one image says nothing of others; expected at least two")
    return pilot


def _other(pilot: Answers, arguments: argparse.Namespace) -> Answers | None:
    """Return the other variant's answers to the same questions; None if there is no second table."""
    path = arguments.table_b
    if path is None:
        return None
    other_table = read_table_option(
        path, arguments, arguments.format, confidence=arguments.confidence_b or arguments.confidence
    )
    other = _pilot(other_table, arguments)
    check_same_questions(pilot, other)
    return other


def _differences(
    pilot: Answers, other: Answers | None, sizes: Sequence[int], arguments: argparse.Namespace
) -> list[_Power]:
    risks = list(dict.fromkeys(arguments.risks))
    keys: list[Key] = []
    for name in dict.fromkeys(arguments.settle):
        keys += [(name, risk) for risk in risks] if name == "coverage_at_risk" else [(name, None)]
    draws = [draw_images(pilot.images, arguments.resamples, [arguments.seed, 0])]
    if other is not None and pilot.image_count <= MOST_SIMULATED:
        draws.append(draw_tests(draws[0].image, [arguments.seed, 1]))
    sides = [pilot] if other is None else [pilot, other]
    rows = sum(len(one.counts) for one in draws)
    with progress("resampling images", len(sides) * rows, "resamples", only_on_terminals=True) as bar:
        measured = [[_measure(side, risks, one, keys, bar.update) for side in sides] for one in draws]
    values = [summarise(side.ranking, risks, [], None, False) for side in sides]
    return [_difference(key, [of[key] for of in values], measured, draws[0], sizes, arguments) for key in keys]


_Resampled = Mapping[Key, np.ndarray]


def _measure(
    answers: Answers,
    risks: Sequence[float],
    draws: ImageDraws,
    keys: Sequence[Key],
    update: Callable[[int], None],
) -> _Resampled:
    resampler = Resampler(answers.quality, draws)
    return resampler.evaluate(answers.ranking, risks, [], None, False, update, keys)


def _difference(
    key: Key,
    values: Sequence[float],
    measured: Sequence[Sequence[_Resampled]],
    draws: ImageDraws,
    sizes: Sequence[int],
    arguments: argparse.Namespace,
) -> _Power:
    # In the direction that the pilot shows.
    difference = math.copysign(arguments.difference, values[0] - values[-1])
    alpha = arguments.alpha / arguments.tests
    if len(values) == 1:
        at = unpaired_error(standard_error(measured[0][0][key], draws), arguments.correlation or 0.0)
    else:
        at = standard_error(measured[0][0][key] - measured[0][1][key], draws)
        for tested in measured[1:]:
            at = with_tests(at, tested[0][key] - tested[1][key], difference, alpha)
    curve = {images: power_of_difference(difference, at, images, alpha) for images in sizes}
    needed = images_for_difference(difference, at, arguments.power, alpha)
    needed = Estimate(*(float(max(2, math.ceil(number))) for number in (needed.value, needed.low, needed.high)))
    facts = {"pilot": list(values), "standard_error": at.error}
    return _Power(_label(*key), facts, curve, needed)


def _label(name: str, parameter: float | None) -> str:
    return name if parameter is None else f"{name} {as_given(parameter)}"


def _certificates(pilot: Answers, sizes: Sequence[int], arguments: argparse.Namespace) -> list[_Power]:
    answers = Pilot(pilot.quality, pilot.confidence, np.unique(pilot.images, return_inverse=True)[1])
    risks = list(dict.fromkeys(arguments.certify))
    found = []
    with progress("certifying", simulations_of(len(risks) * len(sizes)), "simulations", only_on_terminals=True) as bar:
        for risk in risks:
            wanted = Certifying(risk, arguments.delta, arguments.coverage)
            curve = {
                images: power_of_certification(answers, images, wanted, arguments.seed, bar.update) for images in sizes
            }
            needed = fewest_images(sizes, [one.value for one in curve.values()], arguments.power)
            found.append(
                _Power(
                    f"certify {as_given(risk)}",
                    {"delta": arguments.delta, "coverage": arguments.coverage},
                    curve,
                    None if needed is None else Estimate(float(math.ceil(needed)), math.nan, math.nan),
                )
            )
    return found


def _record(
    table: ScoreTable, pilot: Answers, found: Mapping[str, Sequence[_Power]], arguments: argparse.Namespace
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "format": table.format,
        "questions": pilot.ranking.n,
        "images": pilot.image_count,
        "power": arguments.power,
        "level": LEVEL,
        "seed": arguments.seed,
    }
    if found["differences"]:
        names = ("difference", "alpha", "tests", "resamples")
        record |= {name: getattr(arguments, name) for name in names}
        record["correlation"] = None if arguments.table_b is not None else arguments.correlation or 0.0
    for kind, powers in found.items():
        if powers:
            record[kind] = {one.label.removeprefix("certify "): _of(one, pilot) for one in powers}
    return record


def _of(one: _Power, pilot: Answers) -> dict[str, Any]:
    per_image = pilot.ranking.n / pilot.image_count
    needed = None
    if one.needed is not None:
        interval = [None if math.isnan(end) else int(end) for end in (one.needed.low, one.needed.high)]
        images = int(one.needed.value)
        needed = {"images": images, "questions": math.ceil(images * per_image), "interval": interval}
    curve = [{"images": images, "power": at.value, "low": at.low, "high": at.high} for images, at in one.curve.items()]
    return {**one.facts, "needed": needed, "curve": curve}


NOTES = (
    "intervals are of what another pilot of this size would say; questions: at as many an image as in the pilot",
    "the power is for images drawn as those of the pilot were",
)


def _text(pilot: Answers, found: Mapping[str, Sequence[_Power]], arguments: argparse.Namespace) -> str:
    per_image = pilot.ranking.n / pilot.image_count
    lines = [f"pilot: {pilot.ranking.n} questions on {pilot.image_count} images"]
    if found["differences"]:
        tests = "" if arguments.tests == 1 else f" over {arguments.tests} tests"
        lines.append(
            f"to find a difference of {100 * arguments.difference:g} points, two-sided at {arguments.alpha:g}{tests}"
        )
        if arguments.table_b is None:
            lines.append(f"with an assumed correlation of {arguments.correlation or 0.0:g} between the variants")
    if found["certified"]:
        lines.append(
            f"to certify a risk limit with delta {arguments.delta:g}, a threshold that answers at least "
            f"{100 * arguments.coverage:g} %, a fifth of the images fixing the order"
        )
    rows: list[tuple[str, ...]] = [
        (f"for a power of {100 * arguments.power:g} %", "images", f"{100 * LEVEL:g} % interval", "questions")
    ]
    powers = [*found["differences"], *found["certified"]]
    for one in powers:
        if one.needed is None:
            rows.append((one.label, f"above {max(one.curve)}", "", ""))
            continue
        between = "" if math.isnan(one.needed.low) else f"{one.needed.low:,.0f} .. {one.needed.high:,.0f}"
        questions = math.ceil(one.needed.value * per_image)
        rows.append((one.label, f"{one.needed.value:,.0f}", between, f"{questions:,}"))
    lines += ["", *_aligned(rows)]
    rows = [("power % by images", *(one.label for one in powers))]
    for images in powers[0].curve:
        cells = [one.curve[images] for one in powers]
        texts = [f"{100 * at.value:.0f} ({100 * at.low:.0f} .. {100 * at.high:.0f})" for at in cells]
        rows.append((f"{images:,}", *texts))
    return "\n".join([*lines, "", *_aligned(rows)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            f"{cell:{'<' if place == 0 else '>'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _plot_writer(pilot: Answers, powers: Sequence[_Power], arguments: argparse.Namespace) -> Callable[[Path], None]:
    from quantrust.report.plots import PowerCurve, draw_power

    curves = [
        PowerCurve(
            one.label,
            pl.DataFrame(_of(one, pilot)["curve"]),
            None if one.needed is None else int(one.needed.value),
        )
        for one in powers
    ]
    note = (
        f"pilot of {pilot.ranking.n:,} questions on {pilot.image_count:,} images (grey line); bands: {100 * LEVEL:g} % "
        "intervals of what another pilot of this size would say; dashed: the fewest images"
    )
    if arguments.difference is not None:
        note += f"; a difference of {100 * arguments.difference:g} points"
    path = arguments.plot
    return lambda partial: draw_power(partial, form_of(path), curves, pilot.image_count, arguments.power, note)


def _share_apart(text: str) -> float:
    value = parsed(float, text, "a number between 0 and 1")
    if not 0.0 < abs(value) < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return abs(value)


def _correlation(text: str) -> float:
    value = parsed(float, text, "a number from -1 to below 1")
    if not -1.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not from -1 to below 1")
    return value


def _tests(text: str) -> int:
    value = count(text)
    if not 1 <= value <= MOST_TESTS:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {MOST_TESTS:,}")
    return value


def _images(text: str) -> int:
    value = count(text)
    if not 2 <= value <= MOST_IMAGES:
        raise argparse.ArgumentTypeError(f"{text} is not from 2 to {MOST_IMAGES:,}")
    return value


def _resamples(text: str) -> int:
    value = number_of_resamples(text)
    if value < FEWEST_RESAMPLES:
        raise argparse.ArgumentTypeError(
            f"{text} are too few for a standard error; expected at least {FEWEST_RESAMPLES}"
        )
    return value
