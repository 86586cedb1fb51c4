"""`quantrust recalibrate`: thresholds of a bundle, set and certified on a user's own sample."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantrust.commands.numbers import as_given, chance_note, count
from quantrust.commands.outputs import check_writable
from quantrust.commands.sample import ITEMS, add_asking, inner, task_for
from quantrust.errors import QuantrustError
from quantrust.report.item_words import PICTURE
from quantrust.report.wording import counted_about, item, items, speaking_of, with_interval

if TYPE_CHECKING:
    from quantrust.evaluation.operating_points import OperatingPoints
    from quantrust.evaluation.own_sample import Needed, SampleSettings

DESCRIPTION = """\
Set and certify the thresholds of a bundle on questions of your own that have
reference answers, and write the bundle with them. Use it where your questions
or images are not like those of the study, or where the bundle runs on another
device, dtype, kernel or attention. How many answers the certificates take is
said first, before the model runs; --dry-run ends there."""

EPILOG = f"""\
{ITEMS}

Images are divided at random: a share of them sets thresholds, and one question
about each of the others certifies. The certificates of all limits hold
together, except with probability --delta. They hold for questions as in ITEMS.
Do not try several seeds, limits or bundles on the same sample and keep the best
one: no certificate holds after that.

examples:
  how many answers do certificates take?
    quantrust recalibrate data/bundles/qwen2-vl-tiny/hqq-w4g64-full \\
        --items labelled.jsonl --out own-bundle --dry-run
  thresholds for a risk of 5 and 10 %
    quantrust recalibrate data/bundles/qwen2-vl-tiny/hqq-w4g64-full \\
        --items labelled.jsonl --out own-bundle --risk 0.05 --risk 0.1
  the bundle itself, for a GPU
    quantrust recalibrate own-bundle --items labelled.jsonl --out own-bundle \\
        --device cuda

exit codes: 0 if the bundle was written, with or without certificates; 2 for bad
input; nothing is written then."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "recalibrate",
        help="set and certify a bundle's thresholds on your own questions",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_asking(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write: a new one, or a bundle, which is replaced as a whole (BUNDLE itself too)",
    )
    parser.add_argument(
        "--risk",
        type=inner,
        action="append",
        metavar="R",
        help="risk limit, once for each (default: those of the bundle)",
    )
    parser.add_argument(
        "--delta",
        type=inner,
        default=0.1,
        help="probability with which any certificate may fail (default: %(default)s)",
    )
    parser.add_argument(
        "--set-share",
        type=inner,
        default=0.3,
        metavar="SHARE",
        help="share of the images that set thresholds (default: %(default)s)",
    )
    parser.add_argument("--seed", type=count, default=0, help="seed of the division (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what the certificates take, and end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Say what certificates take, ask the bundle, and write it with the thresholds that were found.

    Raises
    ------
    QuantrustError
        If the bundle or the items cannot be used, an item cannot be answered, or the folder cannot be written. Nothing
        is then written.
    """
    # these import torch only where the model runs
    from quantrust.bundle.asking import check_references
    from quantrust.bundle.load import Bundle
    from quantrust.bundle.recalibrate import recalibrated, write_recalibrated
    from quantrust.bundle.record import RECORD, read_bundle
    from quantrust.data.labelled import read_labelled
    from quantrust.evaluation.own_sample import SampleSettings, divide, what_it_takes

    _check_out(arguments.out)
    record = read_bundle(arguments.bundle)
    task = task_for(record, arguments.task)
    items = read_labelled(arguments.items, asked=record.asked)
    check_references(items, task)
    asked = arguments.risk or [point.risk_limit for point in record.points]
    settings = SampleSettings(
        name=arguments.items.stem,
        # From the highest limit on, as parts of delta are best handed on.
        risks=sorted(set(asked), reverse=True),
        delta=arguments.delta,
        set_share=arguments.set_share,
        seed=arguments.seed,
    )
    groups = [item.group for item in items]
    setting = divide(groups, settings)
    with speaking_of(record.words):
        needs = what_it_takes(len(set(groups)), settings)
        print(describe_needs(len(items), len(set(groups)), len(setting), needs, settings))
    if arguments.dry_run:
        return
    check_writable(arguments.out / RECORD)
    how = {"device": arguments.device, "kernel": arguments.kernel}
    bundle = Bundle.load(arguments.bundle, **how, dtype=arguments.dtype, attention=arguments.attention)
    found = recalibrated(bundle, items, task, settings)
    write_recalibrated(arguments.bundle, found, arguments.out)
    print(describe_found(found.operating_points, settings))
    print(f"written: {arguments.out}, with {as_given(found.risk)} as the risk limit where none is asked for")


def _check_out(out: Path) -> None:
    """Raise unless a folder is new, empty or a bundle."""
    if out.exists() and not out.is_dir():
        raise QuantrustError(f"{out}: is a file; expected a folder to write the bundle to")
    if out.is_dir() and any(out.iterdir()) and not (out / "bundle.json").is_file():
        raise QuantrustError(f"{out}: holds other files and no bundle; expected a new folder, or a bundle to replace")


def describe_needs(
    questions: int, images: int, setting: int, needs: "Sequence[Needed]", settings: "SampleSettings"
) -> str:
    """Return what certificates take, in some lines."""
    others = f"{images - setting:,}"
    lines = [
        f"{settings.name}: {images:,} {items()}. {setting:,} set thresholds, and the other {others} certify."
        if item() == PICTURE
        else f"{settings.name}: {counted_about(questions, images)}. {setting:,} images set thresholds, and "
        f"one {item()} about each of the other {others} certifies.",
        f"answers that a certificate takes (delta {as_given(settings.delta)}, shared by "
        f"{len(settings.risks)} limit{'s' if len(settings.risks) > 1 else ''}):",
        f"  {'limit':>8}  {'all right':>10}  {'risk half the limit':>20}",
    ]
    for need in needs:
        note = "" if need.possible else "   more than there are: no certificate"
        lines.append(f"  {as_given(need.risk_limit):>8}  {need.faultless:>10,}  {need.half:>20,}{note}")
    if (chance := chance_note(settings.risks, setting, settings.level)) is not None:
        lines.append(chance)
    if not any(need.possible for need in needs):
        lines.append("no limit can be certified on so few images; thresholds are set without certificates")
    return "\n".join(lines)


def describe_found(points: "OperatingPoints", settings: "SampleSettings") -> str:
    """Return the thresholds that were found, whole, in a line for each limit and kind."""
    lines = [f"{'limit':>8}  {'kind':<11}{'threshold':<24}{'coverage':<24}risk"]
    for risk in settings.risks:
        here = [point for point in points.points if point.risk_limit == risk]
        for point in here:
            (measured,) = point.measured
            coverage = with_interval(measured.coverage, measured.coverage_low, measured.coverage_high)
            found = with_interval(measured.risk, measured.risk_low, measured.risk_high)
            lines.append(f"{as_given(risk):>8}  {point.kind:<11}{point.threshold!r:<24}{coverage:<24}{found}")
        if not any(point.certified for point in here):
            lines.append(f"{as_given(risk):>8}  certified  none")
    return "\n".join(lines)
