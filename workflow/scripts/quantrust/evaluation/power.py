"""How many images settle a difference between two variants, or certify a risk limit, judged from a pilot.

**A difference.** Two variants answer the same questions, and D is the difference of a metric between them. Answers that
share an image are not independent, but images are, so that D of N images has a variance of V / N, where V is the mean
square of the images' influence on D (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 21.3; this
holds for accuracy and AURC, which are smooth functions of the mean over images, and approximately for C@R). A paired
bootstrap of the n images of the pilot gives the standard error s at n, and so s sqrt(n / N) at N. A two-sided test at
level alpha, such as whether the interval of `quantrust compare` leaves 0 out, finds a true difference d with a power of

    Phi(|d| / s_N - z) + Phi(-|d| / s_N - z),   z = Phi^-1(1 - alpha / 2),   s_N = s sqrt(n / N)

(Chow, Shao and Wang, "Sample Size Calculations in Clinical Research", 2nd edition 2008, section 3.1, for the mean of
paired differences). The errors of AURC are skewed, and the percentile interval is skewed with them. With a skewness g
in the direction of d, which falls with 1 / sqrt(N) as well, the quantile z against it is z - (z^2 - 1) g / 6, and the
distribution Phi(t) - (t^2 - 1) phi(t) g / 6 takes the place of Phi(t) (the first terms of Cornish and Fisher's and
Edgeworth's expansions: Hall, "The Bootstrap and Edgeworth Expansion", 1992, sections 2.3 and 2.5). N is found by
bisection.

With one table alone, V of the difference is 2 (1 - rho) times that of the one metric, where rho is an *assumed*
correlation of the two variants' metrics over resamples of images. At 0 the answers are as if about different images.

**What the pilot does not know.** s is an estimate. The covariance of D with the number of times that an image is drawn
is the image's influence over n (infinitesimal jackknife: Efron, "Estimation and accuracy after model selection",
Journal of the American Statistical Association 2014, theorem 1). V is the mean of the squared influences psi_i, so that
its relative variance is (mean psi^4 / (mean psi^2)^2 - 1) / n, of which finite resamples add a known part that is taken
off; log s has a quarter of it, e^2. Intervals of power and N use this as a normal error of log s.

The mean of what pilots say is kept right as well. As s^2 is right on average and log s nearly normal, 1 / s is too
large by exp(1.5 e^2) on average, which is taken off the effect x = |d| / s_N. What remains is x with an error of
t = e x, and the mean of Phi((x - z) c) over such x is Phi((x - z) c / sqrt(1 + c^2 t^2)): it is right for
c = 1 / sqrt(1 - t^2).

**A certificate.** The power is the probability that `quantrust certify` finds a threshold for a risk limit on N fresh
images, a part of which fixes the order of thresholds. It is simulated: images of the pilot are drawn with replacement,
as many as there are to be, with one question of each. A pilot is not the population, and taking it for that is biased:
its few errors enter the probability in a curve, and the best threshold of a pilot looks better than it is. Halves of
the pilot, drawn without replacement, tell how far (the delete-half jackknife: Shao and Wu, "A General Theory for
Jackknife Variance Estimation", Annals of Statistics 1989). Their spread is an estimate of the pilot's own. What their
mean has more than the whole is an estimate of the bias, as a bias in proportion to 1 / n doubles with half the images.
At a high power the bias is smaller than that, and the stated power then too low.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from quantrust.evaluation.certification import candidate_thresholds, certify
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.metrics import Floats, rank
from quantrust.evaluation.resampling import ImageDraws

ORDER_SHARE = 0.2
"""Share of the images that fix the order of thresholds, where no other answers are there for it."""
SIMULATIONS = 400
"""Simulated certifications for each number of images."""
HALVES, SIMULATIONS_OF_HALF = 30, 100
"""Halves drawn from the pilot, and simulated certifications for each of them."""
ROWS = 64
MOST_IMAGES, BISECTIONS = 1e15, 100
MOST_ERROR = 0.9
"""Of a squared effect's own error: beyond, a pilot says nothing of it."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class StandardError:
    """The standard error of a difference at the size of the pilot.

    Attributes
    ----------
    error : float
        At `images` images.
    relative : float
        Standard error of its logarithm: how far the pilot's own luck moves it.
    images : int
        Of the pilot.
    skewness : float
        Of the difference at `images` images.
    """

    error: float
    relative: float
    images: int
    skewness: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float


SKEWED = ("aurc",)
"""Metrics whose errors have a skewness that is worth the error of estimating it."""


