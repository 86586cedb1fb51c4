"""Checks of intervals and of certificates: samples of questions that share images, drawn from a known population."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quantrust.evaluation.certification import one_question_an_image
from quantrust.evaluation.intervals import metric_interval
from quantrust.evaluation.metric_records import METRICS, Deployment, Key
from quantrust.evaluation.metrics import Floats, Ranking, at_threshold, rank
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.shared_delta import Certificate, candidates_by_limit, certify_limits, share_of_each
from quantrust.evaluation.summary import summarise

SMOOTH = tuple(metric.name for metric in METRICS if metric.smooth and not metric.of_corpus)
"""Metrics of answers to questions that change little when an answer does, whose intervals are held to 93 to 97 %.

Coverage at a risk and calibration errors do not belong to them. Neither do metrics under a fixed threshold: their risk
and Phi rest on the few wrong answers above the threshold, each of which counts cost + 1 times in Phi, so that their
distribution is skewed on a sample of this size and percentile intervals miss the truth a little more often.
"""


def draw_answers(images: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Draw answers to one to five questions on each of some images.

    An image's ease is shared by its questions; confidence sees the ease of a question with noise and is surer than the
    answers deserve.

    Parameters
    ----------
    images : int
        Number of images.
    rng : numpy.random.Generator

    Returns
    -------
    quality, confidence : ndarray of float64, shape (n,)
        Qualities of the five values that soft accuracy has, and confidences in (0, 1).
    image : ndarray of int64, shape (n,)
    """
    image, ease = _draw_ease(images, rng)
    right = rng.random(image.size) < _expit(2.0 * ease)
    # References disagree about the harder questions only.
    partly = np.where(ease < 0.5, rng.choice([0.3, 0.6, 0.9, 1.0], size=image.size), 1.0)
    confidence = _expit(2.0 * ease + rng.normal(size=image.size))
    return np.where(right, partly, 0.0), confidence, image


Answered = tuple[Floats, Floats]
"""Qualities and confidences, both of shape (n,)."""


def draw_pairs(images: int, rng: np.random.Generator) -> tuple[Answered, Answered, NDArray[np.int64]]:
    """Draw the answers of two variants to the same one to five questions on each of some images.

    The first answers as in `draw_answers`. To the second, questions are less easy, by chance more or less so; it is
    right where the first is but for that.

    Parameters
    ----------
    images : int
        Number of images.
    rng : numpy.random.Generator

    Returns
    -------
    first, second : tuple of ndarray
        As `draw_answers` returns them.
    image : ndarray of int64, shape (n,)
    """
    image, ease = _draw_ease(images, rng)
    eases = (ease, 0.95 * ease - 0.1 + 0.4 * rng.normal(size=image.size))
    luck = rng.random(image.size)
    partly = np.where(ease < 0.5, rng.choice([0.3, 0.6, 0.9, 1.0], size=image.size), 1.0)
    noise = rng.normal(size=image.size)
    first, second = (
        (np.where(luck < _expit(2.0 * one), partly, 0.0), _expit(2.0 * one + noise + 0.5 * rng.normal(size=image.size)))
        for one in eases
    )
    return first, second, image


def interval_coverage(
    *,
    images: int,
    data_sets: int,
    resamples: int,
    risks: Sequence[float],
    costs: Sequence[float],
    seed: int,
    population_images: int = 400_000,
    progress: Callable[[int], object] = lambda data_sets: None,
) -> pl.DataFrame:
    """Count how often the intervals of drawn samples contain the value in the population.

    Parameters
    ----------
    images : int
        Images of a sample.
    data_sets : int
        Samples drawn.
    resamples : int
        Bootstrap resamples for each.
    risks, costs : sequence of float
        Risk limits and costs. Thresholds are fixed in advance, as val fixes them for test: they are the population's.
    seed : int
        Seed of everything.
    population_images : int
        Images that stand for the population.
    progress : callable
        Called with 1 after each sample.

    Returns
    -------
    polars.DataFrame
        Columns ``metric``, ``parameter``, ``truth``, ``coverage`` (the share of intervals that contain the truth),
        ``standard_error`` of that share, and ``below`` and ``above``: the shares of intervals wholly below and above
        the truth.
    """
    rng = np.random.default_rng([seed, 0])
    quality, confidence, _ = draw_answers(population_images, rng)
    population = rank(quality, confidence)
    deployment = Deployment(dict.fromkeys(risks, 0.9), dict.fromkeys(costs, 0.9))
    truth = summarise(population, risks, costs, deployment, is_probability=True)
    below: dict[Key, int] = {}
    above: dict[Key, int] = {}
    for data_set in range(data_sets):
        quality, confidence, image = draw_answers(images, np.random.default_rng([seed, 1, data_set]))
        resampler = Resampler(quality, draw_images(image, resamples, [seed, 2, data_set]))
        ranking = rank(quality, confidence)
        values = summarise(ranking, risks, costs, deployment, is_probability=True)
        for key, resampled in resampler.evaluate(ranking, risks, costs, deployment, is_probability=True).items():
            low, high = metric_interval(key[0], values[key], resampled)
            below[key] = below.get(key, 0) + (high < truth[key])
            above[key] = above.get(key, 0) + (low > truth[key])
        progress(1)
    rows = []
    for key in below:
        share = 1 - (below[key] + above[key]) / data_sets
        error = math.sqrt(share * (1 - share) / data_sets)
        rows.append((*key, truth[key], share, error, below[key] / data_sets, above[key] / data_sets))
    columns = ["metric", "parameter", "truth", "coverage", "standard_error", "below", "above"]
    return pl.DataFrame(rows, schema=columns, orient="row").sort("metric", "parameter")


