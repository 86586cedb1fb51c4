"""Drift: what changes when a variant answers the same questions under other conditions, and whether limits hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from quantrust.errors import QuantrustError
from quantrust.evaluation.intervals import LEVEL, interval, null_if_nan
from quantrust.evaluation.limits import fewest_to_judge
from quantrust.evaluation.metrics import Floats
from quantrust.evaluation.operating_points import OperatingPoint
from quantrust.evaluation.resampling import ImageDraws, draw_images

SAME = 1e-6
"""Confidences that differ by no more are the same: batches of other questions move them so far."""
HOLDS, BROKEN, OPEN = "holds", "broken", "not settled"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval over images; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PointDrift:
    """What becomes of an operating point.

    Attributes
    ----------
    risk_limit : float
    kind : {"val", "certified"}
    threshold : float
    changed : int
        Decisions that changed: answered under one of the conditions, abstained from under the other.
    changed_share : Estimate
        Their share of all questions.
    coverage_before, coverage : Estimate
        Under the conditions that it was measured under, and here.
    risk_before, risk, risk_change : Estimate or None
        The same for the risk, and here minus before on the same questions. None without reference answers.
    answered_images : int
        Images with a question that is answered here.
    verdict : {"holds", "broken", "not settled"} or None
        Whether the whole interval of the risk here lies at or below the limit, or above it. Not settled where it
        contains the limit, or too few images are answered to tell. None without reference answers.
    """

    risk_limit: float
    kind: str
    threshold: float
    changed: int
    changed_share: Estimate
    coverage_before: Estimate
    coverage: Estimate
    risk_before: Estimate | None
    risk: Estimate | None
    risk_change: Estimate | None
    answered_images: int
    verdict: str | None


@dataclass(frozen=True)
class Drift:
    """What changes between two sets of answers to the same questions.

    Attributes
    ----------
    questions, images : int
    answers_changed : int
    answers_share : Estimate
        Their share of all questions.
    confidences_changed : int
        Confidences that differ by more than `SAME`.
    largest_change, mean_change : float
        Of the confidence, without its sign.
    quality_change : Estimate or None
        Mean quality here minus before; None without reference answers.
    points : tuple of PointDrift
    level : float
        Nominal coverage of the intervals.
    """

    questions: int
    images: int
    answers_changed: int
    answers_share: Estimate
    confidences_changed: int
    largest_change: float
    mean_change: float
    quality_change: Estimate | None
    points: tuple[PointDrift, ...]
    level: float


def measure_drift(
    before: pl.DataFrame,
    here: pl.DataFrame,
    points: Sequence[OperatingPoint],
    *,
    seed: int,
    resamples: int = 1000,
    level: float = LEVEL,
) -> Drift:
    """Compare the answers to the same questions under two conditions.

    Parameters
    ----------
    before, here : polars.DataFrame
        Columns ``question_id``, ``image_id``, ``answer``, ``confidence`` and, if the questions have reference answers,
        ``quality``. Before are those under the conditions of the operating points.
    points : sequence of OperatingPoint
    seed : int
        Of the resamples.
    resamples : int
        Bootstrap resamples of images; both sides see the same.
    level : float in (0, 1)
        Nominal coverage of the intervals.

    Raises
    ------
    QuantrustError
        If the two do not answer the same questions.
    """
    pairs = before.join(here.drop("image_id"), on="question_id", suffix="_here", validate="1:1")
    if not before.height == here.height == pairs.height:
        raise QuantrustError(
            f"{before.height} answers and {here.height} answers have {pairs.height} questions in common; expected "
            "answers to the same questions"
        )
    over = OverImages(draw_images(pairs["image_id"].to_numpy(), resamples, seed), level)
    changed = (pairs["answer"] != pairs["answer_here"]).to_numpy().astype(float)
    moved = (pairs["confidence_here"] - pairs["confidence"]).abs().to_numpy()
    qualities = None
    if "quality" in before.columns and "quality" in here.columns:
        qualities = pairs["quality"].to_numpy(), pairs["quality_here"].to_numpy()
    everything = np.ones(pairs.height)
    return Drift(
        questions=pairs.height,
        images=pairs["image_id"].n_unique(),
        answers_changed=int(changed.sum()),
        answers_share=over.mean(changed, everything),
        confidences_changed=int((moved > SAME).sum()),
        largest_change=float(moved.max()),
        mean_change=float(moved.mean()),
        quality_change=None if qualities is None else over.mean(qualities[1] - qualities[0], everything),
        points=tuple(_of_point(point, pairs, qualities, over) for point in points),
        level=level,
    )


def _of_point(
    point: OperatingPoint, pairs: pl.DataFrame, qualities: tuple[Floats, Floats] | None, over: "OverImages"
) -> PointDrift:
    kept, kept_here = (
        (pairs[name] >= point.threshold).to_numpy().astype(float) for name in ("confidence", "confidence_here")
    )
    everything = np.ones(pairs.height)
    changed = np.abs(kept_here - kept)
    images = pairs.filter(pl.Series(kept_here > 0))["image_id"].n_unique()
    risks: tuple[Estimate | None, Estimate | None, Estimate | None] = (None, None, None)
    verdict = None
    if qualities is not None:
        risk_before, risk = over.mean(1 - qualities[0], kept), over.mean(1 - qualities[1], kept_here)
        risks = risk_before, risk, over.difference((1 - qualities[1], kept_here), (1 - qualities[0], kept))
        verdict = _verdict(risk, point.risk_limit, images, over.level)
    return PointDrift(
        point.risk_limit,
        point.kind,
        point.threshold,
        int(changed.sum()),
        over.mean(changed, everything),
        over.mean(kept, everything),
        over.mean(kept_here, everything),
        *risks,
        images,
        verdict,
    )


def _verdict(risk: Estimate, limit: float, images: int, level: float) -> str:
    if risk.low is None or risk.high is None or images < fewest_to_judge(limit, level):
        return OPEN
    if risk.high <= limit:
        return HOLDS
    return BROKEN if risk.low > limit else OPEN


@dataclass(frozen=True)
class OverImages:
    """Weighted means with intervals over resamples of images.

    Attributes
    ----------
    draws : ImageDraws
        Of the images of n answers.
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    draws: ImageDraws
    level: float

    def mean(self, values: Floats, weights: Floats) -> Estimate:
        """Return the mean of `values` under `weights`, both of shape (n,)."""
        return self._estimate(*self._means(values, weights))

    def difference(self, one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Estimate:
        """Return the first weighted mean minus the second, on the same resamples."""
        (value, resampled), (other_value, other_resampled) = self._means(*one), self._means(*other)
        return self._estimate(value - other_value, resampled - other_resampled)

    def _means(self, values: Floats, weights: Floats) -> tuple[float, Floats]:
        images = self.draws.counts.shape[1]
        sums = np.stack(
            [np.bincount(self.draws.image, column, minlength=images) for column in (values * weights, weights)], axis=1
        )
        numerator, denominator = (self.draws.counts.astype(float) @ sums).T
        resampled = np.full(denominator.shape, np.nan)
        np.divide(numerator, denominator, out=resampled, where=denominator > 0)
        whole = weights.sum()
        return float((values * weights).sum() / whole) if whole else float("nan"), resampled

    def _estimate(self, value: float, resampled: Floats) -> Estimate:
        low, high = interval(resampled, self.level)
        return Estimate(null_if_nan(value), null_if_nan(low), null_if_nan(high))
