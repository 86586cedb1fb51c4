"""Reliability metrics of one set of answers, each a pure function of answers ranked by confidence once.

Throughout, a_i in [0, 1] is the quality of answer i (its soft accuracy in visual question answering), r_i = 1 - a_i its
risk and c_i its confidence. Sums run over 10 a_i, which is an integer where qualities are tenths, as soft accuracies of
ten references and exact matches are: cumulative sums are then exact, so that a risk that equals its limit, or two
thresholds of equal worth, are recognised as such. Sums of other qualities are those of floating-point numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BINS = 15
"""Bins of both calibration errors."""

CORRECT = 0.5
"""The quality from which on an answer counts as right where a metric needs two classes."""


@dataclass(frozen=True)
class Ranking:
    """Answers by descending confidence; build it with `rank`.

    Attributes
    ----------
    order : ndarray of int64, shape (n,)
        The rows as they were given, most confident first.
    quality, confidence : ndarray of float64, shape (n,)
        Qualities and confidences in that order.
    ends : ndarray of int64, shape (blocks,)
        For each block of equal confidences, how many answers lie in it and the blocks before it. The last is n.
    corpus : mapping of str to ndarray of float64, shape (n,)
        What each answer adds to the metrics of all answers together that its task has, by their names, in that order;
        NaN for an answer whose task has no such metric.
    """

    order: NDArray[np.int64]
    quality: Floats
    confidence: Floats
    ends: NDArray[np.int64]
    corpus: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of answers."""
        return self.quality.size

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of answers in each block, shape (blocks,)."""
        return np.diff(self.ends, prepend=0)

    @cached_property
    def end_tenths(self) -> Floats:
        """Sum of 10 a_i up to the end of each block, shape (blocks,)."""
        return self.end_sums(10.0 * self.quality)

    @cached_property
    def risk_tenths(self) -> Floats | NDArray[np.int32]:
        """10 r_i of each answer, shape (n,), float64, or int32 where all are whole numbers."""
        tenths = 10.0 - 10.0 * self.quality
        whole = tenths.astype(np.int32)
        return whole if np.array_equal(whole, tenths) else tenths

    @cached_property
    def end_risks(self) -> Floats:
        """Mean risk of the answers up to the end of each block, shape (blocks,)."""
        return (10.0 * self.ends - self.end_tenths) / (10.0 * self.ends)

    @cached_property
    def thresholds(self) -> Floats:
        """Confidence of each block, shape (blocks,)."""
        return self.confidence[self.ends - 1]

    @property
    def is_probability(self) -> bool:
        """Whether all confidences lie in [0, 1]."""
        return bool(self.confidence[0] <= 1.0 and self.confidence[-1] >= 0.0)

    def end_sums(self, values: Floats) -> Floats:
        """Sum `values`, shape (n,) in rank order, up to the end of each block."""
        sums = np.cumsum(values, dtype=np.float64)
        return sums if self.ends.size == self.n else sums[self.ends - 1]

    def spread(self, sums: Floats) -> Floats:
        """Turn sums up to block ends into sums up to each answer, each counting as its block's mean, shape (n,)."""
        if self.ends.size == self.n:
            return sums
        means = np.diff(sums, prepend=0.0) / self.sizes
        steps_to_end = np.repeat(self.ends, self.sizes) - np.arange(1, self.n + 1)
        return np.repeat(sums, self.sizes) - steps_to_end * np.repeat(means, self.sizes)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it leads to: answer where confidence >= threshold, abstain elsewhere.

    Attributes
    ----------
    threshold : float or None
        None abstains on everything.
    coverage : float
        Share of questions answered.
    risk : float
        Mean risk of the answered; NaN where none is.
    """

    threshold: float | None
    coverage: float
    risk: float


def rank(
    quality: ArrayLike | pl.Series,
    confidence: ArrayLike | pl.Series,
    corpus: Mapping[str, ArrayLike | pl.Series] = MappingProxyType({}),
) -> Ranking:
    """Sort answers by confidence, once for all metrics, in O(n log n).

    Parameters
    ----------
    quality : array_like, shape (n,)
        Qualities in [0, 1].
    confidence : array_like, shape (n,)
        Finite confidences of any range; higher is surer.
    corpus : mapping of str to array_like, shape (n,)
        What each answer adds to metrics of all answers together.

    Returns
    -------
    Ranking

    Raises
    ------
    ValueError
        If the two differ in shape, are empty or not one-dimensional, a quality lies outside [0, 1] or a confidence is
        not finite.

    Examples
    --------
    >>> ranking = rank([1.0, 0.0, 1.0], [0.2, 0.9, 0.9])
    >>> ranking.ends.tolist(), ranking.thresholds.tolist()
    ([2, 3], [0.9, 0.2])
    """
    a = np.asarray(quality, dtype=np.float64)
    c = np.asarray(confidence, dtype=np.float64)
    if a.ndim != 1 or a.shape != c.shape:
        raise ValueError(f"quality and confidence must be vectors of one length, got shapes {a.shape} and {c.shape}")
    if a.size == 0:
        raise ValueError("no answers: every metric needs at least one")
    if not (a.min() >= 0.0 and a.max() <= 1.0):
        raise ValueError("qualities must lie in [0, 1]")
    if not np.isfinite(c).all():
        raise ValueError("confidences must be finite")
    order = np.argsort(c)[::-1]
    a, c = a[order], c[order]
    ends = np.append(np.flatnonzero(c[1:] != c[:-1]) + 1, c.size)
    added = {name: np.asarray(values, dtype=np.float64)[order] for name, values in corpus.items()}
    return Ranking(order=order, quality=a, confidence=c, ends=ends, corpus=added)


def corpus_mean(ranking: Ranking, name: str) -> float:
    """Return a metric of all answers together that is the mean of what each adds to it.

    Parameters
    ----------
    ranking : Ranking
        With this metric in `corpus`.
    name : str

    Returns
    -------
    float
        NaN where the task of an answer has no such metric.

    Examples
    --------
    >>> corpus_mean(rank([1.0, 0.0], [0.9, 0.1], {"cider_d": [2.0, 1.0]}), "cider_d")
    1.5
    """
    return math.fsum(ranking.corpus[name]) / ranking.n


def mean_of_given(ranking: Ranking, name: str) -> float:
    """Return the mean of what answers add to a metric, over those that add anything.

    Parameters
    ----------
    ranking : Ranking
        With this metric in `corpus`.
    name : str

    Returns
    -------
    float
        NaN where there is no such answer.

    Examples
    --------
    >>> mean_of_given(rank([1.0, 0.0, 1.0], [0.9, 0.1, 0.2], {"hit": [1.0, 0.0, math.nan]}), "hit")
    0.5
    """
    given = ranking.corpus[name][~np.isnan(ranking.corpus[name])]
    return math.fsum(given) / given.size if given.size else math.nan


def mean_accuracy(ranking: Ranking) -> float:
    """Return the mean quality.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1].

    Notes
    -----
    The accuracy of VQA: Antol et al., "VQA: Visual Question Answering" (ICCV 2015), as its official evaluator averages
    it over the references (Goyal et al., "Making the V in VQA Matter", CVPR 2017).

    Examples
    --------
    >>> mean_accuracy(rank([1.0, 0.3, 0.6, 0.9, 0.0], [0.9, 0.8, 0.7, 0.6, 0.5]))
    0.56
    """
    return float(ranking.end_tenths[-1] / (10 * ranking.n))


def risk_coverage_curve(ranking: Ranking) -> tuple[Floats, Floats]:
    """Return the risk-coverage curve: at k answers coverage k/n and risk the mean of the first k risks.

    Within a block of equal confidences each risk counts as the block's mean, so that the order of rows does not matter.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    coverage, risk : ndarray of float64, shape (n,)
        Both in [0, 1], coverage ascending.

    Notes
    -----
    El-Yaniv and Wiener, "On the foundations of noise-free selective classification" (JMLR 2010).

    Examples
    --------
    >>> coverage, risk = risk_coverage_curve(rank([1.0, 0.0], [0.9, 0.1]))
    >>> coverage.tolist(), risk.tolist()
    ([0.5, 1.0], [0.0, 0.5])
    """
    counts = np.arange(1, ranking.n + 1, dtype=np.float64)
    return counts / ranking.n, _risks(ranking, counts)


def aurc(ranking: Ranking) -> float:
    """Return the area under the risk-coverage curve: trapezoid over its n points.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1]; NaN for a single answer, whose curve is a point.

    Notes
    -----
    Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers" (ICLR 2019). The
    points span coverages from 1/n to 1; some libraries divide by that width.

    Examples
    --------
    >>> round(aurc(rank([1.0, 0.0], [0.9, 0.1])), 4)
    0.125
    """
    n = ranking.n
    if n == 1:
        return math.nan
    risks = _risks(ranking, np.arange(1, n + 1, dtype=np.float64))
    return float((risks.sum() - 0.5 * (risks[0] + risks[-1])) / n)


def e_aurc(ranking: Ranking) -> float:
    """Return the excess AURC: `aurc` minus that of the ideal order, which puts the better answers first.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1]; NaN for a single answer.

    Notes
    -----
    Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers" (ICLR 2019). The
    ideal order is that of the qualities themselves.

    Examples
    --------
    >>> e_aurc(rank([1.0, 0.0], [0.1, 0.9]))
    0.25
    """
    return aurc(ranking) - aurc(rank(ranking.quality, ranking.quality))


def augrc(ranking: Ranking) -> float:
    """Return the area under the generalised risk against coverage.

    The generalised risk at k answers is the sum of their risks over all n questions; it starts at 0 where nothing is
    answered, and the area runs from there to coverage 1.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1/2].

    Notes
    -----
    Traub et al., "Overcoming Common Flaws in the Evaluation of Selective Classification Systems" (NeurIPS 2024). For
    binary risks it equals (1 - AUROC) * acc * (1 - acc) + (1 - acc)^2 / 2.

    Examples
    --------
    >>> augrc(rank([1.0, 0.0], [0.9, 0.1]))
    0.125
    """
    n = ranking.n
    risk_tenths = 10.0 * ranking.ends - ranking.end_tenths
    starts = np.concatenate(([0.0], risk_tenths[:-1]))
    return float(np.dot(ranking.sizes, starts + risk_tenths) / (20.0 * n * n))


def coverage_at_risk(ranking: Ranking, risk: float) -> OperatingPoint:
    """Return C@R: the largest coverage whose risk is at most `risk`, and its threshold.

    A block of equal confidences is answered as a whole or not at all. The threshold is read off these very labels: to
    see how it does on other answers, apply `at_threshold` to them.

    Parameters
    ----------
    ranking : Ranking
    risk : float
        The limit R, in [0, 1].

    Returns
    -------
    OperatingPoint
        Coverage 0 and threshold None where no threshold keeps the limit.

    Raises
    ------
    ValueError
        If the limit is outside [0, 1] or NaN.

    Notes
    -----
    Whitehead et al., "Reliable Visual Question Answering: Abstain Rather Than Answer Incorrectly" (ECCV 2022),
    section 3.

    Examples
    --------
    >>> coverage_at_risk(rank([1.0, 1.0, 0.0], [0.9, 0.8, 0.7]), 0.1)
    OperatingPoint(threshold=0.8, coverage=0.6666666666666666, risk=0.0)
    """
    if not 0.0 <= risk <= 1.0:
        raise ValueError(f"a risk limit must lie in [0, 1], got {risk}")
    within = np.flatnonzero(ranking.end_risks <= risk)
    if within.size == 0:
        return OperatingPoint(threshold=None, coverage=0.0, risk=math.nan)
    block = within[-1]
    return OperatingPoint(
        threshold=float(ranking.thresholds[block]),
        coverage=float(ranking.ends[block] / ranking.n),
        risk=float(ranking.end_risks[block]),
    )


def at_threshold(ranking: Ranking, threshold: float | None) -> OperatingPoint:
    """Return coverage and risk under a threshold that was fixed elsewhere.

    Parameters
    ----------
    ranking : Ranking
    threshold : float or None
        Answer where confidence >= threshold; None abstains on everything.

    Returns
    -------
    OperatingPoint
        Risk is NaN where nothing is answered.

    Raises
    ------
    ValueError
        If the threshold is NaN.

    Notes
    -----
    The selective model of El-Yaniv and Wiener (JMLR 2010) with a threshold as its selection function.

    Examples
    --------
    >>> at_threshold(rank([1.0, 0.0, 0.0], [0.9, 0.8, 0.7]), 0.8)
    OperatingPoint(threshold=0.8, coverage=0.6666666666666666, risk=0.5)
    """
    block = _last_block(ranking, threshold)
    if block < 0:
        return OperatingPoint(threshold=threshold, coverage=0.0, risk=math.nan)
    return OperatingPoint(
        threshold=threshold,
        coverage=float(ranking.ends[block] / ranking.n),
        risk=float(ranking.end_risks[block]),
    )


def effective_reliability(ranking: Ranking, cost: float, threshold: float | None) -> float:
    """Return the effective reliability Phi_c under a threshold.

    The mean over all questions of 0 if abstained, a_i if answered and a_i > 0, -cost if answered and a_i = 0.

    Parameters
    ----------
    ranking : Ranking
    cost : float
        The cost c of an answer without any merit, finite and at least 0.
    threshold : float or None
        As in `at_threshold`.

    Returns
    -------
    float
        In [-cost, 1].

    Raises
    ------
    ValueError
        If the cost is negative or not finite, or the threshold is NaN.

    Notes
    -----
    Whitehead et al., "Reliable Visual Question Answering: Abstain Rather Than Answer Incorrectly" (ECCV 2022),
    section 3.

    Examples
    --------
    >>> effective_reliability(rank([1.0, 0.0, 0.6], [0.9, 0.8, 0.7]), cost=10, threshold=0.9)
    0.3333333333333333
    """
    _check_cost(cost)
    block = _last_block(ranking, threshold)
    if block < 0:
        return 0.0
    return float(gain_tenths(ranking.quality[: ranking.ends[block]], cost).sum() / (10 * ranking.n))


def effective_reliability_threshold(ranking: Ranking, cost: float) -> float | None:
    """Return the threshold that maximises Phi_c on these answers; among equals, the lowest.

    Candidates are the ends of blocks of equal confidences, and abstaining on everything.

    Parameters
    ----------
    ranking : Ranking
        The answers to choose the threshold on (val), not those to report.
    cost : float
        The cost c, finite and at least 0.

    Returns
    -------
    float or None
        None where abstaining on everything beats every threshold.

    Raises
    ------
    ValueError
        If the cost is negative or not finite.

    Notes
    -----
    Whitehead et al. (ECCV 2022), section 3: the threshold is chosen on val for each cost.

    Examples
    --------
    >>> effective_reliability_threshold(rank([1.0, 0.0, 1.0], [0.9, 0.8, 0.7]), cost=1)
    0.7
    >>> effective_reliability_threshold(rank([0.0, 1.0], [0.9, 0.8]), cost=10) is None
    True
    """
    _check_cost(cost)
    worth = ranking.end_sums(gain_tenths(ranking.quality, cost))
    block = worth.size - 1 - int(np.argmax(worth[::-1]))
    return float(ranking.thresholds[block]) if worth[block] >= 0.0 else None


def effective_reliability_no_abstention(ranking: Ranking, cost: float) -> float:
    """Return Phi_c when every question is answered.

    Parameters
    ----------
    ranking : Ranking
    cost : float
        The cost c, finite and at least 0.

    Returns
    -------
    float
        In [-cost, 1].

    Raises
    ------
    ValueError
        If the cost is negative or not finite.

    Notes
    -----
    Whitehead et al. (ECCV 2022), section 3, with a selection function that always answers.

    Examples
    --------
    >>> effective_reliability_no_abstention(rank([1.0, 0.0, 0.6], [0.9, 0.8, 0.7]), cost=10)
    -2.8
    """
    _check_cost(cost)
    return float(gain_tenths(ranking.quality, cost).sum() / (10 * ranking.n))


def effective_reliability_best(ranking: Ranking) -> float:
    """Return the best possible Phi_c: answer exactly where a_i > 0, at no cost.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1].

    Notes
    -----
    Whitehead et al. (ECCV 2022), section 3: the value of a perfect selection function, whatever the cost.

    Examples
    --------
    >>> effective_reliability_best(rank([1.0, 0.0, 0.5], [0.9, 0.8, 0.7]))
    0.5
    """
    return mean_accuracy(ranking)


def ece(ranking: Ranking) -> float:
    """Return the expected calibration error on quality with 15 bins of equal width.

    The sum over bins of |sum of (c_i - a_i)| over n. Bins are open to the left and closed to the right, the first also
    to the left.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1]; NaN if a confidence lies outside [0, 1] and thus is not a probability.

    Notes
    -----
    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), with quality for correctness.

    Examples
    --------
    >>> round(ece(rank([1.0, 0.0], [0.9, 0.1])), 4)
    0.1
    """
    if not ranking.is_probability:
        return math.nan
    gaps = np.bincount(width_bins(ranking.confidence), ranking.confidence - ranking.quality, minlength=BINS)
    return float(np.abs(gaps).sum() / ranking.n)


def width_bins(confidence: Floats) -> NDArray[np.int64]:
    """Return the equal-width bin, 0 to 14, of each confidence in [0, 1]."""
    # Division of integers, unlike linspace, gives the very float that a decimal edge such as 0.6 parses to.
    return np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")


def ece_mass(ranking: Ranking) -> float:
    """Return the expected calibration error on quality with 15 bins of equal mass.

    Answers are divided by ascending confidence into 15 bins whose sizes differ by one at most, the larger first. Each
    answer counts as the mean of its block of equal confidences, so that the order of rows does not matter where an
    edge falls inside a block. With fewer than 15 answers each is a bin.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1]; NaN where a confidence lies outside [0, 1].

    Notes
    -----
    Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language processing models" (EMNLP
    2015), with quality for correctness.

    Examples
    --------
    >>> round(ece_mass(rank([1.0, 0.0], [0.9, 0.3])), 4)
    0.2
    """
    if not ranking.is_probability:
        return math.nan
    sums = ranking.end_sums(ranking.confidence - ranking.quality)
    at_edges = np.interp(mass_edges(ranking.n), np.append(0, ranking.ends), np.append(0.0, sums))
    return float(np.abs(np.diff(at_edges)).sum() / ranking.n)


def mass_edges(n: int) -> NDArray[np.int64]:
    """Return how many of the most confident of n answers lie beyond each edge of the equal-mass bins, shape (16,)."""
    size, larger = divmod(n, BINS)
    bins = np.arange(BINS + 1)
    return n - (bins * size + np.minimum(bins, larger))


def brier(ranking: Ranking) -> float:
    """Return the Brier score on quality: the mean of (c_i - a_i)^2.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1]; NaN where a confidence lies outside [0, 1].

    Notes
    -----
    Brier, "Verification of forecasts expressed in terms of probability" (Monthly Weather Review 1950).

    Examples
    --------
    >>> round(brier(rank([1.0, 0.0], [0.9, 0.2])), 4)
    0.025
    """
    if not ranking.is_probability:
        return math.nan
    gaps = ranking.confidence - ranking.quality
    return float(np.dot(gaps, gaps) / ranking.n)


def auroc(ranking: Ranking) -> float:
    """Return the area under the ROC curve of confidence as a score for a_i >= 0.5; ties count one half.

    Parameters
    ----------
    ranking : Ranking

    Returns
    -------
    float
        In [0, 1]; NaN where all answers are right or all are wrong.

    Notes
    -----
    The chance that a right answer is surer than a wrong one: Hanley and McNeil, "The meaning and use of the area under
    a receiver operating characteristic (ROC) curve" (Radiology 1982).

    Examples
    --------
    >>> auroc(rank([1.0, 0.3, 0.6], [0.9, 0.8, 0.7]))
    0.5
    """
    right = np.diff(ranking.end_sums((ranking.quality >= CORRECT).astype(np.float64)), prepend=0.0)
    wrong = ranking.sizes - right
    if not (right.any() and wrong.any()):
        return math.nan
    wrong_below = wrong.sum() - np.cumsum(wrong)
    return float(np.dot(right, wrong_below + 0.5 * wrong) / (right.sum() * wrong.sum()))


def gain_tenths(quality: Floats, cost: float) -> Floats:
    """Return ten times what each answer adds to Phi_c when it is given: 10 a_i, or -10 cost where a_i = 0."""
    return np.where(quality > 0.0, 10.0 * quality, -10.0 * cost)


def _check_cost(cost: float) -> None:
    if not 0.0 <= cost < math.inf:
        raise ValueError(f"a cost must be finite and at least 0, got {cost}")


def _risks(ranking: Ranking, counts: Floats) -> Floats:
    tens = 10.0 * counts
    risks: Floats = (tens - ranking.spread(ranking.end_tenths)) / tens
    return risks


def _last_block(ranking: Ranking, threshold: float | None) -> int:
    """Return the last block that a threshold answers, -1 if none."""
    if threshold is None:
        return -1
    if math.isnan(threshold):
        raise ValueError("a threshold must be a number or None, got nan")
    ascending = ranking.thresholds[::-1]
    return ascending.size - 1 - int(np.searchsorted(ascending, threshold, side="left"))
