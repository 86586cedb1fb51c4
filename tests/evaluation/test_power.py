"""Power from a pilot: the formulas by hand, and what pilots say held against a simulated population."""

import math

import numpy as np
import pytest

from quantrust.evaluation.power import (
    Certifying,
    Pilot,
    StandardError,
    certification_rate,
    fewest_images,
    images_for_difference,
    power_of_certification,
    power_of_difference,
    standard_error,
    unpaired_error,
)
from quantrust.evaluation.power_simulation import Check, check_certification, check_differences
from quantrust.evaluation.resampling import draw_images

KNOWN = StandardError(0.02, 0.0, 100)


def test_power_is_that_of_the_normal_test():
    # 0.02 at 100 images is 0.01 at 400: a difference of 0.01 is one standard error, of 0.0196 the limit itself.
    assert power_of_difference(0.0196, KNOWN, 400, 0.05).value == pytest.approx(0.5, abs=1e-3)
    assert power_of_difference(0.01, KNOWN, 400, 0.05).value == pytest.approx(0.1685 + 0.0015, abs=1e-3)
    assert power_of_difference(-0.01, KNOWN, 400, 0.05) == power_of_difference(0.01, KNOWN, 400, 0.05)


def test_the_number_of_images_has_the_power_that_it_is_for():
    needed = images_for_difference(0.01, KNOWN, 0.8, 0.05)
    # (1.95996 + 0.84162)^2 * (0.02 / 0.01)^2 * 100
    assert needed.value == pytest.approx(3139.6, abs=0.1)
    assert power_of_difference(0.01, KNOWN, round(needed.value), 0.05).value == pytest.approx(0.8, abs=1e-3)
    uncertain = images_for_difference(0.01, StandardError(0.02, 0.1, 100), 0.8, 0.05)
    assert uncertain.high / uncertain.value == pytest.approx(math.exp(2 * 1.95996 * 0.1), rel=1e-4)


def test_the_standard_error_is_that_of_a_mean_over_images():
    rng = np.random.default_rng(0)
    values = rng.normal(size=150)
    draws = draw_images(np.arange(150), 4000, 1)
    found = standard_error(draws.counts @ values / 150, draws, "accuracy")
    assert found.error == pytest.approx(values.std() / math.sqrt(150), rel=0.05)
    # The logarithm of a normal sample's standard deviation has a standard error of 1 / sqrt(2 n).
    kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2
    assert found.relative == pytest.approx(0.5 * math.sqrt((kurtosis - 1) / 150), rel=0.2)


def test_a_skewed_error_moves_the_power_of_aurc_alone():
    skewed = StandardError(0.02, 0.0, 100, skewness=0.3)
    plain, toward, away = (
        power_of_difference(difference, at, 100, 0.05).value
        for difference, at in ((0.04, KNOWN), (0.04, skewed), (-0.04, skewed))
    )
    # The quantile is 1.96 - 2.84 * 0.3 / 6 = 1.818, the effect 2: Phi(0.182), and the density at -0.182 times 0.05.
    assert toward == pytest.approx(0.5722 + 0.05 * (0.0331 - 1) * 0.3924, abs=1e-3)
    assert away < plain < toward
    draws = draw_images(np.arange(60), 500, 0)
    differences = np.exp(draws.counts @ np.linspace(-1, 1, 60) / 20)
    assert standard_error(differences, draws, "aurc").skewness > 0.3
    assert standard_error(differences, draws, "accuracy").skewness == 0.0


def test_a_correlation_takes_error_from_a_difference():
    assert unpaired_error(KNOWN, 0.0).error == pytest.approx(0.02 * math.sqrt(2))
    assert unpaired_error(KNOWN, 0.5).error == pytest.approx(0.02)


def test_answers_that_are_alike_within_an_image_take_more_images():
    rng = np.random.default_rng(0)
    of_image = rng.normal(size=100)
    alike, apart = (
        standard_error(draws.counts[:, draws.image] @ values / 300, draws, "accuracy").error
        for draws, values in (
            (draw_images(np.arange(300) // 3, 2000, 0), np.repeat(of_image, 3)),
            (draw_images(np.arange(300), 2000, 0), np.repeat(of_image, 3)),
        )
    )
    assert alike / apart == pytest.approx(math.sqrt(3), rel=0.1)


def test_a_faultless_pilot_certifies_from_the_fewest_answers_on():
    pilot = Pilot(np.ones(50), np.linspace(0.0, 1.0, 50), np.arange(50))

    def rate(images: int, coverage: float = 0.0) -> float:
        wanted = Certifying(0.1, 0.1, coverage)
        return certification_rate(pilot, np.arange(50), images, wanted, 50, np.random.default_rng(0))

    # 22 faultless answers certify 10 %, and a fifth of the images fixes the order.
    assert rate(26) == 0.0
    assert rate(200) == 1.0
    # The lowest confidence that fixes the order is hardly ever the lowest of all.
    assert rate(200, coverage=1.0) < rate(200, coverage=0.5)


def test_the_power_of_a_certificate_comes_with_an_interval_and_the_same_seed_gives_it_again():
    rng = np.random.default_rng(0)
    pilot = Pilot((rng.random(120) < 0.93).astype(float), rng.random(120), np.arange(120) // 2)
    found = power_of_certification(pilot, 80, Certifying(0.1, 0.1), 0)
    assert 0.0 <= found.low < found.value < found.high <= 1.0
    assert power_of_certification(pilot, 80, Certifying(0.1, 0.1), 0) == found


def test_the_fewest_images_lie_between_those_that_were_tried():
    assert fewest_images([10, 20, 40], [0.9, 0.95, 1.0], 0.8) == 10.0
    assert fewest_images([10, 20], [0.1, 0.2], 0.8) is None
    # A dip is the luck of simulations.
    assert fewest_images([10, 20, 40, 80], [0.5, 0.9, 0.85, 1.0], 0.88) == pytest.approx(10 * 2 ** (0.38 / 0.4))


def test_pilots_state_the_power_that_samples_have():
    check = Check(images=120, pilot_images=167, pilots=12, samples=60, seed=3, resamples=199, population_images=60_000)
    for row in check_differences(check).to_dicts():
        # The standard error of the true power is 6.5 points here, that of the mean stated one 3.
        assert row["mean_stated"] == pytest.approx(row["true_power"], abs=0.2)
        assert 0.0 < row["spread"] < 0.25


@pytest.mark.slow
def test_two_hundred_pilots_state_on_average_the_power_that_samples_have():
    check = Check(images=250, pilot_images=167, pilots=200, samples=800, seed=0, resamples=499)
    for row in check_differences(check).to_dicts():
        # Three points, and twice the standard error of the true power.
        allowed = 0.03 + 2 * math.sqrt(row["true_power"] * (1 - row["true_power"]) / check.samples)
        assert row["mean_stated"] == pytest.approx(row["true_power"], abs=allowed)


@pytest.mark.slow
def test_pilots_state_on_average_the_power_to_certify():
    check = Check(images=150, pilot_images=167, pilots=40, samples=4000, seed=0)
    row = check_certification(check, Certifying(0.1, 0.1)).row(0, named=True)
    assert row["mean_stated"] == pytest.approx(
        row["true_power"], abs=0.03 + 2 * row["spread"] / math.sqrt(check.pilots)
    )
