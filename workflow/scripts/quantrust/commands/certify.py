"""`quantrust certify`: thresholds whose risk is certified, from a table of scores."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quantrust.commands.numbers import as_given, count, inner_share, number_of_resamples
from quantrust.commands.outputs import check_outputs, json_writer, write_outputs
from quantrust.commands.plots import add_plot_option, check_plot, reliability_writer
from quantrust.commands.reliability import PROBABILITY, SCORE, Reliability, Settings, percentages, reliability
from quantrust.commands.tables import (
    TABLE_HELP,
    Answers,
    add_column_options,
    answers_of,
    by_split,
    format_option,
    notes_of,
    read_table_option,
)
from quantrust.data.table import ScoreTable
from quantrust.errors import QuantrustError
from quantrust.evaluation.certification import one_question_an_image
from quantrust.evaluation.intervals import LEVEL, null_if_nan
from quantrust.evaluation.metric_records import Deployment
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.power import ORDER_SHARE
from quantrust.evaluation.shared_delta import Certificate, candidates_by_limit, certify_limits
from quantrust.progress import progress

RISKS = (0.01, 0.05, 0.1)
DELTA = 0.1

DESCRIPTION = """\
Find the lowest threshold whose risk keeps a limit with a stated probability.
Some answers (split val) fix the order in which thresholds are tried; the other
answers (split test) certify, one question of each image. All certificates
together fail with a probability of at most delta, so that any of them may be
chosen. They hold for images drawn as those of the table were, and for none
else."""

EPILOG = """\
examples:
  thresholds that keep a risk of 5 and of 10 % with a probability of 90 %
    quantrust certify T.csv --risks 0.05 0.1 --delta 0.1 --json out.json
  a table without splits: a fifth of the images fixes the order
    quantrust certify T.parquet --id question --image picture

The exit code is 0 also where no threshold can be certified; JSON then has null
in its place."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "certify",
        help="certify thresholds for risk limits, from a table of scores",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, metavar="TABLE", help=TABLE_HELP)
    parser.add_argument(
        "--risks",
        type=inner_share,
        nargs="+",
        default=list(RISKS),
        metavar="R",
        help=f"risk limits (default: {' '.join(map(str, RISKS))})",
    )
    parser.add_argument(
        "--delta",
        type=inner_share,
        default=DELTA,
        metavar="D",
        help=f"probability that any certificate fails (default: {DELTA})",
    )
    parser.add_argument(
        "--resamples",
        type=number_of_resamples,
        default=2000,
        metavar="B",
        help="resamples of the images for intervals (default: 2000; 0: none)",
    )
    parser.add_argument(
        "--seed", type=count, default=0, help="seed of the resamples, and of what is drawn to certify (default: 0)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the certificates here, whole")
    add_plot_option(parser, "the risk-coverage curve and the reliability diagram of the certifying answers")
    columns = add_column_options(parser)
    columns.add_argument("--dataset", metavar="NAME", help="of a study's scores, the dataset (default: the ID dataset)")
    columns.add_argument("--format", **format_option())
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Divided:
    """Answers that certify, and those that fix the order of thresholds; how they were divided, for the head."""

    certifying: Answers
    ordering: Answers
    how: str


def run(arguments: argparse.Namespace) -> None:
    """Certify, print a table and write the files that were asked for.

    Raises
    ------
    QuantrustError
        If the input cannot be read, or a file cannot be written. Nothing is then written.
    """
    risks = list(dict.fromkeys(arguments.risks))
    named = [] if arguments.json is None else [arguments.json]
    check_outputs([*named, *check_plot(arguments.plot)], [arguments.table])
    table = read_table_option(arguments.table, arguments, arguments.format)
    divided = _divide(table, arguments)
    answers = divided.certifying
    certificates, kept = _certify(divided, risks, arguments.delta, arguments.seed)

    thresholds = {one.risk_limit: one.threshold for one in certificates}
    kind = PROBABILITY if answers.ranking.is_probability else SCORE
    settings = Settings(risks, [], Deployment(thresholds, {}), kind, arguments.resamples, arguments.seed)
    with progress("resampling images", arguments.resamples, "resamples", only_on_terminals=True) as bar:
        found = reliability(answers, settings, bar.update)
    writers: dict[Path, Callable[[Path], object]] = {}
    if arguments.json is not None:
        record = _record(table, divided, certificates, kept, found, settings)
        writers[arguments.json] = json_writer({**record, "delta": arguments.delta})
    if arguments.plot is not None:
        parts = [(str(arguments.table), answers, kind)]
        writers[arguments.plot] = reliability_writer(arguments.plot, parts, risks, arguments.resamples, arguments.seed)
    write_outputs(writers)
    print(_text(divided, certificates, kept, found, arguments.delta))
    print("\n".join([*NOTES, *notes_of(table)]))


