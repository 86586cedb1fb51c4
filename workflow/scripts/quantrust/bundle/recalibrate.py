"""A bundle with operating points of a user's own sample."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quantrust.artifacts.folders import artifact_folder
from quantrust.bundle.asking import ask
from quantrust.bundle.load import Bundle
from quantrust.bundle.record import CARD, CHECKPOINT, RECORD, SELECTOR, BundleRecord, files_of, record_text
from quantrust.bundle.write import take
from quantrust.data.labelled import LabelledItem
from quantrust.errors import QuantrustError
from quantrust.evaluation.operating_points import OperatingPoints
from quantrust.evaluation.own_sample import SampleSettings, points_of_sample
from quantrust.report.item_words import PICTURE
from quantrust.report.wording import counted, drawn, item, speaking_of, with_interval

OLD_CARD = "## Before the recalibration"


def recalibrated(bundle: Bundle, items: Sequence[LabelledItem], task: str, settings: SampleSettings) -> BundleRecord:
    """Ask a bundle a sample of judged items, and return its record with thresholds set and certified on them.

    Parameters
    ----------
    bundle : Bundle
        Under the conditions in which it will answer.
    items : sequence of LabelledItem
        With reference answers.
    task : str
        By which answers are judged.
    settings : SampleSettings

    Returns
    -------
    BundleRecord
        Its operating points are those of the sample alone, under the conditions here. Its risk limit stays if there is
        a point for it; otherwise it becomes the lowest limit that has one.

    Raises
    ------
    QuantrustError
        If an item cannot be answered, or no threshold keeps any of the limits.
    """
    record = bundle.record
    answers = ask(bundle, items, task).rename({"confidence": record.estimator})
    points, certification = points_of_sample(answers, record.estimator, settings)
    if not points:
        raise QuantrustError(
            f"{settings.name}: no threshold keeps any of the limits {', '.join(map(str, settings.risks))} on this "
            "sample; ask for a higher limit with --risk. Nothing was written"
        )
    limits = sorted({point.risk_limit for point in points})
    old = record.operating_points
    return replace(
        record,
        risk=record.risk if record.risk in limits else limits[0],
        settings=bundle.settings,
        operating_points=OperatingPoints(
            old.model, old.scheme, old.weights_sha256, settings.name, bundle.conditions, points, certification
        ),
    )


def write_recalibrated(source: str | Path, record: BundleRecord, out_dir: str | Path) -> None:
    """Write a bundle with other operating points; it is complete or absent.

    Parameters
    ----------
    source : str or Path
        The bundle, whose weights, processor and Selector are linked or copied.
    record : BundleRecord
        As `recalibrated` returns it.
    out_dir : str or Path
        A folder that stands there is replaced as a whole; it may be `source`.
    """
    source = Path(source)
    with speaking_of(record.words):
        card = _card((source / CARD).read_text(encoding="utf-8"), record)
    with artifact_folder(out_dir) as folder:
        take(source / CHECKPOINT, folder / CHECKPOINT)
        if (source / SELECTOR).is_dir():
            take(source / SELECTOR, folder / SELECTOR)
        (folder / CARD).write_text(card, encoding="utf-8")
        (folder / RECORD).write_text(record_text(record, files_of(folder)), encoding="utf-8")


def _card(old: str, record: BundleRecord) -> str:
    """Put what holds now before what the card said, and behind its metadata."""
    head, text = "", old
    if old.startswith("---\n") and (end := old.find("\n---\n", 4)) >= 0:
        head, text = old[: end + 5], old[end + 5 :]
    # A second recalibration replaces the first.
    _, found, rest = text.partition(f"{OLD_CARD}\n")
    return f"{head}\n{_section(record)}\n{OLD_CARD}\n{rest if found else text}"


def _section(record: BundleRecord) -> str:
    points = record.operating_points
    certification = points.certification
    rows = [
        "| risk limit | threshold | kind | coverage | risk |",
        "|---|---|---|---|---|",
    ]
    for point in record.points:
        (measured,) = point.measured
        rows.append(
            f"| {point.risk_limit!r} | `{point.threshold!r}` | {point.kind} | "
            f"{with_interval(measured.coverage, measured.coverage_low, measured.coverage_high)} | "
            f"{with_interval(measured.risk, measured.risk_low, measured.risk_high)} |"
        )
    promise = ""
    if certification is not None:
        # where an item is an image, there is one of it anyway
        one_each, each = ("", "") if item() == PICTURE else (f", one {item()} an image", ", one about each image")
        promise = (
            f"\nThe risk of every certified threshold is below its limit for {drawn('and')} like those of the "
            f"sample{one_each}. The probability that this fails for any of them is at most {certification.delta!r}. "
            f"{counted(certification.questions)} certified them{each}: {certification.divided}.\n"
        )
    return "\n".join(
        [
            f"# {record.name}, recalibrated on {points.id_dataset}",
            "",
            "These thresholds hold. Those further down were set on other data and are not in the bundle any more. "
            "Coverage and risk are measured on the images that certified.",
            "",
            *rows,
            promise,
        ]
    )
