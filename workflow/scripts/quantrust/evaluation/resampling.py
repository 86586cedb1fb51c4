"""Bootstrap over images: every metric on many resamples of one ranking, without sorting again.

A resample of images with replacement is a vector of multiplicities. Answers stay in the order of the one ranking and
count as often as their image was drawn, so that each metric becomes a few weighted sums along that order.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantrust.evaluation.metrics import BINS, CORRECT, Floats, Ranking, gain_tenths, mass_edges, rank, width_bins
from quantrust.evaluation.summary import Deployment, Key

CHUNK = 1 << 18
"""Entries of one (resamples, answers) matrix worked on at a time: 2 MiB, so that the few of them stay near the core."""


@dataclass(frozen=True)
class ImageDraws:
    """Resamples of the images that answers belong to.

    Attributes
    ----------
    image : ndarray of int64, shape (n,)
        The image of each answer, as an index.
    counts : ndarray of int32, shape (resamples, images)
        How often each image was drawn; each row sums to the number of images.
    """

    image: NDArray[np.int64]
    counts: NDArray[np.int32]


def draw_images(image_ids: ArrayLike, resamples: int, seed: int | Sequence[int]) -> ImageDraws:
    """Draw images with replacement, as many as there are, `resamples` times.

    Parameters
    ----------
    image_ids : array_like, shape (n,)
        The image of each answer; any sortable type.
    resamples : int
        Number of resamples.
    seed : int or sequence of int
        The same seed and the same set of images give the same draws, which makes comparisons paired.

    Returns
    -------
    ImageDraws
    """
    names, image = np.unique(np.asarray(image_ids), return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, names.size), dtype=np.int32)
    for row in counts:
        row[:] = np.bincount(rng.integers(names.size, size=names.size), minlength=names.size)
    return ImageDraws(image=image, counts=counts)


class Resampler:
    """Metrics on resamples of one set of answers, for any number of estimators.

    Parameters
    ----------
    accuracy : ndarray of float64, shape (n,)
        Qualities in [0, 1].
    draws : ImageDraws
        Resamples of their images.
    """

    def __init__(self, accuracy: Floats, draws: ImageDraws):
        self.accuracy = np.asarray(accuracy, dtype=np.float64)
        self.draws = draws
        self._whole: tuple[Resampler, slice] | None = None

    def part(self, first: int, step: int) -> "Resampler":
        """Return the same on every `step`-th resample from number `first` on; it computes nothing again.

        Parameters
        ----------
        first : int
            From 0 on.
        step : int
            From 1 on.
        """
        if step == 1:
            return self
        chosen = slice(first, None, step)
        part = Resampler(self.accuracy, ImageDraws(self.draws.image, self.draws.counts[chosen]))
        part._whole = self, chosen
        return part

    @cached_property
    def ideal_aurc(self) -> Floats:
        """AURC of the ideal order on each resample, shape (resamples,)."""
        if self._whole is not None:
            whole, chosen = self._whole
            return whole.ideal_aurc[chosen]
        ideal = rank(self.accuracy, self.accuracy)
        harmonic = _harmonic_sums(self._most_answers)
        parts = [_aurc(_Blocks(ideal, weights), harmonic) for weights in self._weights(ideal)]
        return np.concatenate(parts)

    def evaluate(
        self,
        ranking: Ranking,
        risks: Sequence[float],
        costs: Sequence[float],
        deployment: Deployment | None,
        is_probability: bool,
        progress: Callable[[int], None] = lambda resamples: None,
        wanted: Collection[Key] | None = None,
    ) -> dict[Key, Floats]:
        """Compute the metrics of `quantrust.evaluation.summary.summarise` on every resample.

        Thresholds from val stay fixed; thresholds themselves have no value here.

        Parameters
        ----------
        ranking : Ranking
            Of these answers by an estimator's confidence.
        risks, costs, deployment, is_probability
            As in `summarise`.
        progress : callable
            Called with the number of resamples done since the last call.
        wanted : collection of Key, optional
            Of the metrics that depend on the order of answers, which take most of the time, only these; by default all.

        Returns
        -------
        dict
            For each `Key` an array of shape (resamples,); NaN where undefined on a resample.
        """
        values = self._linear(ranking, risks, costs, deployment, is_probability)
        harmonic = _harmonic_sums(self._most_answers)
        functions: dict[Key, Callable[[_Blocks], Floats]] = {
            ("aurc", None): partial(_aurc, harmonic=harmonic),
            ("augrc", None): _augrc,
            ("auroc", None): _auroc,
            ("ece_mass", None): _ece_mass if is_probability else _undefined,
        }
        functions |= {("coverage_at_risk", risk): partial(_coverage_at_risk, risk=risk) for risk in risks}
        needs_ideal = wanted is None or ("e_aurc", None) in wanted
        if wanted is not None:
            needed = {*wanted, ("aurc", None)} if needs_ideal else set(wanted)
            functions = {key: function for key, function in functions.items() if key in needed}
        ordered: dict[Key, list[Floats]] = {key: [] for key in functions}
        for weights in self._weights(ranking):
            blocks = _Blocks(ranking, weights)
            for key, function in functions.items():
                ordered[key].append(function(blocks))
            progress(len(weights))
        values |= {key: np.concatenate(parts) for key, parts in ordered.items()}
        if needs_ideal:
            values["e_aurc", None] = values["aurc", None] - self.ideal_aurc
        return values

    def risks_at(self, ranking: Ranking, coverage: Floats) -> Floats:
        """Return the risk-coverage curve of every resample at given coverages.

        Parameters
        ----------
        ranking : Ranking
        coverage : ndarray of float64, shape (points,)
            In (0, 1].

        Returns
        -------
        ndarray of float64, shape (resamples, points)
        """
        parts = []
        for weights in self._weights(ranking):
            blocks = _Blocks(ranking, weights)
            counts = np.maximum(coverage * blocks.total[:, None], 1.0)
            sums = [np.interp(*row) for row in zip(counts, blocks.ends, blocks.risk_tenth_sums, strict=True)]
            parts.append(np.stack(sums) / (10.0 * counts))
        return np.concatenate(parts)

    @property
    def _most_answers(self) -> int:
        per_image = np.bincount(self.draws.image)
        return int((self.draws.counts @ per_image).max())

    def _weights(self, ranking: Ranking):
        image = self.draws.image[ranking.order]
        rows = max(1, CHUNK // ranking.n)
        for start in range(0, len(self.draws.counts), rows):
            yield np.take(self.draws.counts[start : start + rows], image, axis=1).astype(np.float64)

    def _linear(
        self,
        ranking: Ranking,
        risks: Sequence[float],
        costs: Sequence[float],
        deployment: Deployment | None,
        is_probability: bool,
    ) -> dict[Key, Floats]:
        """Compute the metrics that are ratios of sums over answers: one matrix product over images."""
        accuracy, confidence = ranking.accuracy, ranking.confidence
        columns: dict[object, Floats] = {"n": np.ones(ranking.n), "tenths": 10.0 * accuracy}
        if deployment is not None:
            thresholds = [(("risk", risk), deployment.risk_thresholds[risk]) for risk in risks]
            thresholds += [(("cost", cost), deployment.cost_thresholds[cost]) for cost in costs]
            for name, threshold in thresholds:
                answered = _answered(confidence, threshold)
                columns["answered", *name] = answered
                columns["risk_tenths", *name] = answered * (10.0 - 10.0 * accuracy)
                if name[0] == "cost":
                    columns["gain_tenths", *name] = answered * gain_tenths(accuracy, name[1])
        for cost in costs:
            columns["all_gain_tenths", cost] = gain_tenths(accuracy, cost)
        if is_probability:
            gaps = confidence - accuracy
            columns["brier"] = gaps**2
            bins = width_bins(confidence)
            columns |= {("bin", index): np.where(bins == index, gaps, 0.0) for index in range(BINS)}

        image = self.draws.image[ranking.order]
        images = self.draws.counts.shape[1]
        by_image = np.stack([np.bincount(image, column, minlength=images) for column in columns.values()], axis=1)
        rows = max(1, CHUNK // images)
        starts = range(0, len(self.draws.counts), rows)
        products = [self.draws.counts[start : start + rows].astype(np.float64) @ by_image for start in starts]
        sums = dict(zip(columns, np.concatenate(products).T, strict=True))

        n = sums["n"]
        undefined = np.full(n.size, math.nan)
        values: dict[Key, Floats] = {("accuracy", None): sums["tenths"] / (10 * n)}
        values["brier", None] = sums["brier"] / n if is_probability else undefined
        bin_gaps = [np.abs(sums["bin", index]) for index in range(BINS)] if is_probability else []
        values["ece", None] = np.sum(bin_gaps, axis=0) / n if is_probability else undefined
        if deployment is not None:
            for kind, parameters, prefix in (("risk", risks, "deployed"), ("cost", costs, "effective_reliability")):
                for parameter in parameters:
                    answered = sums["answered", kind, parameter]
                    risk_sum = sums["risk_tenths", kind, parameter]
                    values[f"{prefix}_coverage", parameter] = answered / n
                    values[f"{prefix}_risk", parameter] = _ratio(risk_sum, 10 * answered)
            for cost in costs:
                values["effective_reliability", cost] = sums["gain_tenths", "cost", cost] / (10 * n)
        for cost in costs:
            values["effective_reliability_no_abstention", cost] = sums["all_gain_tenths", cost] / (10 * n)
            values["effective_reliability_best", cost] = values["accuracy", None]
        return values


class _Blocks:
    """Weighted sums over the blocks of equal confidences of a ranking, shape (resamples, blocks)."""

    def __init__(self, ranking: Ranking, weights: Floats):
        self._ranking = ranking
        self._weights = weights
        self.sizes = self.sums()
        self.risk_tenths = self.sums(10.0 - 10.0 * ranking.accuracy)
        self.ends = _cumulated(self.sizes)
        self.total = self.ends[:, -1]

    def sums(self, values: Floats | None = None) -> Floats:
        """Sum the weights, times `values` where given, over each block."""
        ranking = self._ranking
        weighted = self._weights if values is None else self._weights * values
        if ranking.ends.size == ranking.n:
            return weighted
        return np.add.reduceat(weighted, ranking.ends - ranking.sizes, axis=1)

    @cached_property
    def risk_tenth_sums(self) -> Floats:
        """Sum of 10 r_i up to the end of each block, with a leading 0, shape (resamples, blocks + 1)."""
        return _cumulated(self.risk_tenths)

    @cached_property
    def middles(self) -> Floats:
        """Number of answers up to the middle of each block, shape (resamples, blocks)."""
        return self.ends[:, 1:] - 0.5 * self.sizes

    @cached_property
    def risks(self) -> Floats:
        """Risk up to the end of each block; NaN before the first drawn answer, shape (resamples, blocks)."""
        return _ratio(self.risk_tenth_sums[:, 1:], 10.0 * self.ends[:, 1:])

    def positives(self) -> Floats:
        """Return the number of right answers in each block."""
        return self.sums((self._ranking.accuracy >= CORRECT).astype(np.float64))

    def gap_sums(self) -> Floats:
        """Return the sum of c_i - a_i up to the end of each block, with a leading 0."""
        return _cumulated(self.sums(self._ranking.confidence - self._ranking.accuracy))


def _cumulated(sums: Floats) -> Floats:
    result = np.zeros((sums.shape[0], sums.shape[1] + 1))
    np.cumsum(sums, axis=1, out=result[:, 1:])
    return result


def _ratio(numerator: Floats, denominator: Floats, otherwise: float = math.nan) -> Floats:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, otherwise), where=denominator > 0)


def _harmonic_sums(largest: int) -> tuple[Floats, Floats]:
    """Return H_k = 1 + 1/2 + .. + 1/k and H_0 + .. + H_{k-1}, each for k from 0 to `largest`."""
    harmonic = np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, largest + 1))))
    return harmonic, np.concatenate(([0.0], np.cumsum(harmonic[:-1])))


def _aurc(blocks: _Blocks, harmonic: tuple[Floats, Floats]) -> Floats:
    """Compute AURC without visiting the answers inside a block.

    The risk r at position j enters the running means at positions j to n with weight 1/k each, H_n - H_{j-1} in all.
    Summed over the positions j of a block this is (its size) * H_n - (H_{start} + .. + H_{end - 1}).
    """
    single, double = harmonic
    total = blocks.total.astype(np.int64)
    means = _ratio(blocks.risk_tenths, blocks.sizes, otherwise=0.0)
    spans = np.diff(np.take(double, blocks.ends.astype(np.int64)), axis=1)
    risk_sum = blocks.risk_tenths.sum(axis=1)
    curve_sum = risk_sum * single[total] - np.einsum("rb,rb->r", means, spans)
    first = means[np.arange(len(means)), np.argmax(blocks.sizes > 0, axis=1)]
    last = risk_sum / blocks.total
    area = (curve_sum - 0.5 * (first + last)) / (10.0 * blocks.total)
    return np.where(total > 1, area, math.nan)


def _augrc(blocks: _Blocks) -> Floats:
    """Compute AUGRC: a block's risk counts from its middle to full coverage."""
    beyond = blocks.total[:, None] - blocks.middles
    return np.einsum("rb,rb->r", blocks.risk_tenths, beyond) / (10.0 * blocks.total**2)


