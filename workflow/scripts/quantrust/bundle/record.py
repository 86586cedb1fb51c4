"""The record of a bundle, `bundle.json`: everything but weights, processor and Selector. No torch.

A bundle is a folder with

`bundle.json`
    The entries of `BundleRecord`. `files` has size and SHA-256 of every other file.
`README.md`
    A model card.
`checkpoint/`
    The variant, as `quantrust.quantization.checkpoint` describes it.
`selector/`
    The trained networks, if the estimator is one of them.
`quantrust-digests.json`
    The seal: size and digest of every file, `bundle.json` too, as `quantrust.artifacts.folder_record` says.

No file is found by a name that one of these files holds.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.artifacts.digests import digest_of, how_to_rebuild
from quantrust.artifacts.folder_record import OF_SNAKEMAKE, check_folder
from quantrust.artifacts.folder_record import RECORD as SEAL
from quantrust.artifacts.records import read_record
from quantrust.confidence.catalogue import check_estimator
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError
from quantrust.evaluation.calibrators import Calibrator, calibrator_from_record, calibrator_record
from quantrust.evaluation.operating_points import (
    KINDS,
    OperatingPoint,
    OperatingPoints,
    points_from_record,
    points_record,
)
from quantrust.files import json_text, read_object
from quantrust.inference.settings import DumpSettings
from quantrust.report.item_words import Words, words_for

FORMAT = 2
RECORD = "bundle.json"
CARD = "README.md"
CHECKPOINT = "checkpoint"
SELECTOR = "selector"
MOST_BYTES = 1 << 24
"""Of `bundle.json` and of the seal, which are read before any digest is known."""
MOST_AT_A_TIME = 100_000
"""Tokens of an answer, and questions or pictures that are held together."""
REPAIR = "get the bundle again, or write it anew with `quantrust bundle`"


@dataclass(frozen=True)
class FileEntry:
    """Size and digest of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class BundleRecord:
    """What a bundle knows beside its weights.

    Attributes
    ----------
    estimator : str
        Whose confidence decides, calibration included.
    risk : float
        The risk limit that is meant where none is asked for.
    settings : DumpSettings
        Prompt, limit on tokens and batches with which the study's answers were given.
    calibrator : Calibrator or None
        Of a calibrated estimator.
    operating_points : OperatingPoints
        Those of the estimator.
    base_model : str or None
        The model that was quantized, by its name on the Hugging Face hub or another one.
    license : str or None
        The licence of that model, as the hub names it.
    item, quality : str
        What the study's task calls an item, and the quality of an answer.
    asked : str or None
        What was asked about every picture of the study, where that was always the same; empty where the model was shown
        the picture alone.
    """

    estimator: str
    risk: float
    settings: DumpSettings
    calibrator: Calibrator | None
    operating_points: OperatingPoints
    base_model: str | None
    license: str | None
    item: str = "question"
    quality: str = "accuracy"
    asked: str | None = None

    @property
    def words(self) -> Words:
        """What is said of its items and of their quality."""
        return words_for(self.item, self.quality)

    def other_question(self, question: object) -> str | None:
        """Return why a question is none that the study asked, where it asked the same about every picture.

        Thresholds hold for what was measured, and all that was measured is that text.
        """
        if self.asked is None or question == self.asked:
            return None
        advice = "leave the question out" + (f", or ask {shown(self.asked)}" if self.asked else "")
        return f"question is {shown(question)}, but this bundle was measured on one text alone; {advice}"

    @property
    def name(self) -> str:
        """Model and scheme."""
        return f"{self.operating_points.model}/{self.operating_points.scheme}"

    @property
    def id_dataset(self) -> str:
        """The dataset that the bundle is in distribution of."""
        return self.operating_points.id_dataset

    @property
    def points(self) -> tuple[OperatingPoint, ...]:
        """The operating points, by risk limit, a certified one after that of val."""
        return tuple(
            sorted(self.operating_points.points, key=lambda point: (point.risk_limit, KINDS.index(point.kind)))
        )

    def point(self, risk: float | None = None, kind: str | None = None) -> OperatingPoint:
        """Return the operating point for a risk limit.

        Parameters
        ----------
        risk : float, optional
            By default the bundle's own.
        kind : {"val", "certified"}, optional
            By default a certified threshold where there is one, else that of val.

        Raises
        ------
        QuantrustError
            If there is none; the message lists those that there are.
        """
        wanted = self.risk if risk is None else risk
        found = [point for point in self.points if point.risk_limit == wanted and kind in (None, point.kind)]
        if found:
            return found[0] if len(found) == 1 else next(point for point in found if point.certified)
        asked = f"risk limit {wanted!r}" + ("" if kind is None else f" of kind {kind}")
        raise QuantrustError(f"no operating point for {asked}; {self.name} has {describe_limits(self.points)}")


def describe_limits(points: Sequence[OperatingPoint]) -> str:
    """Return the risk limits of operating points with their kinds, in one line."""
    kinds: dict[float, list[str]] = {}
    for point in points:
        kinds.setdefault(point.risk_limit, []).append(point.kind)
    return ", ".join(f"{limit!r} ({', '.join(found)})" for limit, found in kinds.items()) or "none"


