"""Operating points of a variant: thresholds by estimator and risk limit, what they were set on, and what they did.

They belong to the conditions under which the variant answered. Under others its confidences may be slightly different
numbers, and what was measured or certified need not hold.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.artifacts.documents import check_document, writing_document
from quantrust.artifacts.records import read_record
from quantrust.errors import QuantrustError
from quantrust.files import json_text, parse_json, read_object

FORMAT = 1
VAL, CERTIFIED = "val", "certified"
KINDS = (VAL, CERTIFIED)
"""A threshold that keeps the risk limit on the val answers; and one that a certificate was found for."""
NO_KERNEL = "none"
"""The kernel of a variant without quantized linears."""


@dataclass(frozen=True)
class Conditions:
    """What a variant answered on.

    Attributes
    ----------
    device : str
        `cpu`, or the name of the GPU.
    dtype : {"float32", "bfloat16"}
    kernel : str
        The kernels of its quantized linears, in alphabetical order with ", " between them, or `NO_KERNEL`.
    attention : str
        The attention of the model that ran.
    """

    device: str
    dtype: str
    kernel: str
    attention: str

    @classmethod
    def from_notes(cls, notes: Mapping[str, str]) -> "Conditions":
        """Read them from the metadata of a features file."""
        settings, kernels = (parse_json(notes[name], f"features file: {name}") for name in ("settings", "kernels"))
        return cls(notes["device"], settings["dtype"], name_kernels(kernels), notes["attention"])

    def differences(self, other: "Conditions") -> list[str]:
        """Return what other conditions differ in, such as ``dtype bfloat16 instead of float32``, theirs first."""
        return [
            f"{field.name} {getattr(other, field.name)} instead of {getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def name_kernels(counts: Mapping[str, int]) -> str:
    """Return how conditions name kernels, from the number of quantized linears that use each.

    Examples
    --------
    >>> name_kernels({"reference": 3, "int4": 12}), name_kernels({})
    ('int4, reference', 'none')
    """
    return ", ".join(sorted(counts)) or NO_KERNEL


@dataclass(frozen=True)
class Measured:
    """What a threshold did on a set of answers.

    Attributes
    ----------
    dataset, split : str
    questions, images : int
        Of the whole set.
    answered : int
        Questions that were answered.
    coverage, coverage_low, coverage_high : float or None
        Share of questions that are answered, with its interval; None where undefined.
    risk, risk_low, risk_high : float or None
        Mean of 1 - quality of the answers given, with its interval; None where nothing is answered.
    level : float
        Nominal coverage of the intervals.
    """

    dataset: str
    split: str
    questions: int
    images: int
    answered: int
    coverage: float | None
    coverage_low: float | None
    coverage_high: float | None
    risk: float | None
    risk_low: float | None
    risk_high: float | None
    level: float


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for a risk limit: a question is answered if the confidence is not below it.

    Attributes
    ----------
    estimator : str
        Whose confidence the threshold is on, calibration included.
    risk_limit : float
        In (0, 1).
    kind : {"val", "certified"}
    threshold : float
        The whole number, as it was found.
    delta : float or None
        Of a certified threshold, the probability with which the risk of any certified threshold of the model may exceed
        its limit (`Certification`).
    dataset, split : str
        The answers that the threshold was found on.
    questions, images : int
        How many questions of those it took, and about how many images.
    measured : tuple of Measured
        What it did on whole test sets: that of the ID dataset first, then those of the shifts.
    """

    estimator: str
    risk_limit: float
    kind: str
    threshold: float
    delta: float | None
    dataset: str
    split: str
    questions: int
    images: int
    measured: tuple[Measured, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether a certificate was found for it."""
        return self.kind == CERTIFIED


@dataclass(frozen=True)
class Sought:
    """A certificate that was sought.

    Attributes
    ----------
    estimator : str
    risk_limit : float
        In (0, 1).
    part : float
        The part of delta that the limit was tested with in the end.
    fewest : int
        The least number of answers, one question an image and all of them faultless, that a certificate takes with
        this part.
    found : bool
        Whether the operating points have a certified threshold for it.
    """

    estimator: str
    risk_limit: float
    part: float
    fewest: int
    found: bool


@dataclass(frozen=True)
class Certification:
    """What the certified thresholds of a variant promise together, and what was declared before they were sought.

    The risk of every certified threshold is below its limit, whichever scheme, estimator and limit among those declared
    is chosen and whatever it is chosen by, except with probability delta (`quantrust.evaluation.shared_delta`). This
    holds for one model, in distribution, for one question an image, under the conditions of the answers.

    Attributes
    ----------
    delta : float
        Of all certificates together, in (0, 1).
    schemes : int
        How many were declared, this one among them.
    estimators : tuple of str
    risk_limits : tuple of float
        In the order in which parts of delta are handed on.
    dataset, split : str
        The answers that certified.
    questions, images : int
        How many questions of those it took, and about how many images.
    seed : int
        With which the questions were drawn.
    divided : str
        What each part of the answers was used for.
    sought : tuple of Sought
        By estimator, then limit.
    """

    delta: float
    schemes: int
    estimators: tuple[str, ...]
    risk_limits: tuple[float, ...]
    dataset: str
    split: str
    questions: int
    images: int
    seed: int
    divided: str
    sought: tuple[Sought, ...]


@dataclass(frozen=True)
class OperatingPoints:
    """All operating points of a variant.

    Attributes
    ----------
    model, scheme : str
    weights_sha256 : str
        Digest of the weights that answered.
    id_dataset : str
    conditions : Conditions
    points : tuple of OperatingPoint
        A risk limit for which an estimator has no threshold of some kind has no such point.
    certification : Certification or None
        None where no certificate was sought, because the scheme is not among those that may ship.
    """

    model: str
    scheme: str
    weights_sha256: str
    id_dataset: str
    conditions: Conditions
    points: tuple[OperatingPoint, ...]
    certification: Certification | None = None

    def points_for(self, estimator: str, risk_limit: float) -> list[OperatingPoint]:
        """Return the points of an estimator for a risk limit: none, one, or one of each kind."""
        return [one for one in self.points if (one.estimator, one.risk_limit) == (estimator, risk_limit)]


def write_operating_points(points: OperatingPoints, path: str | Path) -> None:
    """Write operating points as JSON, with every float in full and the file's digest beside it.

    Raises
    ------
    QuantrustError
        If the disk fills.
    """
    with writing_document(path) as partial:
        partial.write_text(json_text(points_record(points)), encoding="utf-8")


def read_operating_points(path: str | Path) -> OperatingPoints:
    """Read operating points of a study.

    Raises
    ------
    QuantrustError
        If the file or its digest is missing or damaged, or it is not what `write_operating_points` writes.
    """
    check_document(path)
    return points_from_record(read_object(path), path)


def points_record(points: OperatingPoints) -> dict[str, Any]:
    """Return operating points as plain objects, lists, texts and numbers."""
    return {"format": FORMAT, **dataclasses.asdict(points)}


def points_from_record(record: Mapping[str, Any], where: str | Path) -> OperatingPoints:
    """Return the operating points that a record holds.

    Parameters
    ----------
    record : mapping
        As `points_record` returns it, or as JSON makes it.
    where : str or Path
        The file that it is from, for messages.

    Raises
    ------
    QuantrustError
        If an entry is missing, unexpected, of another type, or outside what it may be.
    """
    content = dict(record)
    found = content.pop("format", None)
    if found != FORMAT:
        raise QuantrustError(f"{where}: format {found!r}, this version reads {FORMAT}; write the file again")
    points = read_record(OperatingPoints, content, str(where))
    for number, point in enumerate(points.points):
        if (fault := _fault(point)) is not None:
            raise QuantrustError(f"{where}: points[{number}].{fault}; write the file again")
    if any(point.certified for point in points.points) and points.certification is None:
        raise QuantrustError(f"{where}: has certified points but no certification; write the file again")
    return points


def _fault(point: OperatingPoint) -> str | None:
    """Return what is wrong with a point whose entries have the right types; None if nothing is."""
    if point.kind not in KINDS:
        return f"kind is {point.kind!r}, expected one of {', '.join(KINDS)}"
    if not 0.0 < point.risk_limit < 1.0:
        return f"risk_limit is {point.risk_limit}, expected a number between 0 and 1"
    if point.certified != (point.delta is not None):
        return f"delta is {point.delta} for a point of kind {point.kind}, expected one for {CERTIFIED} points alone"
    if point.delta is not None and not 0.0 < point.delta < 1.0:
        return f"delta is {point.delta}, expected a number between 0 and 1"
    return None