def draw_schemes(
    images: int, schemes: int, estimators: int, rng: np.random.Generator
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Draw the answers of several schemes to the same one to five questions on each of some images.

    Schemes answer the same questions and mostly alike, the later ones a little worse. Estimators see the ease of a
    question with noise of their own.

    Parameters
    ----------
    images, schemes, estimators : int
        Their numbers.
    rng : numpy.random.Generator

    Returns
    -------
    quality : ndarray of float64, shape (schemes, n)
    confidence : ndarray of float64, shape (schemes, estimators, n)
    image : ndarray of int64, shape (n,)
    """
    image = np.repeat(np.arange(images), rng.integers(1, 6, size=images))
    shared = rng.normal(size=images)[image] + rng.normal(size=image.size)
    luck = rng.random(image.size)
    quality, confidence = np.empty((schemes, image.size)), np.empty((schemes, estimators, image.size))
    for scheme in range(schemes):
        ease = shared + 0.3 * rng.normal(size=image.size) + 1.4 - 0.4 * scheme / schemes
        quality[scheme] = luck < _expit(2.0 * ease)
        confidence[scheme] = _expit(2.0 * ease + rng.normal(size=(estimators, image.size)))
    return quality, confidence, image


@dataclass(frozen=True)
class Family:
    """What a simulated study may ship, and on how much it certifies.

    Attributes
    ----------
    schemes, estimators : int
        How many are declared.
    risk_limits : sequence of float
    delta : float
        Of all certificates together.
    val_images, test_images : int
    divided : bool
        Whether delta is divided among schemes, estimators and limits. Otherwise every certificate has the whole of it.
    """

    schemes: int
    estimators: int
    risk_limits: Sequence[float]
    delta: float
    val_images: int
    test_images: int
    divided: bool = True


def broken_certificates(
    family: Family,
    *,
    studies: int,
    seed: int,
    population_images: int = 400_000,
    progress: Callable[[int], object] = lambda studies: None,
) -> pl.DataFrame:
    """Certify in many simulated studies, and compare every certificate with the risk in the population.

    Parameters
    ----------
    family : Family
    studies : int
        How many are drawn, each with answers of its own to val and test.
    seed : int
    population_images : int
        Images that stand for the population.
    progress : callable
        Called with 1 after each study.

    Returns
    -------
    polars.DataFrame
        Columns ``study``, ``scheme``, ``estimator``, ``risk_limit``, ``certified`` and ``broken``: the threshold's risk
        in the population is above the limit. A row for each of the study's certificates, found or not.
    """
    shape = (family.schemes, family.estimators)
    truth = draw_schemes(population_images, *shape, np.random.default_rng([seed, 0]))
    populations = {(s, e): rank(truth[0][s], truth[1][s, e]) for s in range(shape[0]) for e in range(shape[1])}
    rows = []
    for study in range(studies):
        rng = np.random.default_rng([seed, 1, study])
        val_quality, val_confidence, _ = draw_schemes(family.val_images, *shape, rng)
        quality, confidence, image = draw_schemes(family.test_images, *shape, rng)
        chosen = one_question_an_image(image, np.ones(family.test_images, dtype=bool), rng)
        for (s, e), population in populations.items():
            val = rank(val_quality[s], val_confidence[s, e])
            answers = rank(quality[s][chosen], confidence[s, e][chosen])
            for found in _certificates(val, answers, family):
                risk = at_threshold(population, found.threshold).risk
                rows.append((study, s, e, found.risk_limit, found.threshold is not None, risk > found.risk_limit))
        progress(1)
    columns = ["study", "scheme", "estimator", "risk_limit", "certified", "broken"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _certificates(val: Ranking, answers: Ranking, family: Family) -> list[Certificate]:
    together = [family.risk_limits] if family.divided else [[risk] for risk in family.risk_limits]
    share = share_of_each(family.delta, family.schemes, family.estimators) if family.divided else family.delta
    return [
        found
        for limits in together
        for found in certify_limits(answers, candidates_by_limit(val, answers.n, limits, share), share)
    ]


def _draw_ease(images: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Draw one to five questions on each of some images, and how easy each is: part of it is shared by an image's."""
    image = np.repeat(np.arange(images), rng.integers(1, 6, size=images))
    return image, rng.normal(size=images)[image] + rng.normal(size=image.size) + 1.0


def _expit(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
