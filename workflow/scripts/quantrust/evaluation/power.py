"""How many images settle a difference between two variants, or certify a risk limit, judged from a pilot.

**A difference.** Two variants answer the same questions, and D is the difference of a metric between them. Answers that
share an image are not independent, but images are, so that D of N images has a variance of V / N, where V is the mean
square of the images' influence on D (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 21.3; this
holds for accuracy and AURC, which are smooth functions of the mean over images, and approximately for C@R). A paired
bootstrap of the n images of the pilot gives the standard error s at n, and so s sqrt(n / N) at N. A two-sided test at
level alpha, such as whether the interval of `quantrust compare` leaves 0 out, finds a true difference d with a power of

    Phi(|d| / s_N - z) + Phi(-|d| / s_N - z),   z = Phi^-1(1 - alpha / 2),   s_N = s sqrt(n / N)

(Chow, Shao and Wang, "Sample Size Calculations in Clinical Research", 2nd edition 2008, section 3.1, for the mean of
paired differences). N is found by bisection.

**What the formula leaves out.** Errors of AURC and C@R are skewed, the test's own interval is wider or narrower than
the errors, and it varies with the sample. The formula then errs by some points, most for C@R on few images. So the test
itself is simulated: images of the pilot are drawn with replacement, as many as it has, and resampled as the test would.
The true difference that each such sample would have needed, in standard errors, is

    y = (mean - m + s (z - (z^2 - 1) g / 6)) / (standard error)

for resamples with the mean m, the standard deviation s and the skewness g (the last term is that of Cornish and Fisher:
Hall, "The Bootstrap and Edgeworth Expansion", 1992, section 2.5), where `mean` is that of the samples' own differences.
The share of samples whose y is below |d| / s_n is the power at n images. What it has more than the formula is of the
order of 1 / sqrt(n) (Hall, section 2.3): sqrt(n / N) times as much is added at N images.

A bootstrap overstates the standard error of a metric that is not smooth. What it takes samples of the pilot to have,
against what they have, says by how much: s is divided by sqrt(mean s_k^2) / s, where s_k are those of the samples
(Efron and Tibshirani, section 10.4, the bootstrap's estimate of its own bias).

With one table alone, V of the difference is 2 (1 - rho) times that of the one metric, where rho is an *assumed*
correlation of the two variants' metrics over resamples of images. At 0 the answers are as if about different images.

**What the pilot does not know.** s is an estimate. How much its logarithm varies from pilot to pilot is seen in the
simulated samples: it is the standard deviation of log s among them, less what the few resamples of each add. Without
them, the covariance of D with the number of times that an image is drawn is the image's influence over n (infinitesimal
jackknife: Efron, "Estimation and accuracy after model selection", Journal of the American Statistical Association 2014,
theorem 1). V is the mean of the squared influences psi_i, so that its relative variance is
(mean psi^4 / (mean psi^2)^2 - 1) / n, of which finite resamples add a known part that is taken off; log s has a quarter
of it, e^2. Intervals of power and N use e as the standard deviation of a normal error of log s.

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
mean has more than the whole is a part of the bias. The best of a smooth curve that is seen with the noise of n images
is seen too high by an amount in proportion to n^(-2/3) (the place of the best is off by n^(-1/3): Kim and Pollard,
"Cube Root Asymptotics", Annals of Statistics 1990). Half the images have 2^(2/3) times the bias, so that the bias of
the whole is 1 / (2^(2/3) - 1) = 1.7 times what the halves have more.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from quantrust.evaluation.certification import CANDIDATES, fewest_faultless, hoeffding_bentkus
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.metrics import Floats, Ranking, rank
from quantrust.evaluation.resampling import ImageDraws

ORDER_SHARE = 0.2
"""Share of the images that fix the order of thresholds, where no other answers are there for it."""
SIMULATIONS = 400
"""Simulated certifications for each number of images."""
HALVES, SIMULATIONS_OF_HALF = 30, 40
"""Halves drawn from the pilot, and simulated certifications for each of them."""
BIAS = 1.0 / (2.0 ** (2.0 / 3.0) - 1.0)
"""The bias of the whole pilot, as a multiple of what its halves have more."""
TESTS, RESAMPLES_OF_TEST = 200, 50
"""Simulated samples of a pilot on which the test is tried, and resamples of each."""
MOST_SIMULATED = 2000
"""Images of a pilot up to which the test is simulated: beyond, it is nearly normal, and simulating takes long."""
SMOOTHED = 0.25
MOST_WIDENED = 2.0
"""How many times what the test has more than the formula at the pilot's size is added on fewer images."""
ROWS = 64
DRAWN_AT_ONCE = 1 << 16
"""Answers of simulated samples that are held at once."""
RISK_BISECTIONS = 40
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
    needed : Needed, optional
        What simulated samples of the pilot's size say of the test; without it, the test is taken for a normal one.
    """

    error: float
    relative: float
    images: int
    needed: "Needed | None" = None


@dataclass(frozen=True)
class Needed:
    """The true differences that simulated samples would have needed for the test to find them.

    Attributes
    ----------
    effects : ndarray of float64, shape (samples,)
        In standard errors, in the direction of the difference.
    noise : float
        The part of their variance that comes from the few resamples of each.
    """

    effects: Floats
    noise: float

    def found(self, effect: float, error: float) -> float:
        """Return the share of samples that need less than an effect.

        Parameters
        ----------
        effect : float
        error : float
            Standard deviation of the effect's own error, which is part of neither sample.
        """
        variance = float(self.effects.var())
        wanted = max((1.0 - MOST_ERROR) * variance, variance - self.noise - error**2)
        # A kernel takes the place of a part of the variance, so that few samples make a smooth curve.
        width = math.sqrt(SMOOTHED * wanted)
        centre = float(self.effects.mean())
        drawn_in = centre + math.sqrt((1.0 - SMOOTHED) * wanted / variance) * (self.effects - centre)
        return float(np.mean(ndtr((effect - drawn_in) / width)))


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float


def standard_error(differences: Floats, draws: ImageDraws) -> StandardError:
    """Return the standard error of a difference from its resamples.

    Parameters
    ----------
    differences : ndarray of float64, shape (resamples,)
        NaN where undefined on a resample; these are left out.
    draws : ImageDraws
        The resamples of images.
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
    return StandardError(error, relative, images)


