"""A check of stated power: what pilots from a known population say, and how often samples show the difference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from quantrust.evaluation.comparison import two_sided_p_value
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.metrics import Floats, rank
from quantrust.evaluation.power import (
    Certifying,
    Estimate,
    Pilot,
    certification_rate,
    draw_tests,
    power_of_certification,
    power_of_difference,
    standard_error,
    with_tests,
)
from quantrust.evaluation.resampling import ImageDraws, Resampler, draw_images
from quantrust.evaluation.simulation import Answered, draw_answers, draw_pairs
from quantrust.evaluation.summary import summarise

RISK = 0.1
KEYS: tuple[Key, ...] = (("accuracy", None), ("aurc", None), ("coverage_at_risk", RISK))


@dataclass(frozen=True)
class Check:
    """How power is checked.

    Attributes
    ----------
    images : sequence of int
        Of the samples whose power is stated.
    pilot_images : int
        Of a pilot, with three questions an image on average.
    pilots : int
        Pilots drawn.
    samples : int
        Samples drawn, to know the true power.
    seed : int
    resamples : int
        Of the images of each sample and pilot.
    population_images : int
        Images that stand for the population.
    """

    images: Sequence[int]
    pilot_images: int
    pilots: int
    samples: int
    seed: int
    resamples: int = 999
    population_images: int = 200_000


SCHEMA = pl.Schema(
    {
        "asked": pl.String,
        "images": pl.Int64,
        "pilot_images": pl.Int64,
        "true_power": pl.Float64,
        "mean_stated": pl.Float64,
        "spread": pl.Float64,
        "within": pl.Float64,
    }
)


def check_differences(
    check: Check, alpha: float = 0.05, progress: Callable[[int], object] = lambda done: None
) -> pl.DataFrame:
    """Compare the power that pilots state for the population's own difference with how often samples show it.

    Parameters
    ----------
    check : Check
    alpha : float
        Level of the test, the one of `quantrust compare` without correction.
    progress : callable
        Called with 1 after each sample and each pilot.

    Returns
    -------
    polars.DataFrame
        Columns of `SCHEMA`, a row for each number of images and each of `KEYS`: ``spread`` is the standard deviation of
        the stated power over pilots, and ``within`` the share of pilots whose interval contains the true power.
    """
    first, second, _ = draw_pairs(check.population_images, np.random.default_rng([check.seed, 0]))
    values = [_values(side) for side in (first, second)]
    truth = {key: values[0][key] - values[1][key] for key in KEYS}
    rejected = dict.fromkeys([(images, key) for images in check.images for key in KEYS], 0)
    for images in check.images:
        for sample in range(check.samples):
            first, second, image = draw_pairs(images, np.random.default_rng([check.seed, 1, images, sample]))
            between = _resampled(first, second, draw_images(image, check.resamples, [check.seed, 1, images, sample, 1]))
            for key in KEYS:
                rejected[images, key] += two_sided_p_value(between[key]) <= alpha
            progress(1)
    stated: dict[tuple[int, Key], list[Estimate]] = {asked: [] for asked in rejected}
    for pilot in range(check.pilots):
        seed = [check.seed, 2, pilot]
        first, second, image = draw_pairs(check.pilot_images, np.random.default_rng(seed))
        draws = draw_images(image, check.resamples, [*seed, 1])
        between = _resampled(first, second, draws)
        tested = _resampled(first, second, draw_tests(draws.image, [*seed, 2]))
        for key in KEYS:
            at = with_tests(standard_error(between[key], draws), tested[key], truth[key], alpha)
            for images in check.images:
                stated[images, key].append(power_of_difference(truth[key], at, images, alpha))
        progress(1)
    rows = [
        (f"{key[0]}, {100 * truth[key]:.2f} points", *_row(check, images, rejected[images, key] / check.samples, found))
        for (images, key), found in stated.items()
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def check_certification(
    check: Check, wanted: Certifying, progress: Callable[[int], object] = lambda done: None
) -> pl.DataFrame:
    """Compare the power that pilots state for a certificate with how often samples have one.

    Parameters
    ----------
    check : Check
        Its resamples are of no use here.
    wanted : Certifying
    progress : callable
        Called with 1 after each pilot.

    Returns
    -------
    polars.DataFrame
        Columns of `SCHEMA`, as `check_differences` returns them, a row for each number of images.
    """
    population = Pilot(*draw_answers(check.population_images, np.random.default_rng([check.seed, 0])))
    everything = np.arange(population.images)
    pilots = [
        Pilot(*draw_answers(check.pilot_images, np.random.default_rng([check.seed, 2, number])))
        for number in range(check.pilots)
    ]
    rows = []
    for images in check.images:
        rng = np.random.default_rng([check.seed, 1, images])
        truth = certification_rate(population, everything, images, wanted, check.samples, rng)
        stated = []
        for number, pilot in enumerate(pilots):
            stated.append(power_of_certification(pilot, images, wanted, seed=number))
            progress(1)
        asked = f"certify {wanted.risk:g}, delta {wanted.delta:g}, coverage {wanted.coverage:g}"
        rows.append((asked, *_row(check, images, truth, stated)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _row(check: Check, images: int, truth: float, stated: list[Estimate]) -> tuple[float | int, ...]:
    values = np.array([one.value for one in stated])
    within = float(np.mean([one.low <= truth <= one.high for one in stated]))
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return images, check.pilot_images, truth, float(values.mean()), spread, within


def _values(answers: Answered) -> Mapping[Key, float]:
    return summarise(rank(*answers), [RISK], [], None, False)


def _resampled(first: Answered, second: Answered, draws: ImageDraws) -> Mapping[Key, Floats]:
    """Return the differences of both variants on every resample."""
    one, other = (
        Resampler(answers[0], draws).evaluate(rank(*answers), [RISK], [], None, False, wanted=KEYS)
        for answers in (first, second)
    )
    return {key: one[key] - other[key] for key in KEYS}
