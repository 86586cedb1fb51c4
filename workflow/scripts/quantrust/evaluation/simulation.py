"""A check of the intervals: samples of questions that share images, drawn from a known population."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quantrust.evaluation.intervals import metric_interval
from quantrust.evaluation.metric_records import METRICS, Deployment, Key
from quantrust.evaluation.metrics import Floats, rank
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.summary import summarise

SMOOTH = tuple(metric.name for metric in METRICS if metric.smooth)
"""Metrics that change little when an answer does, whose intervals are held to 93 to 97 %.

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
    accuracy, confidence : ndarray of float64, shape (n,)
        Soft accuracies of the five values there are, and confidences in (0, 1).
    image : ndarray of int64, shape (n,)
    """
    image = np.repeat(np.arange(images), rng.integers(1, 6, size=images))
    ease = rng.normal(size=images)[image] + rng.normal(size=image.size) + 1.0
    right = rng.random(image.size) < _expit(2.0 * ease)
    # References disagree about the harder questions only.
    partly = np.where(ease < 0.5, rng.choice([0.3, 0.6, 0.9, 1.0], size=image.size), 1.0)
    confidence = _expit(2.0 * ease + rng.normal(size=image.size))
    return np.where(right, partly, 0.0), confidence, image


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
    accuracy, confidence, _ = draw_answers(population_images, rng)
    population = rank(accuracy, confidence)
    deployment = Deployment(dict.fromkeys(risks, 0.9), dict.fromkeys(costs, 0.9))
    truth = summarise(population, risks, costs, deployment, is_probability=True)
    below: dict[Key, int] = {}
    above: dict[Key, int] = {}
    for data_set in range(data_sets):
        accuracy, confidence, image = draw_answers(images, np.random.default_rng([seed, 1, data_set]))
        resampler = Resampler(accuracy, draw_images(image, resamples, [seed, 2, data_set]))
        ranking = rank(accuracy, confidence)
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


def _expit(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
