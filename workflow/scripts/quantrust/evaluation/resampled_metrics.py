"""Metrics on many resamples of one ranking at once: by the order of its answers, or from sums over them."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantrust.evaluation.metrics import CORRECT, Floats, Ranking, mass_edges

Counts = NDArray[np.int32]
Harmonic = tuple[Floats, Floats]


class Blocks:
    """Weighted sums over the blocks of equal confidences of a ranking, shape (resamples, blocks).

    Parameters
    ----------
    ranking : Ranking
    weights : ndarray of int32, shape (resamples, n)
        How often each answer counts, in the order of the ranking. Whole numbers add up in an eighth of the time.
    harmonic : tuple of ndarray
        From `harmonic_sums`, up to at least the most answers of a resample.
    ideal_aurc : callable
        Returns the AURC of the ideal order on each resample, shape (resamples,).
    """

    def __init__(
        self, ranking: Ranking, weights: Counts, harmonic: Harmonic, ideal_aurc: Callable[[], Floats] | None = None
    ):
        self._ranking = ranking
        self._weights = weights
        self._harmonic = harmonic
        self._ideal_aurc = ideal_aurc
        self.sizes = self.sums()
        self.risk_tenths = self.sums(ranking.risk_tenths)
        self.ends = cumulated(self.sizes)
        self.total = self.ends[:, -1].astype(np.float64)

    def sums(self, values: NDArray[Any] | None = None) -> NDArray[Any]:
        """Sum the weights, times `values` where given, over each block."""
        ranking = self._ranking
        weighted = self._weights if values is None else self._weights * values
        if ranking.ends.size == ranking.n:
            return weighted
        return np.add.reduceat(weighted, ranking.ends - ranking.sizes, axis=1)

    @cached_property
    def risk_tenth_sums(self) -> NDArray[Any]:
        """Sum of 10 r_i up to the end of each block, with a leading 0, shape (resamples, blocks + 1)."""
        return cumulated(self.risk_tenths)

    @cached_property
    def aurc(self) -> Floats:
        """AURC of each resample, shape (resamples,)."""
        return aurc(self, self._harmonic)

    @property
    def ideal_aurc(self) -> Floats:
        """AURC of the ideal order on each resample, shape (resamples,)."""
        if self._ideal_aurc is None:
            raise TypeError("these blocks were made without the ideal order")
        return self._ideal_aurc()

    @cached_property
    def middles(self) -> Floats:
        """Number of answers up to the middle of each block, shape (resamples, blocks)."""
        return self.ends[:, 1:] - 0.5 * self.sizes

    @cached_property
    def risks(self) -> Floats:
        """Risk up to the end of each block; NaN before the first drawn answer, shape (resamples, blocks)."""
        counts = 10.0 * self.ends[:, 1:]
        # 0 / 0 before the first drawn answer is the NaN that is wanted; masked division takes several times as long.
        with np.errstate(invalid="ignore"):
            return np.divide(self.risk_tenth_sums[:, 1:], counts, out=counts)

    def positives(self) -> Floats:
        """Return the number of right answers in each block."""
        return self.sums((self._ranking.quality >= CORRECT).astype(np.float64))

    def gap_sums(self) -> Floats:
        """Return the sum of c_i - a_i up to the end of each block, with a leading 0."""
        return cumulated(self.sums(self._ranking.confidence - self._ranking.quality))


def cumulated(sums: NDArray[Any]) -> NDArray[Any]:
    """Cumulate along the second axis, with a leading 0, in the same dtype."""
    result = np.empty((sums.shape[0], sums.shape[1] + 1), sums.dtype)
    result[:, 0] = 0
    np.cumsum(sums, axis=1, dtype=sums.dtype, out=result[:, 1:])
    return result


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide where the denominator is positive; elsewhere return NaN."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, math.nan), where=denominator > 0)


def harmonic_sums(largest: int) -> Harmonic:
    """Return H_k = 1 + 1/2 + .. + 1/k and H_0 + .. + H_{k-1}, each for k from 0 to `largest`."""
    harmonic = np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, largest + 1))))
    return harmonic, np.concatenate(([0.0], np.cumsum(harmonic[:-1])))


def aurc(blocks: Blocks, harmonic: Harmonic) -> Floats:
    """Compute AURC without visiting the answers inside a block.

    The risk r at position j enters the running means at positions j to n with weight 1/k each, H_n - H_{j-1} in all.
    Summed over the positions j of a block this is (its size) * H_n - (H_{start} + .. + H_{end - 1}).
    """
    single, double = harmonic
    total = blocks.total.astype(np.int64)
    # The risk of a block of which nothing was drawn is 0, whatever it is divided by.
    means = blocks.risk_tenths / np.maximum(blocks.sizes, 1)
    spans = np.diff(np.take(double, blocks.ends), axis=1)
    risk_sum = blocks.risk_tenths.sum(axis=1, dtype=np.float64)
    curve_sum = risk_sum * single[total] - np.einsum("rb,rb->r", means, spans)
    first = means[np.arange(len(means)), np.argmax(blocks.sizes > 0, axis=1)]
    last = risk_sum / blocks.total
    area = (curve_sum - 0.5 * (first + last)) / (10.0 * blocks.total)
    return np.where(total > 1, area, math.nan)


def augrc(blocks: Blocks) -> Floats:
    """Compute AUGRC: a block's risk counts from its middle to full coverage."""
    beyond = blocks.total[:, None] - blocks.middles
    return np.einsum("rb,rb->r", blocks.risk_tenths.astype(np.float64), beyond) / (10.0 * blocks.total**2)


def auroc(blocks: Blocks) -> Floats:
    """Compute AUROC from the positions of right answers, less their pairs among themselves."""
    right = blocks.positives()
    rights = right.sum(axis=1)
    below = np.einsum("rb,rb->r", right, blocks.total[:, None] - blocks.middles)
    return ratio(below - 0.5 * rights**2, rights * (blocks.total - rights))


def coverage_at_risk(blocks: Blocks, risk: float) -> Floats:
    """Return the largest coverage whose risk keeps the limit; 0 where there is none."""
    within = blocks.risks <= risk
    last = within.shape[1] - 1 - np.argmax(within[:, ::-1], axis=1)
    rows = np.arange(len(within))
    return np.where(within[rows, last], blocks.ends[rows, last + 1] / blocks.total, 0.0)


def ece_mass(blocks: Blocks) -> Floats:
    """Compute the calibration error in bins of equal mass from the gaps cumulated up to their edges."""
    rows = zip(blocks.total, blocks.ends, blocks.gap_sums(), strict=True)
    at_edges = np.stack([np.interp(mass_edges(int(total)), ends, gaps) for total, ends, gaps in rows])
    return np.abs(np.diff(at_edges, axis=1)).sum(axis=1) / blocks.total


def answered(confidence: Floats, threshold: float | None) -> Floats:
    """Return 1 for each answer that a threshold lets through, and 0 for the others; None lets none through."""
    if threshold is None:
        return np.zeros(confidence.size)
    return (confidence >= threshold).astype(np.float64)