def draw_tests(image: NDArray[np.int64], seed: int | Sequence[int]) -> ImageDraws:
    """Draw samples of a pilot's images, and resamples of each as a test draws them.

    Parameters
    ----------
    image : ndarray of int64, shape (n,)
        The image of each answer, as an index from 0 on without gaps.
    seed : int or sequence of int

    Returns
    -------
    ImageDraws
        For each of `TESTS` samples a row for itself and `RESAMPLES_OF_TEST` rows for its resamples.
    """
    images = int(image.max()) + 1
    rng = np.random.default_rng(seed)
    counts = np.empty((TESTS, 1 + RESAMPLES_OF_TEST, images), dtype=np.int32)
    counts[:, 0] = rng.multinomial(images, np.full(images, 1.0 / images), size=TESTS)
    for sample in counts:
        sample[1:] = rng.multinomial(images, sample[0] / images, size=RESAMPLES_OF_TEST)
    return ImageDraws(image, counts.reshape(-1, images))


def with_tests(at: StandardError, differences: Floats, difference: float, alpha: float) -> StandardError:
    """Return the standard error with what simulated samples say of the test, and of the error's own error.

    Parameters
    ----------
    at : StandardError
    differences : ndarray of float64, shape (TESTS * (1 + RESAMPLES_OF_TEST),)
        On the rows of `draw_tests`. A sample with one that is NaN is left out.
    difference : float
        The true difference, of which the sign counts.
    alpha : float
        Level of the test, in (0, 1).
    """
    rows = math.copysign(1.0, difference) * differences.reshape(TESTS, -1)
    rows = rows[~np.isnan(rows).any(axis=1)]
    resampled = rows[:, 1:]
    spread = resampled.std(axis=1, ddof=1) if len(rows) else np.empty(0)
    rows, resampled, spread = rows[spread > 0.0], resampled[spread > 0.0], spread[spread > 0.0]
    if len(rows) < TESTS // 2 or not at.error > 0.0:
        return at
    limit = _limit(alpha)
    means = resampled.mean(axis=1)
    standardised = (resampled - means[:, None]) / spread[:, None]
    skewness = np.mean(standardised**3, axis=1)
    to_limit = spread * (limit - (limit**2 - 1.0) * skewness / 6.0)
    effects = (rows[:, 0].mean() - means + to_limit) / at.error
    too_wide = float(np.mean(spread**2)) / at.error**2
    noise = (1.0 + limit**2 / 2.0 + (limit**2 - 1.0) ** 2 / 6.0) / RESAMPLES_OF_TEST * too_wide
    kurtosis = float(np.mean(standardised**4))
    chance = max(1.0, kurtosis - 1.0) / (4.0 * RESAMPLES_OF_TEST)
    relative = math.sqrt(max(0.0, float(np.var(np.log(spread), ddof=1)) - chance))
    return StandardError(at.error / math.sqrt(too_wide), relative, at.images, Needed(effects, noise))


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
    limit = _limit(alpha)
    narrower = math.sqrt(at.images / images)
    effect = abs(difference) / (at.error * narrower)

    def power(effect: float, error: float = 0.0) -> float:
        sharpened = 1.0 / math.sqrt(1.0 - min(MOST_ERROR, error**2))
        normal = _NORMAL.cdf((effect - limit) * sharpened)
        found = normal
        if at.needed is not None:
            found += min(MOST_WIDENED, narrower) * (at.needed.found(effect, error) - normal)
        return min(1.0, max(0.0, found + _NORMAL.cdf(-effect - limit)))

    spread = math.exp(_deviations() * at.relative)
    centred = effect * math.exp(-1.5 * at.relative**2)
    return Estimate(power(centred, at.relative * centred), power(effect / spread), power(effect * spread))


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


