"""`quantrust recheck`: what changes when a bundle runs on another device, dtype, kernel or attention."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantrust.commands.numbers import as_given, count
from quantrust.commands.outputs import check_not_read, check_writable
from quantrust.commands.sample import ITEMS, add_asking, task_for
from quantrust.files import write_json
from quantrust.report.wording import counted_about, speaking_of

if TYPE_CHECKING:
    from quantrust.evaluation.drift import Drift, Estimate, PointDrift

DESCRIPTION = """\
Ask a bundle the same questions twice: as it was measured, and on the device and
with the kernel, dtype or attention that you name. Prints how many answers,
confidences and decisions change, and, where the questions have reference
answers, whether the operating points still hold. All with intervals over
images."""

EPILOG = f"""\
{ITEMS}
Here answers may be missing: then only changes are measured.

A certificate does not carry over to other conditions, whatever is measured
here. quantrust recalibrate certifies anew, on questions of your own.

examples:
  the packed kernel on this processor
    quantrust recheck data/bundles/qwen2-vl-tiny/hqq-w4g64-full \\
        --items labelled.jsonl --kernel packed
  a GPU, against the answers that quantrust answer wrote where the bundle was
  measured
    quantrust recheck bundle --items labelled.jsonl --device cuda \\
        --reference measured.jsonl

exit codes: 0 if no operating point is broken, 1 if one is, 2 for bad input."""

BROKEN = 1


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "recheck",
        help="measure what changes when a bundle runs elsewhere",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_asking(parser)
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="answers that the bundle gave where it was measured, with id, answer and confidence (default: asked here)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON, numbers whole")
    parser.add_argument("--seed", type=count, default=0, help="seed of the intervals (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask the bundle twice, print what changes, and return the exit code.

    Raises
    ------
    QuantrustError
        If the bundle, the items or the reference cannot be used, or an item cannot be answered.
    """
    # torch takes seconds to import, which the other commands need not wait for
    from quantrust.bundle.asking import check_references
    from quantrust.bundle.recheck import read_reference, recheck
    from quantrust.bundle.record import read_bundle
    from quantrust.data.labelled import read_labelled
    from quantrust.evaluation import drift

    if arguments.json is not None:
        check_not_read(arguments.json, [path for path in (arguments.items, arguments.reference) if path is not None])
        check_writable(arguments.json)
    record = read_bundle(arguments.bundle)
    items = read_labelled(arguments.items, with_answers=False, asked=record.asked)
    task = task_for(record, arguments.task)
    if items[0].answers:
        check_references(items, task)
    reference = None
    if arguments.reference is not None:
        reference = read_reference(arguments.reference, items, task)
    how = {name: getattr(arguments, name) for name in ("device", "kernel", "dtype", "attention")}
    found, _, differences = recheck(arguments.bundle, items, task, how, reference, arguments.seed)
    if arguments.json is not None:
        write_json(arguments.json, {"differences": differences, **dataclasses.asdict(found)})
    with speaking_of(record.words):
        print(describe(found, differences))
    return BROKEN if any(point.verdict == drift.BROKEN for point in found.points) else 0


def describe(found: "Drift", differences: Sequence[str]) -> str:
    """Return what changed, in some lines."""
    lines = [
        f"{counted_about(found.questions, found.images)}, with intervals of {100 * found.level:g} % over images",
        f"conditions: {', '.join(differences) if differences else 'as measured'}",
        f"answers that changed: {found.answers_changed:,}, {_percent(found.answers_share)}",
        f"confidences that moved by more than 1e-06: {found.confidences_changed:,}; the largest move is "
        f"{found.largest_change:.3g}, the mean {found.mean_change:.3g}",
    ]
    if found.quality_change is not None:
        lines.append(f"mean quality, here minus before: {_percent(found.quality_change)}")
    for point in found.points:
        lines += _of_point(point)
    return "\n".join(lines)


def _of_point(point: "PointDrift") -> list[str]:
    lines = [
        f"risk limit {as_given(point.risk_limit)}, {point.kind} threshold {point.threshold!r}:",
        f"  decisions that changed: {point.changed:,}, {_percent(point.changed_share)}",
        f"  coverage: {_percent(point.coverage_before)} before, {_percent(point.coverage)} here",
    ]
    if point.risk is not None and point.risk_before is not None and point.risk_change is not None:
        lines += [
            f"  risk: {_percent(point.risk_before)} before, {_percent(point.risk)} here; change "
            f"{_percent(point.risk_change)}",
            f"  the limit: {point.verdict} (answers about {point.answered_images:,} images)",
        ]
    return lines


def _percent(estimate: "Estimate") -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "none"
    return f"{100 * estimate.value:.2f} % ({100 * estimate.low:.2f} to {100 * estimate.high:.2f})"
