"""Thresholds of a user's own sample: what certificates take, how images are divided, and what is certified."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from quantrust.errors import QuantrustError
from quantrust.evaluation.certification import certify, hoeffding_bentkus
from quantrust.evaluation.metrics import coverage_at_risk, rank
from quantrust.evaluation.own_sample import (
    CERTIFYING,
    SETTING,
    SampleSettings,
    divide,
    fewest_at,
    points_of_sample,
    what_it_takes,
)
from quantrust.evaluation.shared_delta import candidates_by_limit
from quantrust.evaluation.shipped_points import one_question_of_each_image

SETTINGS = SampleSettings("own", [0.1], 0.1, set_share=0.3, seed=0, resamples=50)


def sample(images: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), 2)
    ease = rng.normal(size=images)[image] + rng.normal(size=image.size) + 1.5
    surely = 1 / (1 + np.exp(-2 * ease))
    return pl.DataFrame(
        {
            "question_id": [f"q{place}" for place in range(image.size)],
            "image_id": [f"i{one}" for one in image],
            "quality": (rng.random(image.size) < surely).astype(float),
            "maxprob": surely,
        }
    )


def test_so_many_answers_just_suffice_for_a_certificate() -> None:
    for mean, risk, delta in ((0.0, 0.05, 0.1), (0.025, 0.05, 0.1), (0.1, 0.2, 0.01)):
        n = fewest_at(mean, risk, delta)
        assert hoeffding_bentkus([mean], [n], risk)[0] <= delta
        kl = mean * np.log(mean / risk) if mean else 0.0
        kl += (1 - mean) * np.log((1 - mean) / (1 - risk))
        assert np.exp(-n * kl) <= delta < np.exp(-(n - 1) * kl)


def test_what_certificates_take_is_known_before_any_answer() -> None:
    settings = dataclasses.replace(SETTINGS, risks=[0.1, 0.01])
    loose, strict = what_it_takes(300, settings)
    assert (loose.images, strict.images) == (210, 210)
    # ln(0.05) / ln(1 - R), rounded up: each limit begins with half of delta.
    assert (loose.faultless, strict.faultless) == (29, 299)
    assert loose.half > loose.faultless
    assert (loose.possible, strict.possible) == (True, False)


def test_images_are_divided_whole_and_by_the_seed_alone() -> None:
    images = [f"i{place}" for place in (*range(100), *range(50))]
    setting = divide(images, SETTINGS)
    assert len(setting) == 30 and setting <= set(images)
    assert divide(images[::-1], SETTINGS) == setting
    assert divide(images, dataclasses.replace(SETTINGS, seed=1)) != setting


@pytest.mark.parametrize("images", [1, 2])
def test_too_few_images_for_both_parts_are_refused(images) -> None:
    settings = dataclasses.replace(SETTINGS, set_share=0.1)
    with pytest.raises(QuantrustError, match=f"own: holds {images} images, of which 0 would set thresholds"):
        divide([f"i{place}" for place in range(images)], settings)


def test_the_first_part_sets_and_the_second_certifies() -> None:
    answers = sample(700)
    points, certification = points_of_sample(answers, "maxprob", SETTINGS)
    sets = pl.col("image_id").is_in(list(divide(answers["image_id"].to_list(), SETTINGS)))
    setting, others = answers.filter(sets), answers.filter(~sets)
    of_val, certified = points
    assert of_val.threshold == coverage_at_risk(rank(setting["quality"], setting["maxprob"]), 0.1).threshold
    assert (of_val.split, of_val.questions, of_val.images) == (SETTING, 420, 210)
    chosen = one_question_of_each_image(others, 0)
    candidates = candidates_by_limit(rank(setting["quality"], setting["maxprob"]), 490, [0.1], 0.1)[0.1]
    expected = certify(chosen["quality"].to_numpy(), chosen["maxprob"].to_numpy(), candidates, 0.1, 0.1)
    assert certified.threshold == expected
    assert (certified.split, certified.questions, certified.delta) == (CERTIFYING, 490, 0.1)
    assert (certification.schemes, certification.estimators, certification.images) == (1, ("maxprob",), 490)
    for point in points:
        (measured,) = point.measured
        answered = others.filter(pl.col("maxprob") >= point.threshold)
        assert (measured.questions, measured.answered) == (980, answered.height)
        assert measured.risk == pytest.approx(1 - answered["quality"].mean())


def test_the_promise_holds_on_samples_of_a_known_population() -> None:
    population = sample(30_000, seed=1)
    sought = dataclasses.replace(SETTINGS, risks=[0.2, 0.1, 0.05], resamples=2)
    broken = certified = 0
    for seed in range(40):
        settings = dataclasses.replace(sought, seed=seed)
        points, _ = points_of_sample(sample(500, seed=100 + seed), "maxprob", settings)
        risks = [
            (1 - population.filter(pl.col("maxprob") >= point.threshold)["quality"].mean(), point.risk_limit)
            for point in points
            if point.certified
        ]
        certified += len(risks)
        broken += any(risk > limit for risk, limit in risks)
    assert certified > 60
    assert broken <= 4
