import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from quantrust.errors import QuantrustError
from quantrust.evaluation import metrics
from quantrust.evaluation.calibrators import METHODS, add_calibrated, fit_isotonic, fit_platt, fit_temperature
from quantrust.evaluation.metrics import rank


def overconfident(n, temperature=2.5, shift=0.0, seed=0):
    """Confidences whose logits are `temperature` times those of the true probability of being right, plus a shift."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(2, 1.5, size=n)
    quality = (rng.random(n) < truth).astype(float)
    return expit(temperature * logit(truth) + shift), quality, truth


def test_temperature_finds_the_truth():
    confidence, quality, truth = overconfident(20_000)
    calibrated = fit_temperature(confidence, quality)(confidence)
    assert np.abs(calibrated - truth).max() < 0.02


def test_platt_finds_the_truth_where_a_temperature_cannot():
    confidence, quality, truth = overconfident(20_000, shift=1.5)
    assert np.abs(fit_platt(confidence, quality)(confidence) - truth).max() < 0.02
    assert np.abs(fit_temperature(confidence, quality)(confidence) - truth).max() > 0.05


def test_isotonic_regression_by_hand():
    # The second and third violate the order and are pooled.
    calibrate = fit_isotonic(np.array([0.1, 0.4, 0.6, 0.9]), np.array([0.0, 0.6, 0.3, 1.0]))
    assert calibrate(np.array([0.1, 0.4, 0.6, 0.9])).tolist() == pytest.approx([0.0, 0.45, 0.45, 1.0])
    assert calibrate(np.array([0.0, 1.0])).tolist() == pytest.approx([0.0, 1.0])


def test_soft_targets_count_as_shares_of_a_right_answer():
    # The best constant for targets of .3 is .3: for equal confidences Platt's intercept alone must give it.
    confidence = np.repeat([0.6, 0.8], 50)
    quality = np.repeat([0.3, 0.9], 50)
    assert fit_platt(confidence, quality)(np.array([0.6, 0.8])).tolist() == pytest.approx([0.3, 0.9], abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_calibration_lowers_the_error_on_other_answers(method):
    fit = METHODS[method](*overconfident(3000)[:2])
    confidence, quality, _ = overconfident(5000, seed=1)
    before = metrics.ece(rank(quality, confidence))
    after = metrics.ece(rank(quality, fit(confidence)))
    assert before > 0.08
    assert after < 0.03


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_strictly_monotone_calibration_leaves_the_risk_coverage_curve(method):
    confidence, quality, _ = overconfident(2000)
    calibrated = METHODS[method](confidence, quality)(confidence)
    before, after = (metrics.risk_coverage_curve(rank(quality, c))[1] for c in (confidence, calibrated))
    np.testing.assert_allclose(before, after)


@pytest.mark.parametrize("method", METHODS)
def test_saturated_confidences_stay_probabilities(method):
    confidence = np.array([0.0, 1e-12, 0.2, 0.5, 0.9, 1 - 1e-12, 1.0, 1.0])
    quality = np.array([0.0, 0.3, 0.0, 0.6, 1.0, 1.0, 1.0, 0.0])
    calibrated = METHODS[method](confidence, quality)(confidence)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    assert (np.diff(calibrated) >= 0).all()


@pytest.fixture
def scores():
    parts = []
    for dataset, split, seed in (("id", "val", 0), ("id", "test", 1), ("shift", "test", 2)):
        confidence, quality, _ = overconfident(400, seed=seed)
        parts.append(
            pl.DataFrame({"quality": quality, "maxprob": confidence, "entropy": -confidence}).with_columns(
                dataset=pl.lit(dataset), split=pl.lit(split)
            )
        )
    return pl.concat(parts)


ALL = [f"maxprob+{method}" for method in METHODS]


def test_calibrated_columns_are_fitted_on_val_alone(scores):
    added = add_calibrated(scores, ["maxprob", *ALL], "id")
    assert added.columns == [*scores.columns, *ALL]
    other_test = scores.with_columns(
        quality=pl.when(pl.col("split") == "test").then(1 - pl.col("quality")).otherwise(pl.col("quality"))
    )
    again = add_calibrated(other_test, ALL, "id")
    assert again.select(ALL).equals(added.select(ALL))


def test_what_is_not_to_be_calibrated_or_is_there_already_stays(scores):
    assert add_calibrated(scores, ["maxprob", "entropy"], "nowhere").equals(scores)
    there = scores.with_columns(pl.lit(0.5).alias("maxprob+platt"))
    assert add_calibrated(there, ["maxprob+platt"], "id").equals(there)


@pytest.mark.parametrize(
    ("name", "dataset", "message"),
    [
        ("margin+platt", "id", r"margin\+platt: no estimator 'margin'"),
        ("entropy+platt", "id", r"entropy\+platt: entropy is not a probability"),
        ("maxprob+beta", "id", "unknown calibration 'beta'; expected one of temperature, platt, isotonic"),
        ("maxprob+platt", "shift", "no answers of shift in split val"),
    ],
)
def test_what_cannot_be_calibrated_is_named(scores, name, dataset, message):
    with pytest.raises(QuantrustError, match=message):
        add_calibrated(scores, [name], dataset)


def test_platt_needs_answers_of_both_kinds():
    with pytest.raises(QuantrustError, match="both kinds"):
        fit_platt(np.array([0.2, 0.9]), np.array([1.0, 1.0]))


@pytest.mark.parametrize("seed", range(3))
def test_calibrators_are_those_of_scikit_learn(seed):
    confidence, _, truth = overconfident(900, shift=0.7, seed=seed)
    confidence = confidence.round(2)
    quality = np.random.default_rng(seed).choice([0.0, 0.3, 1.0], size=900) * truth.round()
    steps = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(confidence, quality)
    found = fit_isotonic(confidence, quality)
    assert found.confidences == tuple(steps.X_thresholds_)
    np.testing.assert_allclose(found.values, steps.y_thresholds_, rtol=0, atol=1e-15)
    scores = np.tile(logit(confidence.clip(5e-324, 1 - 2**-53)), 2)[:, None]
    right, weights = np.repeat([1, 0], 900), np.concatenate([quality, 1 - quality])
    line = LogisticRegression(C=np.inf, tol=1e-9, max_iter=1000).fit(scores, right, sample_weight=weights)
    found = fit_platt(confidence, quality)
    assert (found.slope, found.intercept) == pytest.approx((line.coef_[0, 0], line.intercept_[0]), abs=1e-6)


def test_answers_that_a_threshold_divides_have_a_line_of_platt():
    # The steeper the line, the smaller the loss: there is no least one.
    calibrated = fit_platt(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]))(np.array([0.1, 0.5, 0.9]))
    assert calibrated[0] < 1e-4
    assert calibrated[1] == pytest.approx(0.5)
    assert calibrated[2] > 1 - 1e-4


def test_equal_confidences_become_their_mean_quality():
    quality = np.array([1.0, 0.0, 0.3, 0.0])
    for fit in (fit_platt, fit_isotonic):
        assert fit(np.full(4, 0.9), quality)(np.array([0.9])) == pytest.approx([0.325], abs=1e-5)


def test_jobs_that_fit_no_calibrator_import_nothing_that_fits_one():
    program = (
        "import sys, quantrust.evaluation.variant; sys.exit(bool({'sklearn', 'scipy.optimize'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