def _limit(alpha: float) -> float:
    return -_NORMAL.inv_cdf(alpha / 2.0)


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

    @cached_property
    def ranking(self) -> Ranking:
        """All answers by descending confidence."""
        return rank(self.quality, self.confidence)

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """The place of each answer's confidence among all of them, from 0 for the highest on, shape (n,)."""
        blocks = np.empty(self.ranking.n, dtype=np.int64)
        blocks[self.ranking.order] = np.repeat(np.arange(self.ranking.ends.size), self.ranking.sizes)
        return blocks

    def draw(self, images: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the place of one answer about each of some images, drawn at random; of the shape of `images`."""
        order, starts, counts = self.by_image
        return order[starts[images] + rng.integers(counts[images])]


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
    allowed = _most_risk(images - ordering, wanted)
    lowest = 0
    if wanted.coverage > 0.0:
        enough = int(np.searchsorted(pilot.ranking.ends, wanted.coverage * pilot.ranking.n - 1e-9))
        lowest = min(enough, pilot.ranking.ends.size - 1)
    at_once = max(1, DRAWN_AT_ONCE // images)
    found = 0
    for first in range(0, simulations, at_once):
        count = min(at_once, simulations - first)
        drawn = pilot.draw(population[rng.integers(population.size, size=(count, images))], rng)
        blocks, tenths = pilot.blocks[drawn], 10.0 - 10.0 * pilot.quality[drawn]
        candidates, start = _candidates(blocks[:, :ordering], tenths[:, :ordering], images - ordering, wanted)
        threshold = _certified(blocks[:, ordering:], tenths[:, ordering:], candidates, start, allowed)
        found += int(np.count_nonzero(threshold >= lowest))
    return found / simulations


def _candidates(
    blocks: NDArray[np.int64], tenths: Floats, answers: int, wanted: Certifying
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what `candidate_thresholds` returns, of many samples at once.

    Parameters
    ----------
    blocks : ndarray of int64, shape (samples, k)
        Of the answers that fix the order.
    tenths : ndarray of float64, shape (samples, k)
        Ten times their risk.
    answers : int
        Number of certification answers.
    wanted : Certifying

    Returns
    -------
    candidates : ndarray of int64, shape (samples, CANDIDATES)
        Blocks, most confident first; some stand more than once.
    start : ndarray of int64, shape (samples,)
        The first to be tested; `CANDIDATES` where none is.
    """
    count = blocks.shape[1]
    blocks, sums = _ascending(blocks, tenths)
    ends = np.full(blocks.shape, count - 1)
    ends[:, :-1] = np.where(blocks[:, 1:] != blocks[:, :-1], np.arange(count - 1), count - 1)
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    places = np.ceil(np.arange(1, CANDIDATES + 1) / CANDIDATES * count).astype(np.int64) - 1
    ends = ends[:, places]
    expected = (ends + 1) * answers // count
    p_values = np.full(ends.shape, math.inf)
    enough = expected >= fewest_faultless(wanted.risk, wanted.delta)
    risks = np.take_along_axis(sums, ends, axis=1) / (10.0 * (ends + 1))
    p_values[enough] = hoeffding_bentkus(risks[enough], expected[enough], wanted.risk)
    return blocks[:, places], np.where(enough.any(axis=1), np.argmin(p_values, axis=1), CANDIDATES)


def _certified(
    blocks: NDArray[np.int64],
    tenths: Floats,
    candidates: NDArray[np.int64],
    start: NDArray[np.int64],
    allowed: Floats,
) -> NDArray[np.int64]:
    """Walk down the candidates of many samples, and return the last block that is certified, -1 where none is."""
    samples, count = blocks.shape
    blocks, sums = _ascending(blocks, tenths)
    rows = np.arange(samples)[:, None]
    # All rows in one sorted vector, each behind the one before.
    apart = rows * (1 + max(int(blocks.max()), int(candidates.max())))
    kept = np.searchsorted((blocks + apart).ravel(), (candidates + apart).ravel(), side="right")
    kept = kept.reshape(candidates.shape) - rows * count
    risk = np.concatenate([np.zeros((samples, 1)), sums], axis=1)[rows, kept]
    fails = (risk > allowed[kept]) & (np.arange(CANDIDATES) >= start[:, None])
    stop = np.where(fails.any(axis=1), np.argmax(fails, axis=1), CANDIDATES)
    return np.where(stop > start, candidates[rows[:, 0], stop - 1], -1)


def _ascending(blocks: NDArray[np.int64], tenths: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return each row's blocks in ascending order, and the sums of its tenths in that order."""
    order = np.argsort(blocks, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(tenths, order, axis=1), axis=1)
    return np.take_along_axis(blocks, order, axis=1), sums


def _most_risk(most: int, wanted: Certifying) -> Floats:
    """Return how much ten times the risk of k answers may sum to for a rejection, for k from 0 to `most`.

    P-values grow with the risk, so that bisection finds the border. It is -1 where even no risk is too much.
    """
    answers = np.arange(most + 1)

    def rejected(tenths: Floats) -> NDArray[np.bool_]:
        mean = np.divide(tenths, 10.0 * answers, out=np.ones(answers.size), where=answers > 0)
        return hoeffding_bentkus(mean, answers, wanted.risk) <= wanted.delta

    low, high = np.zeros(answers.size), 10.0 * answers * wanted.risk + 1.0
    for _ in range(RISK_BISECTIONS):
        middle = (low + high) / 2.0
        inside = rejected(middle)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    # Sums of tenths are whole numbers, which rounding must not put beyond the border.
    return np.where(rejected(np.zeros(answers.size)), low + 1e-6, -1.0)


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
    bias = BIAS * (float(np.mean(rates)) - whole)
    value = min(1.0, max(0.0, whole - bias))
    # What the simulations of the halves add to their spread is no spread of pilots; what those of the whole add is.
    chance = float(np.mean([rate * (1.0 - rate) for rate in rates])) / (SIMULATIONS_OF_HALF - 1)
    variance = max(0.0, float(np.var(rates, ddof=1)) - chance)
    variance += (1.0 + BIAS) ** 2 * whole * (1.0 - whole) / SIMULATIONS
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
