"""A check of stated power: what pilots from a known population say, and how often samples show the difference."""

from collections.abc import Callable, Mapping
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
    power_of_certification,
    power_of_difference,
    standard_error,
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
    images : int
        Of a sample whose power is stated.
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

    images: int
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
        Columns of `SCHEMA`, a row for each of `KEYS`: ``spread`` is the standard deviation of the stated power over
        pilots, and ``within`` the share of pilots whose interval contains the true power.
    """
    first, second, _ = draw_pairs(check.population_images, np.random.default_rng([check.seed, 0]))
    values = [_values(side) for side in (first, second)]
    truth = {key: values[0][key] - values[1][key] for key in KEYS}
    rejected = dict.fromkeys(KEYS, 0)
    for sample in range(check.samples):
        between, _ = _resampled(check.images, check.resamples, [check.seed, 1, sample])
        for key in KEYS:
            rejected[key] += two_sided_p_value(between[key]) <= alpha
        progress(1)
    stated: dict[Key, list[Estimate]] = {key: [] for key in KEYS}
    for pilot in range(check.pilots):
        between, draws = _resampled(check.pilot_images, check.resamples, [check.seed, 2, pilot])
        for key in KEYS:
            stated[key].append(
                power_of_difference(truth[key], standard_error(between[key], draws, key[0]), check.images, alpha)
            )
        progress(1)
    rows = [
        (f"{key[0]}, {100 * truth[key]:.2f} points", *_row(check, rejected[key] / check.samples, stated[key]))
        for key in KEYS
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
        Columns of `SCHEMA`, as `check_differences` returns them.
    """
    population = Pilot(*draw_answers(check.population_images, np.random.default_rng([check.seed, 0])))
    rng, everything = np.random.default_rng([check.seed, 1]), np.arange(population.images)
    truth = certification_rate(population, everything, check.images, wanted, check.samples, rng)
    stated = []
    for number in range(check.pilots):
        pilot = Pilot(*draw_answers(check.pilot_images, np.random.default_rng([check.seed, 2, number])))
        stated.append(power_of_certification(pilot, check.images, wanted, seed=number))
        progress(1)
    asked = f"certify {wanted.risk:g}, delta {wanted.delta:g}, coverage {wanted.coverage:g}"
    return pl.DataFrame([(asked, *_row(check, truth, stated))], schema=SCHEMA, orient="row")


def _row(check: Check, truth: float, stated: list[Estimate]) -> tuple[float | int, ...]:
    values = np.array([one.value for one in stated])
    within = float(np.mean([one.low <= truth <= one.high for one in stated]))
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return check.images, check.pilot_images, truth, float(values.mean()), spread, within


def _values(answers: Answered) -> Mapping[Key, float]:
    return summarise(rank(*answers), [RISK], [], None, False)


def _resampled(images: int, resamples: int, seed: list[int]) -> tuple[Mapping[Key, Floats], ImageDraws]:
    """Draw answers of both variants, and return the resampled differences."""
    first, second, image = draw_pairs(images, np.random.default_rng(seed))
    draws = draw_images(image, resamples, [*seed, 1])
    one, other = (
        Resampler(answers[0], draws).evaluate(rank(*answers), [RISK], [], None, False, wanted=KEYS)
        for answers in (first, second)
    )
    return {key: one[key] - other[key] for key in KEYS}, draws