def _divide(table: ScoreTable, arguments: argparse.Namespace) -> _Divided:
    """Return the answers that certify, and those that fix the order.

    Raises
    ------
    QuantrustError
        If an image has answers in both splits, or there are too few images to divide.
    """
    rows, val = by_split(table, arguments)
    if val is not None:
        shared = set(rows["image"]) & set(val["image"])
        if shared:
            raise QuantrustError(
                f"{table.path}: image {min(shared)} has answers in both splits, {arguments.test} and {arguments.val}, "
                f"like {len(shared) - 1} others; expected other images to certify on"
            )
        where = f"split {arguments.test}", f"split {arguments.val}"
    else:
        images = rows["image"].unique().sort()
        if images.len() < 2:
            raise QuantrustError(f"{table.path}: answers about one image alone; expected at least two images")
        drawn = np.random.default_rng([arguments.seed, 0]).permutation(images.len())
        ordering = images.gather(np.sort(drawn[: max(1, round(ORDER_SHARE * images.len()))]))
        chosen = pl.col("image").is_in(ordering.implode())
        rows, val = rows.filter(~chosen), rows.filter(chosen)
        where = "the table", f"the same, drawn at random (seed {arguments.seed})"
    certifying, ordering_answers = answers_of(table, rows), answers_of(table, val)
    how = (
        f"certified on {certifying.image_count} images of {where[0]} ({certifying.ranking.n} questions), thresholds in "
        f"an order from {ordering_answers.image_count} images of {where[1]}"
    )
    return _Divided(certifying, ordering_answers, how)


def _certify(
    divided: _Divided, risks: Sequence[float], delta: float, seed: int
) -> tuple[list[Certificate], dict[float, int]]:
    """Return the certificates, and how many of the certifying answers each threshold keeps."""
    answers = divided.certifying
    names, image = np.unique(answers.images, return_inverse=True)
    chosen = one_question_an_image(image, np.ones(names.size, dtype=bool), np.random.default_rng([seed, 1]))
    certifying = rank(answers.quality[chosen], answers.confidence[chosen])
    candidates = candidates_by_limit(divided.ordering.ranking, chosen.size, risks, delta)
    certificates = certify_limits(certifying, candidates, delta)
    kept = {
        one.risk_limit: 0
        if one.threshold is None
        else int(np.count_nonzero(answers.confidence[chosen] >= one.threshold))
        for one in certificates
    }
    return certificates, kept


def _record(
    table: ScoreTable,
    divided: _Divided,
    certificates: Sequence[Certificate],
    kept: Mapping[float, int],
    found: Reliability,
    settings: Settings,
) -> dict[str, Any]:
    """Return what JSON says of the certificates."""
    answers = divided.certifying
    certified, intervals = {}, {}
    for one in certificates:
        risk = one.risk_limit
        keys = {"coverage": ("deployed_coverage", risk), "risk": ("deployed_risk", risk)}
        certified[as_given(risk)] = {
            "threshold": one.threshold,
            **{name: null_if_nan(found.values[key]) for name, key in keys.items()},
            "delta": one.delta,
            "answers": kept[risk],
            "fewest_answers": one.fewest,
        }
        between = {name: found.intervals.get(key) for name, key in keys.items()}
        intervals[as_given(risk)] = {name: None if pair is None else list(pair) for name, pair in between.items()}
    record: dict[str, Any] = {
        "format": table.format,
        "questions": answers.ranking.n,
        "images": answers.image_count,
        "confidence": settings.kind,
        "ordering": {"questions": divided.ordering.ranking.n, "images": divided.ordering.image_count},
        "certified": certified,
    }
    if settings.resamples:
        head = {"level": LEVEL, "resamples": settings.resamples, "seed": settings.seed}
        record["intervals"] = {**head, "certified": intervals}
    return record


NOTES = (
    "answers: those of the certifying ones, one an image, that the threshold keeps; takes: the fewest answers, all of",
    "them right, that can certify the limit; coverage and risk are of all questions of the certifying images",
)


def _text(
    divided: _Divided,
    certificates: Sequence[Certificate],
    kept: Mapping[float, int],
    found: Reliability,
    delta: float,
) -> str:
    between = f"{LEVEL:.0%} interval"
    rows: list[tuple[str, ...]] = [
        ("risk limit", "threshold", "coverage", between, "risk", between, "answers", "takes")
    ]
    for one in certificates:
        cells: list[str] = []
        for name in ("deployed_coverage", "deployed_risk"):
            key = (name, one.risk_limit)
            value = found.values[key]
            shown = percentages(value, found.intervals.get(key))
            cells += ("", "") if one.threshold is None or math.isnan(value) else shown
        threshold = "none" if one.threshold is None else repr(one.threshold)
        rows.append((as_given(one.risk_limit), threshold, *cells, str(kept[one.risk_limit]), str(one.fewest)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    promise = f"all certificates hold together, except with a probability of at most {as_given(delta)}"
    return "\n".join([divided.how, promise, *lines])