def standard_error(differences: Floats, draws: ImageDraws, metric: str) -> StandardError:
    """Return the standard error of a difference from its resamples.

    Parameters
    ----------
    differences : ndarray of float64, shape (resamples,)
        NaN where undefined on a resample; these are left out.
    draws : ImageDraws
        The resamples of images.
    metric : str
        Of `SKEWED`, the skewness is taken into account.
    """
    defined = ~np.isnan(differences)
    values, counts = differences[defined], draws.counts[defined]
    resamples, images = counts.shape
    if resamples < 2:
        return StandardError(math.nan, math.nan, images)
    error = float(values.std(ddof=1))
    centred = values - values.mean()
    # In parts, because the counts become floats.
    parts = [centred[row : row + ROWS] @ counts[row : row + ROWS] for row in range(0, resamples, ROWS)]
    influences = images * np.sum(parts, axis=0) / resamples
    noise = images**2 * error**2 / resamples
    # Of a sum of an influence and a normal error, the variance of the square less what the error adds to it.
    mean_square = images * error**2
    spread = float(np.var(influences**2)) - 4.0 * mean_square * noise - 2.0 * noise**2
    if mean_square == 0.0:
        return StandardError(0.0, 0.0, images)
    relative = 0.5 * math.sqrt(max(spread, 0.0) / images) / mean_square
    skewness = float(np.mean(centred**3)) / error**3 if metric in SKEWED else 0.0
    return StandardError(error, relative, images, skewness)


def unpaired_error(one: StandardError, correlation: float) -> StandardError:
    """Return the standard error of a difference between two variants of equal errors and an assumed correlation.

    Parameters
    ----------
    one : StandardError
        Of the metric of one variant.
    correlation : float
        Of the two variants' metrics over resamples of images, in [-1, 1).
    """
    return StandardError(one.error * math.sqrt(2.0 * (1.0 - correlation)), one.relative, one.images)


def power_of_difference(difference: float, at: StandardError, images: float, alpha: float) -> Estimate:
    """Return the power of a two-sided test to find a difference, with the interval that the pilot's size leaves.

    Parameters
    ----------
    difference : float
        The true difference, with its sign.
    at : StandardError
    images : float
        To be drawn.
    alpha : float
        Level of the test, in (0, 1).

    Examples
    --------
    >>> found = power_of_difference(0.028, StandardError(0.01, 0.0, 100), 100, 0.05)
    >>> round(found.value, 2)
    0.8
    """

    if at.error == 0.0:
        return Estimate(1.0, 1.0, 1.0)
    limit = _NORMAL.inv_cdf(1.0 - alpha / 2.0)
    effect = abs(difference) / (at.error * math.sqrt(at.images / images))
    sixth = math.copysign(1.0, difference) * at.skewness * math.sqrt(at.images / images) / 6.0

    def power(effect: float, sharpened: float = 1.0) -> float:
        beyond = limit - (limit**2 - 1.0) * sixth - effect
        found = _NORMAL.cdf(-beyond * sharpened) + sixth * (beyond**2 - 1.0) * _NORMAL.pdf(beyond)
        return min(1.0, max(0.0, found + _NORMAL.cdf(-effect - limit)))

    spread = math.exp(_deviations() * at.relative)
    centred = effect * math.exp(-1.5 * at.relative**2)
    sharpened = 1.0 / math.sqrt(1.0 - min(MOST_ERROR, (at.relative * centred) ** 2))
    return Estimate(power(centred, sharpened), power(effect / spread), power(effect * spread))


def images_for_difference(difference: float, at: StandardError, power: float, alpha: float) -> Estimate:
    """Return the number of images with which a two-sided test finds a difference with a given power.

    Parameters
    ----------
    difference : float
        The true difference; not 0.
    at : StandardError
    power, alpha : float
        In (0, 1).

    Examples
    --------
    >>> round(images_for_difference(0.028, StandardError(0.01, 0.0, 100), 0.8, 0.05).value)
    100
    """
    if at.error == 0.0:
        return Estimate(1.0, 1.0, 1.0)
    low, high = -math.log(MOST_IMAGES), math.log(MOST_IMAGES)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        reached = power_of_difference(difference, at, math.exp(middle), alpha).value >= power
        low, high = (low, middle) if reached else (middle, high)
    needed = math.exp(high)
    factor = math.exp(2.0 * _deviations() * at.relative)
    return Estimate(needed, needed / factor, needed * factor)


def _deviations() -> float:
    return _NORMAL.inv_cdf((1.0 + LEVEL) / 2.0)


