"""Certificates that hold together: how parts of delta are handed on, and how often any certificate is wrong."""

import numpy as np
import polars as pl
import pytest

from quantrust.evaluation.certification import certify
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.shared_delta import (
    candidates_by_limit,
    certify_limits,
    share_of_each,
    walk_together,
)
from quantrust.evaluation.simulation import Family, broken_certificates

NONE = np.empty(0)
STUDY = Family(schemes=3, estimators=2, risk_limits=(0.2, 0.1, 0.05), delta=0.1, val_images=200, test_images=400)


def test_schemes_and_estimators_have_equal_shares() -> None:
    assert share_of_each(0.1, 1, 1) == 0.1
    assert share_of_each(0.12, 3, 2) == pytest.approx(0.02)


def test_a_limit_alone_has_all_of_delta_and_is_certified_as_without_sharing() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(800)
    quality = (rng.random(800) < 0.7 + 0.3 * confidence).astype(float)
    candidates = np.quantile(confidence, [0.7, 0.5, 0.3, 0.1])
    (found,) = certify_limits(rank(quality, confidence), {0.15: candidates}, 0.1)
    assert (found.threshold, found.delta) == (certify(quality, confidence, candidates, 0.15, 0.1), 0.1)
    assert found.threshold is not None


def test_each_limit_begins_with_an_equal_part_and_stops_at_its_first_failure() -> None:
    p_values = {0.2: np.array([0.01, 0.06, 0.01]), 0.1: np.array([0.04, 0.045]), 0.05: np.array([0.06])}
    passed, parts = walk_together(p_values, delta=0.15)
    # 0.1 passes both candidates and hands its part to 0.05, which then is through; that hands both to 0.2.
    assert parts == pytest.approx({0.2: 0.15, 0.1: 0.05, 0.05: 0.1})
    assert passed == {0.2: 3, 0.1: 2, 0.05: 1}
    passed, parts = walk_together(p_values | {0.05: np.array([0.2])}, delta=0.15)
    assert parts == pytest.approx({0.2: 0.05, 0.1: 0.05, 0.05: 0.1})
    assert passed == {0.2: 1, 0.1: 2, 0.05: 0}


def test_a_part_passes_over_limits_that_are_through_and_is_not_given_twice() -> None:
    p_values = {0.3: np.array([0.001]), 0.2: NONE, 0.1: np.array([0.9]), 0.05: np.array([0.9])}
    _, parts = walk_together(p_values, delta=0.08)
    assert parts == pytest.approx({0.3: 0.02, 0.2: 0.02, 0.1: 0.06, 0.05: 0.02})
    assert parts[0.1] + parts[0.05] == pytest.approx(0.08)


def test_without_any_candidates_nothing_is_certified() -> None:
    found = certify_limits(rank(np.ones(9), np.arange(9.0)), {0.1: NONE, 0.05: NONE}, 0.1)
    assert [(one.threshold, one.fewest) for one in found] == [(None, 29), (None, 59)]


@pytest.mark.parametrize("seed", range(3))
def test_p_values_that_are_exact_lead_to_a_wrong_certificate_no_more_often_than_delta(seed) -> None:
    """True null hypotheses with uniform p-values, the least favourable that are valid; the others are rejected."""
    rng = np.random.default_rng(seed)
    limits = (0.3, 0.2, 0.1, 0.05)
    true_null = {risk: rng.random(3) < rng.choice([0.0, 0.3, 0.7, 1.0]) for risk in limits}
    true_null[0.1][rng.integers(3)] = True
    delta, draws, wrong = 0.2, 2500, 0
    for _ in range(draws):
        p_values = {risk: np.where(is_null, rng.random(3), 0.0) for risk, is_null in true_null.items()}
        passed, _ = walk_together(p_values, delta)
        wrong += any(is_null[: passed[risk]].any() for risk, is_null in true_null.items())
    assert wrong / draws <= delta + 3 * np.sqrt(delta * (1 - delta) / draws)


def test_the_parts_of_limits_without_a_true_null_hypothesis_are_used() -> None:
    """One limit that cannot be certified, three that can: it is wrong about as often as all of delta allows."""
    rng = np.random.default_rng(0)
    sure = {0.3: np.zeros(2), 0.2: NONE, 0.05: np.zeros(3)}
    wrong = [walk_together(sure | {0.1: rng.random(1)}, 0.2)[0][0.1] for _ in range(4000)]
    assert np.mean(wrong) == pytest.approx(0.2, abs=0.02)


def test_candidates_do_not_depend_on_the_answers_that_certify() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    val = rank((rng.random(500) < confidence).astype(float), confidence)
    found = candidates_by_limit(val, 400, (0.2, 0.001), 0.1)
    assert list(found) == [0.2, 0.001]
    assert found[0.2].size and not found[0.001].size


def test_in_simulated_studies_any_certificate_is_broken_less_often_than_delta() -> None:
    found = broken_certificates(STUDY, studies=60, seed=0, population_images=20_000)
    assert found.height == 60 * 3 * 2 * 3
    assert found["certified"].mean() > 0.5
    assert found.group_by("study").agg(pl.col("broken").any())["broken"].sum() <= 6


@pytest.mark.slow
def test_a_divided_delta_holds_for_all_certificates_together_and_an_undivided_one_does_not() -> None:
    rates = {}
    for divided in (True, False):
        family = Family(6, 2, (0.2, 0.1, 0.05), 0.1, 280, 750, divided)
        found = broken_certificates(family, studies=300, seed=1)
        rates[divided] = found.group_by("study").agg(pl.col("broken").any())["broken"].mean()
    assert rates[True] <= 0.1 < 0.2 < rates[False]