def _auroc(blocks: _Blocks) -> Floats:
    """Compute AUROC from the positions of right answers, less their pairs among themselves."""
    right = blocks.positives()
    rights = right.sum(axis=1)
    below = np.einsum("rb,rb->r", right, blocks.total[:, None] - blocks.middles)
    return _ratio(below - 0.5 * rights**2, rights * (blocks.total - rights))


def _coverage_at_risk(blocks: _Blocks, risk: float) -> Floats:
    within = blocks.risks <= risk
    last = within.shape[1] - 1 - np.argmax(within[:, ::-1], axis=1)
    rows = np.arange(len(within))
    return np.where(within[rows, last], blocks.ends[rows, last + 1] / blocks.total, 0.0)


def _ece_mass(blocks: _Blocks) -> Floats:
    rows = zip(blocks.total, blocks.ends, blocks.gap_sums(), strict=True)
    at_edges = np.stack([np.interp(mass_edges(int(total)), ends, gaps) for total, ends, gaps in rows])
    return np.abs(np.diff(at_edges, axis=1)).sum(axis=1) / blocks.total


def _undefined(blocks: _Blocks) -> Floats:
    return np.full(blocks.total.size, math.nan)


def _answered(confidence: Floats, threshold: float | None) -> Floats:
    if threshold is None:
        return np.zeros(confidence.size)
    return (confidence >= threshold).astype(np.float64)