@dataclass(frozen=True)
class Pilot:
    """Answers of a pilot, or of a population.

    Attributes
    ----------
    quality, confidence : ndarray of float64, shape (n,)
    image : ndarray of int64, shape (n,)
        The image of each answer, as an index from 0 on without gaps.
    """

    quality: Floats
    confidence: Floats
    image: NDArray[np.int64]

    @cached_property
    def by_image(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The places of answers by image, where each image's places begin, and how many it has."""
        counts = np.bincount(self.image)
        return np.argsort(self.image, kind="stable"), np.cumsum(counts) - counts, counts

    @property
    def images(self) -> int:
        """Number of images."""
        return self.by_image[1].size

    def draw(self, images: NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return quality and confidence of one answer about each of some images, drawn at random."""
        order, starts, counts = self.by_image
        places = order[starts[images] + rng.integers(counts[images])]
        return self.quality[places], self.confidence[places]


@dataclass(frozen=True)
class Certifying:
    """What is to be certified.

    Attributes
    ----------
    risk, delta : float
        As `quantrust.evaluation.certification.certify` takes them.
    coverage : float
        Share of the pilot's questions that the threshold has to answer, in [0, 1].
    """

    risk: float
    delta: float
    coverage: float = 0.0


def certification_rate(
    pilot: Pilot,
    population: NDArray[np.int64],
    images: int,
    wanted: Certifying,
    simulations: int,
    rng: np.random.Generator,
) -> float:
    """Return the share of simulated certifications that find a threshold, with images of a pilot for the population.

    Parameters
    ----------
    pilot : Pilot
    population : ndarray of int64, shape (k,)
        The images of the pilot that are drawn from.
    images : int
        To be drawn for one certification; at least 2.
    wanted : Certifying
    simulations : int
    rng : numpy.random.Generator
    """
    ordering = max(1, round(ORDER_SHARE * images))
    # A threshold has to be at most this, so that enough is answered.
    highest = math.inf
    if wanted.coverage > 0.0:
        ranking = rank(pilot.quality, pilot.confidence)
        place = int(np.searchsorted(ranking.ends, wanted.coverage * ranking.n - 1e-9))
        highest = float(ranking.thresholds[min(place, len(ranking.thresholds) - 1)])
    found = 0
    for _ in range(simulations):
        drawn = population[rng.integers(population.size, size=images)]
        quality, confidence = pilot.draw(drawn, rng)
        order = rank(quality[:ordering], confidence[:ordering])
        candidates = candidate_thresholds(order, images - ordering, wanted.risk, wanted.delta)
        if candidates.size:
            threshold = certify(quality[ordering:], confidence[ordering:], candidates, wanted.risk, wanted.delta)
            found += threshold is not None and threshold <= highest
    return found / simulations


def power_of_certification(
    pilot: Pilot,
    images: int,
    wanted: Certifying,
    seed: int,
    progress: Callable[[int], object] = lambda simulations: None,
) -> Estimate:
    """Return the probability that fresh images certify a risk limit, with the interval that the pilot's size leaves.

    Parameters
    ----------
    pilot : Pilot
        Of at least two images.
    images : int
        Fresh images, a part of which fixes the order of thresholds; at least 2.
    wanted : Certifying
    seed : int
    progress : callable
        Called with the number of simulations done since the last call.
    """
    everything = np.arange(pilot.images)
    rng = np.random.default_rng([seed, images, 0])
    whole = certification_rate(pilot, everything, images, wanted, SIMULATIONS, rng)
    progress(SIMULATIONS)
    rates = []
    for number in range(HALVES):
        rng = np.random.default_rng([seed, images, 1, number])
        half = rng.permutation(pilot.images)[: pilot.images // 2]
        rates.append(certification_rate(pilot, half, images, wanted, SIMULATIONS_OF_HALF, rng))
        progress(SIMULATIONS_OF_HALF)
    bias = float(np.mean(rates)) - whole
    value = min(1.0, max(0.0, whole - bias))
    # What the simulations of the halves add to their spread is no spread of pilots; what those of the whole add is.
    chance = float(np.mean([rate * (1.0 - rate) for rate in rates])) / (SIMULATIONS_OF_HALF - 1)
    variance = max(0.0, float(np.var(rates, ddof=1)) - chance)
    variance += 4.0 * whole * (1.0 - whole) / SIMULATIONS
    half_width = _deviations() * math.sqrt(variance)
    return Estimate(value, max(0.0, value - half_width), min(1.0, value + half_width))


def simulations_of(numbers: int) -> int:
    """Return how many simulations `power_of_certification` makes for several numbers of images."""
    return numbers * (SIMULATIONS + HALVES * SIMULATIONS_OF_HALF)


def fewest_images(images: Sequence[int], powers: Sequence[float], wanted: float) -> float | None:
    """Return from how many images on a power is reached, between the numbers that were tried.

    Parameters
    ----------
    images : sequence of int
        Ascending.
    powers : sequence of float
        The power at each; made to grow with the number of images first.
    wanted : float

    Returns
    -------
    float or None
        None where no number that was tried has the power; the first number where it has it already.

    Examples
    --------
    >>> fewest_images([100, 400], [0.6, 1.0], 0.8)
    200.0
    """
    growing = np.maximum.accumulate(powers)
    if growing[-1] < wanted:
        return None
    place = int(np.argmax(growing >= wanted))
    if place == 0:
        return float(images[0])
    below, above = growing[place - 1], growing[place]
    share = (wanted - below) / (above - below)
    logs = np.log([images[place - 1], images[place]])
    return float(round(math.exp(logs[0] + share * (logs[1] - logs[0])), 6))
