import numpy as np
import pytest

from quantrust.evaluation.intervals import interval, metric_interval


def test_an_interval_leaves_undefined_resamples_out():
    assert interval(np.array([np.nan, 1.0, 2.0, 3.0]), 0.5) == (1.5, 2.5)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_intervals_of_calibration_errors_are_reflected_and_contain_the_value():
    resampled = np.array([0.10, 0.12, 0.14])
    assert metric_interval("aurc", 0.09, resampled, 0.5) == pytest.approx((0.11, 0.13))
    assert metric_interval("ece", 0.09, resampled, 0.5) == pytest.approx((0.05, 0.09))
    assert metric_interval("ece_mass", 0.12, resampled, 0.5) == pytest.approx((0.11, 0.13))
    assert metric_interval("ece", 0.05, resampled, 0.5) == pytest.approx((0.0, 0.05))
    assert np.isnan(metric_interval("ece", np.nan, resampled)).all()
