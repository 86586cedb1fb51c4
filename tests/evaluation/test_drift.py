"""Drift between two sets of answers to the same questions."""

import numpy as np
import polars as pl
import pytest

from quantrust.errors import QuantrustError
from quantrust.evaluation.drift import BROKEN, HOLDS, OPEN, measure_drift
from quantrust.evaluation.operating_points import OperatingPoint

POINT = OperatingPoint("maxprob", 0.2, "certified", 0.5, 0.1, "id", "test", 100, 100)


def answers(confidence, quality=None, answer=None) -> pl.DataFrame:
    count = len(confidence)
    table = pl.DataFrame(
        {
            "question_id": [f"q{place}" for place in range(count)],
            "image_id": [f"i{place // 2}" for place in range(count)],
            "answer": ["a"] * count if answer is None else answer,
            "confidence": confidence,
        }
    )
    return table if quality is None else table.with_columns(quality=pl.Series(quality, dtype=pl.Float64))


def test_changes_are_counted() -> None:
    before = answers([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0], ["a", "b", "c", "d"])
    here = answers([0.9, 0.4, 0.6, 0.1 + 1e-7], [1, 0, 1, 0], ["a", "x", "c", "d"])
    drift = measure_drift(before, here, [POINT], seed=0, resamples=20)
    assert (drift.questions, drift.images, drift.answers_changed, drift.confidences_changed) == (4, 2, 1, 2)
    assert drift.answers_share.value == 0.25
    assert drift.largest_change == pytest.approx(0.2)
    assert drift.mean_change == pytest.approx(0.1, abs=1e-6)
    assert drift.quality_change.value == 0.0
    (point,) = drift.points
    assert (point.changed, point.changed_share.value) == (2, 0.5)
    assert (point.coverage_before.value, point.coverage.value) == (0.5, 0.5)
    assert (point.risk_before.value, point.risk.value, point.risk_change.value) == (0.0, 0.0, 0.0)
    assert (point.answered_images, point.verdict) == (2, OPEN)


def test_the_same_answers_do_not_drift_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    before = answers(rng.random(40), rng.integers(0, 2, 40))
    drift = measure_drift(before, before.reverse(), [POINT], seed=0, resamples=20)
    assert (drift.answers_changed, drift.confidences_changed, drift.largest_change) == (0, 0, 0.0)
    (point,) = drift.points
    assert (point.changed, point.risk_change.value) == (0, 0.0)
    assert (point.risk_change.low, point.risk_change.high) == (0.0, 0.0)


@pytest.mark.parametrize(("wrong", "verdict"), [(0.02, HOLDS), (0.2, OPEN), (0.5, BROKEN)])
def test_a_limit_holds_or_is_broken_where_the_whole_interval_says_so(wrong, verdict) -> None:
    quality = (np.arange(400) / 400 >= wrong).astype(float)
    rng = np.random.default_rng(0)
    table = answers(np.ones(400), rng.permutation(quality))
    (point,) = measure_drift(table, table, [POINT], seed=0, resamples=200).points
    assert point.verdict == verdict
    assert point.risk.low <= point.risk.value <= point.risk.high


def test_intervals_are_over_images() -> None:
    """All questions of an image change together: the interval is that of 100 images and not of 1,000 questions."""
    image = np.repeat(np.arange(100), 10)
    same = ["a"] * 1000
    changed = ["b" if one < 30 else "a" for one in image]
    frames = [
        answers(np.ones(1000), answer=given).with_columns(image_id=pl.Series([f"i{one}" for one in image]))
        for given in (same, changed)
    ]
    share = measure_drift(*frames, [], seed=0, resamples=2000).answers_share
    assert share.high - share.low == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 100), rel=0.1)


def test_without_reference_answers_only_changes_are_measured() -> None:
    drift = measure_drift(answers([0.9, 0.1]), answers([0.4, 0.1], [1, 0]), [POINT], seed=0, resamples=5)
    (point,) = drift.points
    assert drift.quality_change is None
    assert (point.risk, point.verdict, point.changed) == (None, None, 1)


def test_a_threshold_that_answers_nothing_has_no_risk() -> None:
    table = answers([0.1, 0.2], [1, 0])
    (point,) = measure_drift(table, table, [POINT], seed=0, resamples=5).points
    assert (point.coverage.value, point.risk.value, point.verdict) == (0.0, None, OPEN)


def test_answers_to_other_questions_are_refused() -> None:
    with pytest.raises(QuantrustError, match="2 answers and 3 answers have 2 questions in common"):
        measure_drift(answers([0.1, 0.2]), answers([0.1, 0.2, 0.3]), [], seed=0)
