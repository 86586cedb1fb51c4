"""Calibrators of estimators that are probabilities, fitted on val: temperature, Platt and isotonic."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from quantrust.confidence.catalogue import member_columns
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.metrics import Floats

Calibrator = Callable[[Floats], Floats]
"""Maps confidences in [0, 1] to calibrated ones."""


def fit_temperature(confidence: Floats, accuracy: Floats) -> Calibrator:
    """Fit one temperature T > 0 to divide logit(c) by, least cross-entropy against the qualities.

    Parameters
    ----------
    confidence, accuracy : ndarray of float64, shape (n,)
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
    scores = _logits(confidence)

    def cross_entropy(log_temperature: float) -> float:
        scaled = scores * np.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0.0, scaled) - accuracy * scaled))

    log_temperature = minimize_scalar(cross_entropy, bounds=(-5.0, 5.0), method="bounded").x
    return lambda c: expit(_logits(c) * np.exp(-log_temperature))


def fit_platt(confidence: Floats, accuracy: Floats) -> Calibrator:
    """Fit slope and intercept on logit(c), least cross-entropy against the qualities.

    Parameters
    ----------
    confidence, accuracy : ndarray of float64, shape (n,)
        Of the val answers, both in [0, 1].

    Returns
    -------
    Calibrator

    Notes
    -----
    Platt, "Probabilistic Outputs for Support Vector Machines" (1999), unpenalised. A soft target a is a right answer
    of weight a and a wrong one of weight 1 - a.
    """
    scores = _logits(confidence)
    model = LogisticRegression(C=np.inf, max_iter=1000)
    right = np.repeat([1, 0], scores.size)
    weights = np.concatenate([accuracy, 1.0 - accuracy])
    if not (weights[: scores.size].any() and weights[scores.size :].any()):
        raise QuantrustError(
            "Platt calibration: all val answers are fully right or all are wrong; expected val answers of both kinds"
        )
    model.fit(np.tile(scores, 2)[:, None], right, sample_weight=weights)
    return lambda c: model.predict_proba(_logits(c)[:, None])[:, 1]


def fit_isotonic(confidence: Floats, accuracy: Floats) -> Calibrator:
    """Fit a non-decreasing step function by least squares; it creates ties and so can change a risk-coverage curve.

    Parameters
    ----------
    confidence, accuracy : ndarray of float64, shape (n,)
        Of the val answers, both in [0, 1].

    Returns
    -------
    Calibrator

    Notes
    -----
    Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates" (KDD 2002).
    """
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(confidence, accuracy)
    return lambda c: np.asarray(model.predict(c))


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
    val = val_answers(scores, id_dataset, "scores", "calibration is fitted on")
    columns = []
    for name in wanted:
        estimator, method = name.rsplit("+", 1)
        if method not in METHODS:
            raise QuantrustError(f"{name}: unknown calibration {method!r}; expected one of {', '.join(METHODS)}")
        if estimator not in scores.columns:
            raise QuantrustError(f"{name}: no estimator {estimator!r}; expected one of the columns {scores.columns}")
        if not scores[estimator].is_between(0.0, 1.0).fill_null(False).all():
            raise QuantrustError(
                f"{name}: {estimator} is not a probability: values outside [0, 1]; expected to calibrate probabilities"
            )
        calibrate = METHODS[method](val[estimator].to_numpy(), val["accuracy"].to_numpy())
        columns.append(pl.Series(name, calibrate(scores[estimator].to_numpy())))
    return scores.with_columns(columns)


def _logits(confidence: Floats) -> Floats:
    # Only exact zeros and ones move, to the next number that has a finite logit, so that no new ties arise.
    return logit(np.clip(confidence, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0)))