def percent(share: float) -> str:
    """Return a risk limit as a percentage, with all its digits.

    Examples
    --------
    >>> percent(0.05), percent(0.005)
    ('5 %', '0.5 %')
    """
    return f"{float(f'{100 * share:.10g}'):g} %"


def record_text(record: BundleRecord, files: dict[str, dict[str, Any]]) -> str:
    """Return the text of `bundle.json`.

    Parameters
    ----------
    record : BundleRecord
    files : dict
        As `files_of` returns it.
    """
    content = {
        "format": FORMAT,
        **{field.name: getattr(record, field.name) for field in dataclasses.fields(record)},
        "settings": dataclasses.asdict(record.settings),
        "calibrator": None if record.calibrator is None else calibrator_record(record.calibrator),
        "operating_points": points_record(record.operating_points),
        "files": files,
    }
    return json_text(content)


def identity(folder: str | Path) -> str:
    """Return the SHA-256 of `bundle.json`, which lists the digests of all other files: that of the whole bundle."""
    return digest_of(Path(folder) / RECORD)


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and digest of every file of a bundle but `bundle.json` and the seal, by its name in the folder."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    listed = sorted(names - {RECORD, SEAL, OF_SNAKEMAKE})
    return {
        name: dataclasses.asdict(FileEntry((folder / name).stat().st_size, digest_of(folder / name))) for name in listed
    }


def read_bundle(folder: str | Path) -> BundleRecord:
    """Read the record of a bundle, after every byte of the bundle has been checked.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    QuantrustError
        If there is no bundle, a file is missing, damaged or not listed, or the record is not what `write_bundle`
        writes.
    """
    folder = Path(folder)
    path = folder / RECORD
    for file in (path, folder / SEAL):
        if not file.is_file():
            raise QuantrustError(f"{file} is missing, or is no file: expected the folder of a bundle; {REPAIR}")
        if file.stat().st_size > MOST_BYTES:
            raise QuantrustError(f"{file} has more than {MOST_BYTES:,} bytes, which no bundle's has; {REPAIR}")
    try:
        check_folder(folder)
    except QuantrustError as error:
        raise QuantrustError(str(error).replace(how_to_rebuild(folder), REPAIR)) from None
    return _parsed(read_object(path), folder)


def _parsed(content: dict[str, Any], folder: Path) -> BundleRecord:
    path = folder / RECORD
    if content.get("format") != FORMAT:
        raise QuantrustError(f"{path}: format {content.get('format')!r:.100}, this version reads {FORMAT}; {REPAIR}")
    listed = content.pop("files", None)
    if listed != files_of(folder):
        raise QuantrustError(f"{path}: does not list the files that are there, with their digests; {REPAIR}")
    del content["format"]
    parts: dict[str, Any] = {
        "operating_points": points_from_record,
        "settings": lambda value, where: read_record(DumpSettings, value, where),
        "calibrator": lambda value, where: None if value is None else calibrator_from_record(value, where),
    }
    values = {}
    for name, read in parts.items():
        value = content.pop(name, None)
        if not isinstance(value, dict | None) or (value is None and name != "calibrator"):
            raise QuantrustError(f"{path}: {name} is {value!r:.100}, expected an object; {REPAIR}")
        values[name] = read(value, f"{path}: {name}")
    record = BundleRecord(**dataclasses.asdict(read_record(_Plain, content, str(path))), **values)
    _check(record, path)
    return record


@dataclass(frozen=True)
class _Plain:
    """The entries of `BundleRecord` that are texts and numbers."""

    estimator: str
    risk: float
    base_model: str | None
    license: str | None
    item: str
    quality: str
    asked: str | None


def _check(record: BundleRecord, path: Path) -> None:
    """Raise when entries that have the right types do not fit each other."""
    try:
        check_estimator(record.estimator)
    except QuantrustError as error:
        raise QuantrustError(f"{path}: estimator is {record.estimator!r:.100}: {error}") from None
    calibrated = "+" in record.estimator
    if calibrated != (record.calibrator is not None):
        what = "no calibrator" if calibrated else "a calibrator"
        raise QuantrustError(f"{path}: has {what}, but the estimator is {record.estimator}; {REPAIR}")
    others = sorted({point.estimator for point in record.points} - {record.estimator})
    if others:
        raise QuantrustError(
            f"{path}: has operating points of {others[0]!r:.100}, but the estimator is {record.estimator}; {REPAIR}"
        )
    if "{question}" not in record.settings.prompt:
        raise QuantrustError(f"{path}: the prompt has no {{question}} in it; {REPAIR}")
    for name in ("max_new_tokens", "batch_size", "images_per_batch", "images_per_chunk"):
        if not 1 <= (value := getattr(record.settings, name)) <= MOST_AT_A_TIME:
            raise QuantrustError(
                f"{path}: settings: {name} is {value:,}; expected a number from 1 to {MOST_AT_A_TIME:,}: {REPAIR}"
            )
