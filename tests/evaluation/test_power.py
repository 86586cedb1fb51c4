"""Power from a pilot: the formulas by hand, and what pilots say held against a simulated population."""

import math

import numpy as np
import pytest

from quantrust.evaluation import power
from quantrust.evaluation.certification import candidate_thresholds, certify
from quantrust.evaluation.comparison import two_sided_p_value
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.power import (
    ORDER_SHARE,
    RESAMPLES_OF_TEST,
    TESTS,
    Certifying,
    Needed,
    Pilot,
    StandardError,
    certification_rate,
    draw_tests,
    fewest_images,
    images_for_difference,
    power_of_certification,
    power_of_difference,
    standard_error,
    unpaired_error,
    with_tests,
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
    found = standard_error(draws.counts @ values / 150, draws)
    assert found.error == pytest.approx(values.std() / math.sqrt(150), rel=0.05)
    # The logarithm of a normal sample's standard deviation has a standard error of 1 / sqrt(2 n).
    kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2
    assert found.relative == pytest.approx(0.5 * math.sqrt((kurtosis - 1) / 150), rel=0.2)


def test_what_simulated_samples_need_stands_beside_the_formula():
    # Every sample needs 1.5 standard errors, where the formula says 1.96: an effect of 1.96 is found in all.
    sure = StandardError(0.02, 0.0, 100, Needed(np.full(50, 1.5) + 1e-6 * np.arange(50), 0.0))
    assert power_of_difference(0.0392, sure, 100, 0.05).value == pytest.approx(1.0, abs=1e-3)
    # At four times as many images half of the difference between the two is left, at half as many 1.41 of it.
    assert power_of_difference(0.0196, sure, 400, 0.05).value == pytest.approx(0.75, abs=1e-3)
    assert power_of_difference(0.0392 * 2**0.5, sure, 50, 0.05).value == pytest.approx(1.0, abs=1e-3)


def test_samples_of_a_normal_mean_need_what_the_formula_says():
    rng = np.random.default_rng(0)
    values = rng.normal(size=150)
    draws, tests = draw_images(np.arange(150), 2000, 0), draw_tests(np.arange(150), 1)
    assert tests.counts.shape == (TESTS * (1 + RESAMPLES_OF_TEST), 150)
    assert (tests.counts.sum(axis=1) == 150).all()
    at = standard_error(draws.counts @ values / 150, draws)
    tested = with_tests(at, tests.counts @ values / 150, 1.0, 0.05)
    for effect in (1.0, 1.96, 3.0):
        formula, simulated = (power_of_difference(effect * at.error, one, 150, 0.05).value for one in (at, tested))
        # Two hundred samples have a standard error of 3.5 points at most.
        assert simulated == pytest.approx(formula, abs=0.08)
    # How much a standard deviation varies is 1 / sqrt(2 n), by the jackknife and among the samples.
    assert tested.relative == pytest.approx(at.relative, abs=0.03)


def test_an_error_that_resampling_overstates_is_taken_back():
    # Samples of the pilot have an error of 0.02, and their own resamples one of 0.025: the pilot overstates as much.
    rng = np.random.default_rng(0)
    own = 0.02 * rng.normal(size=(TESTS, 1))
    differences = np.concatenate([own, own + 0.025 * rng.normal(size=(TESTS, RESAMPLES_OF_TEST))], axis=1)
    tested = with_tests(StandardError(0.02, 0.0, 100), differences.ravel(), 1.0, 0.05)
    assert tested.error == pytest.approx(0.02 / 1.25, rel=0.02)
    # The interval reaches 1.25 times as far as normal errors would have it.
    assert tested.needed.effects.mean() == pytest.approx(1.25 * 1.96, rel=0.05)
    # Of fifty normal resamples, a logarithm of the error alone varies by 0.1.
    assert tested.relative < 0.06


def test_a_skewed_error_moves_the_power():
    draws, tests = draw_images(np.arange(60), 2000, 0), draw_tests(np.arange(60), 1)

    def stated(sign: int) -> float:
        found = [np.exp(one.counts @ np.linspace(-1, 1, 60) / 30) for one in (draws, tests)]
        at = with_tests(standard_error(found[0], draws), found[1], sign, 0.05)
        return power_of_difference(sign * 2.2 * at.error, at, 60, 0.05).value

    def rejected(sign: int) -> float:
        means = np.random.default_rng(2).normal(0.0, np.sqrt(np.var(np.linspace(-1, 1, 60)) * 60), size=400) / 30
        spread = np.random.default_rng(3).normal(size=400) * np.std(means)
        error = np.std(np.exp(means))
        tests_done = [two_sided_p_value(np.exp(mean + spread) - 1.0 + sign * 2.2 * error) for mean in means]
        return float(np.mean(np.array(tests_done) <= 0.05))

    assert stated(1) > stated(-1) + 0.1
    assert stated(1) == pytest.approx(rejected(1), abs=0.12)
    assert stated(-1) == pytest.approx(rejected(-1), abs=0.12)


def test_a_correlation_takes_error_from_a_difference():
    assert unpaired_error(KNOWN, 0.0).error == pytest.approx(0.02 * math.sqrt(2))
    assert unpaired_error(KNOWN, 0.5).error == pytest.approx(0.02)


def test_answers_that_are_alike_within_an_image_take_more_images():
    rng = np.random.default_rng(0)
    of_image = rng.normal(size=100)
    alike, apart = (
        standard_error(draws.counts[:, draws.image] @ values / 300, draws).error
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


def test_many_certifications_at_once_are_those_of_one_at_a_time(monkeypatch):
    monkeypatch.setattr(power, "DRAWN_AT_ONCE", 1)
    rng = np.random.default_rng(4)
    image = np.sort(rng.integers(40, size=120))
    image = np.unique(image, return_inverse=True)[1]
    # Confidences in twentieths, so that many are equal.
    confidence = rng.integers(20, size=120) / 20
    pilot = Pilot((rng.random(120) < 0.75 + 0.25 * confidence) * rng.choice([0.6, 1.0], size=120), confidence, image)
    everything = np.arange(pilot.images)
    for wanted in (Certifying(0.35, 0.2), Certifying(0.3, 0.3, 0.4), Certifying(0.4, 0.2, 0.8)):
        rng, found = np.random.default_rng(5), 0
        ordering = round(ORDER_SHARE * 90)
        ranking = rank(pilot.quality, pilot.confidence)
        highest = ranking.thresholds[np.searchsorted(ranking.ends, wanted.coverage * 120 - 1e-9)]
        for _ in range(60):
            drawn = pilot.draw(everything[rng.integers(pilot.images, size=(1, 90))], rng)[0]
            quality, confidence = pilot.quality[drawn], pilot.confidence[drawn]
            order = rank(quality[:ordering], confidence[:ordering])
            candidates = candidate_thresholds(order, 90 - ordering, wanted.risk, wanted.delta)
            if candidates.size:
                threshold = certify(quality[ordering:], confidence[ordering:], candidates, wanted.risk, wanted.delta)
                found += threshold is not None and (wanted.coverage == 0.0 or threshold <= highest)
        rate = certification_rate(pilot, everything, 90, wanted, 60, np.random.default_rng(5))
        assert 0 < found < 60
        assert rate == found / 60


def test_the_power_of_a_certificate_comes_with_an_interval_and_the_same_seed_gives_it_again():
    rng = np.random.default_rng(0)
    pilot = Pilot((rng.random(120) < 0.97).astype(float), rng.random(120), np.arange(120) // 2)
    found = power_of_certification(pilot, 100, Certifying(0.1, 0.1), 0)
    assert 0.0 <= found.low < found.value < found.high <= 1.0
    assert power_of_certification(pilot, 100, Certifying(0.1, 0.1), 0) == found


def test_the_fewest_images_lie_between_those_that_were_tried():
    assert fewest_images([10, 20, 40], [0.9, 0.95, 1.0], 0.8) == 10.0
    assert fewest_images([10, 20], [0.1, 0.2], 0.8) is None
    # A dip is the luck of simulations.
    assert fewest_images([10, 20, 40, 80], [0.5, 0.9, 0.85, 1.0], 0.88) == pytest.approx(10 * 2 ** (0.38 / 0.4))


def test_pilots_state_the_power_that_samples_have():
    check = Check(images=[120], pilot_images=120, pilots=4, samples=60, seed=3, resamples=199, population_images=60_000)
    for row in check_differences(check).to_dicts():
        # The standard error of the true power is 6.5 points here, that of the mean stated one 6.
        assert row["mean_stated"] == pytest.approx(row["true_power"], abs=0.25)
        assert 0.0 < row["spread"] < 0.3


@pytest.mark.slow
def test_pilots_state_on_average_the_power_to_certify():
    check = Check(images=[150], pilot_images=167, pilots=40, samples=4000, seed=0)
    row = check_certification(check, Certifying(0.1, 0.1)).row(0, named=True)
    assert row["mean_stated"] == pytest.approx(
        row["true_power"], abs=0.03 + 2 * row["spread"] / math.sqrt(check.pilots)
    )
