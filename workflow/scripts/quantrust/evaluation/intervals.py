"""Intervals from resampled values."""

import math

import numpy as np

from quantrust.evaluation.metric_records import metric_named
from quantrust.evaluation.metrics import Floats

LEVEL = 0.95
"""Nominal coverage of intervals where nothing else is asked for."""


def null_if_nan(value: float | None) -> float | None:
    """Return a number as tables hold it: None where it is undefined."""
    return None if value is None or math.isnan(value) else value


def metric_interval(
    name: str, value: float, resampled: Floats, level: float = LEVEL, members: Floats | None = None
) -> tuple[float, float]:
    """Return the interval of a metric: that of `interval`, but for calibration errors.

    A calibration error is biased upwards, a sum of absolute values that never cancel, and resampling adds the same bias
    once more: percentiles then lie beyond the truth. Its percentiles are therefore reflected at the value (the basic
    bootstrap), kept in [0, 1] and extended to contain the value. Where resamples are of several networks, each is
    reflected at the value of its own.

    Parameters
    ----------
    name : str
        The metric.
    value : float
        On the answers themselves.
    resampled : ndarray of float64, shape (resamples,)
        NaN where undefined.
    level : float
        Nominal coverage.
    members : ndarray of float64, shape (members,), optional
        Values of the networks that the resamples are of, in turn (`quantrust.evaluation.members`); by default `value`.

    Returns
    -------
    low, high : float
        NaN where the value or all resamples are undefined.

    Notes
    -----
    Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 5.2.
    """
    if math.isnan(value):
        return math.nan, math.nan
    if not metric_named(name).biased_upwards:
        return interval(resampled, level)
    own = np.full(1, value) if members is None else members
    low, high = interval(2 * own[np.arange(resampled.size) % own.size] - resampled, level)
    return max(0.0, min(value, low)), min(1.0, max(value, high))


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of resampled values, over those resamples on which the metric is defined.

    Parameters
    ----------
    values : ndarray of float64, shape (resamples,)
        NaN where undefined.
    level : float
        Nominal coverage.

    Returns
    -------
    low, high : float
        NaN where no resample has a value.
    """
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
