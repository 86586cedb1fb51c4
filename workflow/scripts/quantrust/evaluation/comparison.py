"""Paired differences between two variants or two estimators, with p-values and Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from quantrust.errors import QuantrustError
from quantrust.evaluation.intervals import LEVEL, interval
from quantrust.evaluation.metrics import Floats, rank
from quantrust.evaluation.resampling import ImageDraws, Resampler
from quantrust.evaluation.study import draw_setting, settings_of
from quantrust.evaluation.summary import Deployment, Key, deploy, summarise

SCHEMA = pl.Schema(
    {
        "dataset": pl.String,
        "id_share": pl.Float64,
        "metric": pl.String,
        "parameter": pl.Float64,
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "p_value": pl.Float64,
        "p_holm": pl.Float64,
        "n": pl.Int64,
    }
)


@dataclass(frozen=True)
class Estimates:
    """One side of a comparison.

    Attributes
    ----------
    scores : polars.DataFrame
        The scores table of a variant.
    estimator : str
        The column of confidences.
    """

    scores: pl.DataFrame
    estimator: str


def compare(
    first: Estimates,
    second: Estimates,
    mixtures: Mapping[str, pl.DataFrame],
    *,
    id_dataset: str,
    metrics: Sequence[Key],
    resamples: int,
    seed: int,
    level: float = LEVEL,
) -> pl.DataFrame:
    """Test whether two variants, or two estimators of one, differ in reliability.

    Both sides answer the same questions, and each resample of images is applied to both. Thresholds are those that
    each side's ID val answers give; they stay fixed while the test images are resampled.

    Parameters
    ----------
    first, second : Estimates
        The difference is first minus second.
    mixtures : mapping of str to polars.DataFrame
        For each shifted dataset its mixtures.
    id_dataset : str
        The in-distribution dataset.
    metrics : sequence of Key
        What to compare: (name, parameter) pairs of the metrics table, thresholds excepted.
    resamples, seed, level
        As in `quantrust.evaluation.study.evaluate_variant`; the same seed gives the same resamples as there.

    Returns
    -------
    polars.DataFrame
        Columns of `SCHEMA`, a row for each setting and metric; a difference that is undefined is null. ``p_value`` is
        two-sided, ``p_holm`` corrected for all rows of the table.

    Raises
    ------
    QuantrustError
        If the two sides do not answer the same questions, or a metric is not one that is resampled.
    """
    sides = [_Side(estimates, id_dataset, metrics) for estimates in (first, second)]
    rows: list[tuple[object, ...]] = []
    pairs = [settings_of(estimates.scores, mixtures, id_dataset) for estimates in (first, second)]
    for one, other in zip(*pairs, strict=True):
        if not one.answers["question_id"].equals(other.answers["question_id"]):
            raise QuantrustError(
                f"comparison on {one.dataset}: the two sides do not answer the same questions; "
                "expected scores made from the same questions tables"
            )
        draws = draw_setting(one, resamples, seed)
        values, resampled = zip(
            *(side.evaluate(setting.answers, draws) for side, setting in zip(sides, (one, other), strict=True)),
            strict=True,
        )
        for key in metrics:
            difference = values[0][key] - values[1][key]
            between = resampled[0][key] - resampled[1][key]
            low, high = interval(between, level)
            p = two_sided_p_value(between)
            figures = [math.nan] * 4 if math.isnan(difference) else [difference, low, high, p]
            rows.append((one.dataset, one.id_share, *key, *figures, math.nan, one.answers.height))
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    table = table.with_columns(p_holm=pl.Series(holm(table["p_value"].to_numpy())))
    return table.with_columns(pl.col("difference", "low", "high", "p_value", "p_holm").fill_nan(None))


class _Side:
    def __init__(self, estimates: Estimates, id_dataset: str, metrics: Sequence[Key]):
        self._estimator = estimates.estimator
        self._risks = _parameters(metrics, "risk")
        self._costs = _parameters(metrics, "effective_reliability")
        confidence = estimates.scores[estimates.estimator]
        self._is_probability = bool(confidence.is_between(0.0, 1.0).all())
        val = estimates.scores.filter((pl.col("dataset") == id_dataset) & (pl.col("split") == "val"))
        if val.is_empty():
            raise QuantrustError(f"comparison: no answers of {id_dataset} in split val, which thresholds are set on")
        ranking = rank(val["accuracy"], val[estimates.estimator])
        self._deployment: Deployment = deploy(ranking, self._risks, self._costs)
        self._metrics = metrics

    def evaluate(self, answers: pl.DataFrame, draws: ImageDraws) -> tuple[dict[Key, float], dict[Key, Floats]]:
        ranking = rank(answers["accuracy"], answers[self._estimator])
        settings = (self._risks, self._costs, self._deployment, self._is_probability)
        resampled = Resampler(answers["accuracy"].to_numpy(), draws).evaluate(ranking, *settings)
        for key in self._metrics:
            if key not in resampled:
                raise QuantrustError(f"comparison: no metric {key}; expected one of {sorted(map(str, resampled))}")
        return summarise(ranking, *settings), resampled


def _parameters(metrics: Sequence[Key], word: str) -> list[float]:
    given = [parameter for name, parameter in metrics if parameter is not None and _kind(name) == word]
    return list(dict.fromkeys(given))


def _kind(name: str) -> str:
    return "effective_reliability" if name.startswith("effective_reliability") else "risk"


def two_sided_p_value(differences: Floats) -> float:
    """Return the two-sided bootstrap p-value of a difference.

    Twice the smaller share of resamples on either side of zero, the observed sample counted among them, so that no
    p-value is zero.

    Parameters
    ----------
    differences : ndarray of float64, shape (resamples,)
        NaN where undefined on a resample; these are left out.

    Returns
    -------
    float
        In (0, 1]; NaN without any defined difference.

    Notes
    -----
    The level at which the percentile interval just reaches zero: Efron and Tibshirani, "An Introduction to the
    Bootstrap" (1993), section 15.4.

    Examples
    --------
    >>> two_sided_p_value(np.array([0.1, 0.2, 0.3, -0.1] + [0.4] * 15))
    0.2
    """
    defined = differences[~np.isnan(differences)]
    if defined.size == 0:
        return math.nan
    beyond = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return float(min(1.0, 2.0 * (beyond + 1) / (defined.size + 1)))


def holm(p_values: ArrayLike) -> Floats:
    """Correct p-values for their number by Holm's step-down procedure.

    Parameters
    ----------
    p_values : array_like, shape (m,)
        NaN is no test and stays NaN.

    Returns
    -------
    ndarray of float64, shape (m,)
        Rejecting where these are at most alpha keeps the probability of any false rejection at alpha.

    Notes
    -----
    Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (Scandinavian Journal of Statistics 1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, math.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return corrected
