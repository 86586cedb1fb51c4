"""Calibrators of estimators that are probabilities, fitted on val: temperature, Platt and isotonic."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from quantrust.artifacts.records import read_record
from quantrust.confidence.catalogue import member_columns
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.metrics import Floats

STEEPEST = 1e-6
"""The largest slope of the mean cross-entropy at which Platt's line counts as found."""


@dataclass(frozen=True)
class Temperature:
    """Divides logit(c) by a temperature, given as its natural logarithm."""

    log_temperature: float

    def __call__(self, confidence: Floats) -> Floats:
        """Map confidences in [0, 1], float64 of shape (n,), to calibrated ones."""
        return _sigmoid(_logits(confidence) * np.exp(-self.log_temperature))


@dataclass(frozen=True)
class Platt:
    """A line on logit(c)."""

    slope: float
    intercept: float

    def __call__(self, confidence: Floats) -> Floats:
        """Map confidences in [0, 1], float64 of shape (n,), to calibrated ones."""
        return _sigmoid(self.slope * _logits(confidence) + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """Steps: the calibrated values at some confidences, in order, with straight lines between them."""

    confidences: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, confidence: Floats) -> Floats:
        """Map confidences in [0, 1], float64 of shape (n,), to calibrated ones."""
        return np.interp(confidence, self.confidences, self.values)


Calibrator = Temperature | Platt | Isotonic
"""Maps confidences in [0, 1] to calibrated ones; of plain numbers, so that a file can hold it."""


def fit_temperature(confidence: Floats, quality: Floats) -> Calibrator:
    """Fit one temperature T > 0 to divide logit(c) by, least cross-entropy against the qualities.

    Parameters
    ----------
    confidence, quality : ndarray of float64, shape (n,)
        Of the val answers, both in [0, 1].

    Returns
    -------
    Calibrator
        Strictly monotone but for rounding: the risk-coverage curve stays.

    Notes
    -----
    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2, on the answer's one probability
    instead of the logits of all classes, and with a soft target.
    """
    from scipy.optimize import minimize_scalar

    scores = _logits(confidence)

    def cross_entropy(log_temperature: float) -> float:
        scaled = scores * np.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0.0, scaled) - quality * scaled))

    log_temperature = minimize_scalar(cross_entropy, bounds=(-5.0, 5.0), method="bounded").x
    return Temperature(float(log_temperature))


def fit_platt(confidence: Floats, quality: Floats) -> Calibrator:
    """Fit slope and intercept on logit(c), least cross-entropy against the qualities.

    Parameters
    ----------
    confidence, quality : ndarray of float64, shape (n,)
        Of the val answers, both in [0, 1].

    Returns
    -------
    Calibrator

    Notes
    -----
    Platt, "Probabilistic Outputs for Support Vector Machines" (1999), unpenalised. A soft target a is a right answer
    of weight a and a wrong one of weight 1 - a.
    """
    from scipy.optimize import minimize

    if not (quality.any() and (1.0 - quality).any()):
        raise QuantrustError(
            "Platt calibration: all val answers are fully right or all are wrong; expected val answers of both kinds"
        )
    design = np.stack([_logits(confidence), np.ones_like(confidence)])

    def cross_entropy(line: Floats) -> float:
        scores = line @ design
        return float(np.mean(np.logaddexp(0.0, scores) - quality * scores))

    def slope(line: Floats) -> Floats:
        return design @ (_sigmoid(line @ design) - quality) / quality.size

    def curvature(line: Floats) -> Floats:
        right = _sigmoid(line @ design)
        return (design * (right * (1.0 - right))) @ design.T / quality.size

    found = minimize(
        cross_entropy, np.array([1.0, 0.0]), method="trust-exact", jac=slope, hess=curvature, options={"gtol": STEEPEST}
    )
    if not np.abs(found.jac).max() <= 2 * STEEPEST:
        raise QuantrustError(
            f"Platt calibration: no line was found ({found.message}); expected val answers whose confidences are not "
            "all alike"
        )
    return Platt(float(found.x[0]), float(found.x[1]))


def fit_isotonic(confidence: Floats, quality: Floats) -> Calibrator:
    """Fit a non-decreasing step function by least squares; it creates ties and so can change a risk-coverage curve.

    Parameters
    ----------
    confidence, quality : ndarray of float64, shape (n,)
        Of the val answers, both in [0, 1].

    Returns
    -------
    Calibrator

    Notes
    -----
    Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates" (KDD 2002).
    """
    from scipy.optimize import isotonic_regression

    # Equal confidences have one value, which is the mean quality behind them.
    confidences, places, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=quality) / counts
    values = np.clip(isotonic_regression(means, weights=counts).x, 0.0, 1.0)
    # Within a step, the line between its ends says all.
    inner = np.zeros(values.size, dtype=bool)
    inner[1:-1] = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
    return Isotonic(tuple(confidences[~inner].tolist()), tuple(values[~inner].tolist()))


