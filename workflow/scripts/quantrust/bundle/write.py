"""Writing a bundle from what a study has measured of a variant."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from quantrust.artifacts.folder_record import OF_SNAKEMAKE, check_folder
from quantrust.artifacts.folders import artifact_folder
from quantrust.artifacts.records import read_record
from quantrust.artifacts.tables import read_table, table_notes
from quantrust.bundle.card import model_card
from quantrust.bundle.record import (
    CARD,
    CHECKPOINT,
    RECORD,
    SELECTOR,
    BundleRecord,
    describe_limits,
    files_of,
    record_text,
)
from quantrust.confidence.catalogue import check_estimator, has_learned
from quantrust.errors import QuantrustError
from quantrust.evaluation.calibrators import fit_calibrator
from quantrust.evaluation.operating_points import Conditions, OperatingPoints, read_operating_points
from quantrust.files import parse_json, read_object
from quantrust.inference.settings import DumpSettings
from quantrust.quantization.checkpoint import RECORD as QUANTIZATION


@dataclass(frozen=True)
class BundleSources:
    """The artifacts of a study that a bundle is made from.

    Attributes
    ----------
    checkpoint : str or Path
    features : str or Path
        The variant's answers to the ID dataset, of which only the notes are read: prompt, limits and conditions.
    operating_points : str or Path
    metrics : str or Path
        The variant's metrics, for the model card.
    scores : str or Path
        The variant's scores, to which a calibrator is fitted.
    selector : str, Path or None
        Where the estimator is learned.
    """

    checkpoint: str | Path
    features: str | Path
    operating_points: str | Path
    metrics: str | Path
    scores: str | Path
    selector: str | Path | None


@dataclass(frozen=True)
class BundleChoice:
    """What is decided about a bundle.

    Attributes
    ----------
    estimator : str
        Whose confidence decides, calibration included.
    risk : float
        The risk limit that is meant where none is asked for.
    base_model : str or None
        The model that was quantized, by its name on the Hugging Face hub or another one.
    license : str or None
        The licence of that model, as the hub names it.
    """

    estimator: str
    risk: float
    base_model: str | None = None
    license: str | None = None


def write_bundle(out_dir: str | Path, sources: BundleSources, choice: BundleChoice) -> None:
    """Write the folder of a bundle, which is complete or absent.

    Weights and processor are hard links to the checkpoint's files where the file system allows, else copies.

    Parameters
    ----------
    out_dir : str or Path
        A folder that stands there is replaced.
    sources : BundleSources
    choice : BundleChoice

    Raises
    ------
    QuantrustError
        If a source is missing or damaged, there is no such estimator, the study has no operating point of it or none
        for the risk limit, or the sources are of different variants.
    """
    record = _record(sources, choice)
    check_folder(sources.checkpoint)
    quantization = read_object(Path(sources.checkpoint) / QUANTIZATION)
    if quantization.get("sha256") != record.operating_points.weights_sha256:
        raise QuantrustError(
            f"{sources.operating_points}: belongs to other weights than those of {sources.checkpoint}; measure the "
            "checkpoint anew"
        )
    metrics = read_table(sources.metrics)
    with artifact_folder(out_dir) as folder:
        take(sources.checkpoint, folder / CHECKPOINT)
        if has_learned([choice.estimator]) and sources.selector is not None:
            check_folder(sources.selector)
            take(sources.selector, folder / SELECTOR)
        (folder / CARD).write_text(model_card(record, quantization, metrics), encoding="utf-8")
        (folder / RECORD).write_text(record_text(record, files_of(folder)), encoding="utf-8")


def _record(sources: BundleSources, choice: BundleChoice) -> BundleRecord:
    try:
        check_estimator(choice.estimator)
    except QuantrustError as error:
        raise QuantrustError(f"estimator {choice.estimator!r:.100}: {error}") from None
    points = _points_of(read_operating_points(sources.operating_points), choice, sources.operating_points)
    notes = table_notes(sources.features)
    for name in ("settings", "item", "quality"):
        if name not in notes:
            raise QuantrustError(f"{sources.features}: holds no {name}, as the features of a study do; dump them anew")
    if notes["weights_sha256"] != points.weights_sha256 or Conditions.from_notes(notes) != points.conditions:
        raise QuantrustError(
            f"{sources.operating_points}: was not measured on the answers of {sources.features}; let snakemake build "
            "both anew"
        )
    settings: DumpSettings = read_record(
        DumpSettings, parse_json(notes["settings"], str(sources.features)), f"{sources.features}: settings"
    )
    calibrator = None
    if "+" in choice.estimator:
        calibrator = fit_calibrator(read_table(sources.scores), choice.estimator, points.id_dataset)
    return BundleRecord(
        choice.estimator,
        choice.risk,
        settings,
        calibrator,
        points,
        choice.base_model,
        choice.license,
        notes["item"],
        notes["quality"],
        notes.get("asked"),
    )


def _points_of(found: OperatingPoints, choice: BundleChoice, path: str | Path) -> OperatingPoints:
    """Return the points of one estimator."""
    points = tuple(point for point in found.points if point.estimator == choice.estimator)
    if not points:
        known = dict.fromkeys(point.estimator for point in found.points)
        raise QuantrustError(
            f"{path}: has no operating point of the estimator {choice.estimator!r}; it has those of "
            f"{', '.join(known) or 'none'}"
        )
    if choice.risk not in {point.risk_limit for point in points}:
        raise QuantrustError(
            f"{path}: has no operating point of {choice.estimator} for the risk limit {choice.risk!r}; it has "
            f"{describe_limits(points)}"
        )
    return replace(found, points=points)


def take(source: str | Path, target: Path) -> None:
    """Link or copy the files of an artifact that is a folder.

    Parameters
    ----------
    source : str or Path
        A folder with an artifact.
    target : Path
        Where the files go; it is made.
    """
    source = Path(source)
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_dir():
            continue
        if name.as_posix() != OF_SNAKEMAKE:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, target / name)


def link_or_copy(path: Path, target: Path) -> None:
    """Make a hard link, or a copy where that is impossible: on another file system, or on one without links."""
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