KINDS: dict[str, type[Calibrator]] = {"temperature": Temperature, "platt": Platt, "isotonic": Isotonic}
METHODS: dict[str, Callable[[Floats, Floats], Calibrator]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def add_calibrated(scores: pl.DataFrame, estimators: Sequence[str], id_dataset: str) -> pl.DataFrame:
    """Add the columns of calibrated estimators, ``<estimator>+<method>``, fitted on the ID val answers.

    Parameters
    ----------
    scores : polars.DataFrame
        The scores table of a variant.
    estimators : sequence of str
        Names; those without a plus, and those that are columns already, are passed over. Each member of a learned
        estimator is calibrated by itself.
    id_dataset : str
        The ID dataset.

    Returns
    -------
    polars.DataFrame
        `scores` with the new columns, over all datasets and splits, at the end.

    Raises
    ------
    QuantrustError
        If an estimator to calibrate is missing or not a probability, a method is unknown, or there are no ID val
        answers.
    """
    wanted = [
        f"{column}+{name.rsplit('+', 1)[1]}"
        for name in estimators
        if "+" in name and name not in scores.columns
        for column in member_columns(scores.columns, name.rsplit("+", 1)[0])
    ]
    if not wanted:
        return scores
    columns = []
    for name in wanted:
        calibrate = fit_calibrator(scores, name, id_dataset)
        columns.append(pl.Series(name, calibrate(scores[name.rsplit("+", 1)[0]].to_numpy())))
    return scores.with_columns(columns)


def fit_calibrator(scores: pl.DataFrame, name: str, id_dataset: str) -> Calibrator:
    """Fit the calibrator of an estimator, ``<estimator>+<method>``, on the ID val answers.

    Parameters
    ----------
    scores : polars.DataFrame
        The scores table of a variant.
    name : str
    id_dataset : str

    Raises
    ------
    QuantrustError
        As `add_calibrated`.
    """
    val = val_answers(scores, id_dataset, "scores", "calibration is fitted on")
    estimator, method = name.rsplit("+", 1)
    if method not in METHODS:
        raise QuantrustError(f"{name}: unknown calibration {method!r}; expected one of {', '.join(METHODS)}")
    if estimator not in scores.columns:
        raise QuantrustError(f"{name}: no estimator {estimator!r}; expected one of the columns {scores.columns}")
    if not scores[estimator].is_between(0.0, 1.0).fill_null(False).all():
        raise QuantrustError(
            f"{name}: {estimator} is not a probability: values outside [0, 1]; expected to calibrate probabilities"
        )
    return METHODS[method](val[estimator].to_numpy(), val["quality"].to_numpy())


def calibrator_record(calibrator: Calibrator) -> dict[str, Any]:
    """Return a calibrator as plain numbers, with its ``method``."""
    (method,) = (name for name, kind in KINDS.items() if isinstance(calibrator, kind))
    return {"method": method, **dataclasses.asdict(calibrator)}


def calibrator_from_record(record: Mapping[str, Any], where: str) -> Calibrator:
    """Return the calibrator that a record holds.

    Parameters
    ----------
    record : mapping
        As `calibrator_record` returns it, or as JSON makes it.
    where : str
        Its place, for messages.

    Raises
    ------
    QuantrustError
        If the method is unknown, or a number is missing, unexpected or none; or if an isotonic calibrator's steps are
        not as many as their confidences, or out of order.
    """
    content = dict(record)
    method = content.pop("method", None)
    if method not in KINDS:
        raise QuantrustError(f"{where}: unknown calibration {method!r:.100}; expected one of {', '.join(KINDS)}")
    calibrator: Calibrator = read_record(KINDS[method], content, where)
    if isinstance(calibrator, Isotonic):
        rising = np.all(np.diff(calibrator.confidences) > 0) and np.all(np.diff(calibrator.values) >= 0)
        if not (len(calibrator.confidences) == len(calibrator.values) > 0 and rising):
            raise QuantrustError(f"{where}: the steps are not as many rising values as confidences; write it again")
    return calibrator


def _sigmoid(scores: Floats) -> Floats:
    # SciPy takes a fifth of a second to import, as long as all else in most jobs that know calibrators and use none
    from scipy.special import expit

    return expit(scores)


def _logits(confidence: Floats) -> Floats:
    from scipy.special import logit

    # Only exact zeros and ones move, to the next number that has a finite logit, so that no new ties arise.
    return logit(np.clip(confidence, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0)))
