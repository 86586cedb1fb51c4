"""Paired differences between two variants or two estimators, with p-values and Holm's correction."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from quantrust.artifacts.tables import read_table, write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.intervals import LEVEL, interval, metric_interval
from quantrust.evaluation.members import Members, values_of
from quantrust.evaluation.metric_records import METRICS, OF_ANSWERS_ALONE, Key
from quantrust.evaluation.metrics import Floats
from quantrust.evaluation.resampling import ImageDraws, Resampler
from quantrust.evaluation.variant import (
    Setting,
    check_confidences,
    draw_setting,
    remembered_draws,
    settings_of,
    whole_test_sets,
)

_log = logging.getLogger(__name__)

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

    Both sides answer the same questions, and each resample of images is applied to both, with the member of the same
    number where both are learned (see `quantrust.evaluation.members`). Thresholds are those that each side's ID val
    answers give; they stay fixed while the test images are resampled.

    Parameters
    ----------
    first, second : Estimates
        The difference is first minus second.
    mixtures : mapping of str to polars.DataFrame
        For each shifted dataset its mixtures.
    id_dataset : str
        The ID dataset.
    metrics : sequence of Key
        What to compare: (name, parameter) pairs of the metrics table, thresholds excepted.
    resamples, seed, level
        As in `quantrust.evaluation.variant.evaluate_variant`; the same seed gives the same resamples as there.

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
    one, other = (
        results_of(
            estimates,
            settings_of(estimates.scores, mixtures, id_dataset),
            id_dataset=id_dataset,
            metrics=metrics,
            draw=partial(draw_setting, resamples=resamples, seed=seed),
        )
        for estimates in (first, second)
    )
    return corrected(differences(one, other, metrics, level))


NAMES = ("model", "scheme", "estimator")


@dataclass(frozen=True)
class ComparisonSettings:
    """What is compared, and how.

    Attributes
    ----------
    pairs : sequence of pairs of (model, scheme, estimator)
        What to compare; the difference is the first minus the second. Calibrated estimators are made on the way.
    id_dataset : str
    metrics : sequence of Key
        As in `compare`.
    resamples : int
        Bootstrap resamples of images.
    seed : int
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    pairs: Sequence[tuple[tuple[str, str, str], tuple[str, str, str]]]
    id_dataset: str
    metrics: Sequence[Key]
    resamples: int
    seed: int
    level: float = LEVEL


def write_comparisons(
    scores_paths: Mapping[tuple[str, str], str | Path],
    mixture_paths: Mapping[str, str | Path],
    out_path: str | Path,
    settings: ComparisonSettings,
) -> None:
    """Compare pairs of variants or estimators on whole test sets from their files and write one table.

    Parameters
    ----------
    scores_paths : mapping of (str, str) to str or Path
        The Parquet file of scores by model and scheme.
    mixture_paths : mapping of str to str or Path
        For each shifted dataset the Parquet file of its mixtures.
    out_path : str or Path
        Parquet file to write: ``first_model``, ``first_scheme``, ``first_estimator``, the same of the second, and the
        columns of `SCHEMA`. ``p_holm`` is corrected for all rows of the file. Metrics of the answers alone are compared
        for the first pair of two variants only, and not between estimators of one variant, whose answers are the same.
    settings : ComparisonSettings

    Raises
    ------
    QuantrustError
        As `compare`.
    """
    mixtures = {dataset: read_table(path) for dataset, path in mixture_paths.items()}
    estimators: dict[tuple[str, str], list[str]] = {}
    for model, scheme, estimator in dict.fromkeys(side for pair in settings.pairs for side in pair):
        estimators.setdefault((model, scheme), []).append(estimator)
    draw = remembered_draws(settings.resamples, settings.seed)
    # Every side is resampled once, however many pairs it is in.
    results: dict[tuple[str, str, str], list[Results]] = {}
    for (model, scheme), columns in estimators.items():
        scores = add_calibrated(read_table(scores_paths[model, scheme]), columns, settings.id_dataset)
        check_confidences(scores, columns, f"{model}/{scheme}")
        test_sets = list(whole_test_sets(scores, mixtures, settings.id_dataset))
        for estimator in columns:
            results[model, scheme, estimator] = results_of(
                Estimates(scores, estimator),
                test_sets,
                id_dataset=settings.id_dataset,
                metrics=settings.metrics,
                draw=draw,
            )
    names = [f"{place}_{name}" for place in ("first", "second") for name in NAMES]
    tables = [pl.DataFrame(schema={**dict.fromkeys(names, pl.String), **SCHEMA})]
    answers_compared = set()
    for first, second in settings.pairs:
        variants = (first[:2], second[:2])
        repeated = variants[0] == variants[1] or variants in answers_compared
        answers_compared.add(variants)
        compared = [key for key in settings.metrics if not (repeated and key[0] in OF_ANSWERS_ALONE)]
        pair = [pl.lit(value).alias(name) for name, value in zip(names, (*first, *second), strict=True)]
        tables.append(differences(results[first], results[second], compared, settings.level).select(*pair, pl.all()))
    table = corrected(pl.concat(tables))
    warn_of_few_resamples(settings.resamples, table["p_holm"].count(), 1 - settings.level)
    write_table(table, out_path)


def warn_of_few_resamples(resamples: int, tests: int, alpha: float) -> None:
    """Log a warning if Holm's correction for so many tests leaves no p-value of `resamples` resamples at most alpha."""
    if resamples < fewest_resamples(tests, alpha):
        _log.warning(
            "comparison.resamples is %d, and %d differences are corrected together: no p-value can be at most %.4g, "
            "which takes %d resamples or more",
            *(resamples, tests, alpha, fewest_resamples(tests, alpha)),
        )


def corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Fill the column ``p_holm`` of a table of differences, which may lack it: corrected for all its rows."""
    p_values = table["p_value"].fill_null(math.nan).to_numpy()
    return table.with_columns(p_holm=pl.Series(holm(p_values)).fill_nan(None))


@dataclass(frozen=True)
class Results:
    """One side of a comparison on one setting.

    Attributes
    ----------
    setting : Setting
        The questions.
    members : sequence of mapping of Key to float
        Metrics on the answers by the confidence of each member of the estimator, at least those asked for; NaN where
        undefined.
    resampled : mapping of Key to ndarray of float64, shape (resamples,)
        Those asked for, on every resample, each of one member in turn.
    """

    setting: Setting
    members: Sequence[Mapping[Key, float]]
    resampled: Mapping[Key, Floats]

    @property
    def values(self) -> Mapping[Key, float]:
        """Metrics of the estimator itself, which is the first member."""
        return self.members[0]

    def interval(self, key: Key, level: float) -> tuple[float, float]:
        """Return the interval of a metric; see `quantrust.evaluation.intervals.metric_interval`."""
        own = values_of(self.members, key)
        return metric_interval(key[0], self.values[key], self.resampled[key], level, own)


def results_of(
    estimates: Estimates,
    settings: Iterable[Setting],
    *,
    id_dataset: str,
    metrics: Sequence[Key],
    draw: Callable[[Setting], ImageDraws],
    progress: Callable[[int], None] = lambda resamples: None,
) -> list[Results]:
    """Compute the metrics of one side of a comparison on every setting and on every resample of it.

    Parameters
    ----------
    estimates : Estimates
    settings : iterable of Setting
        With answers from the scores of `estimates`.
    id_dataset : str
        The dataset whose val answers set the thresholds.
    metrics : sequence of Key
        As in `compare`.
    draw : callable
        Returns the resamples of a setting's images; the same for both sides.
    progress : callable
        Called with the number of resamples done since the last call.

    Raises
    ------
    QuantrustError
        If there are no val answers in distribution, or a metric is not one that is resampled.
    """
    scores, estimator = estimates.scores, estimates.estimator
    val = val_answers(scores, id_dataset, "comparison", "thresholds are set on")
    risks, costs = _parameters(metrics, "risk"), _parameters(metrics, "cost")
    members = Members.of(scores, val, estimator, risks, costs)
    results = []
    for setting in settings:
        rankings = members.rankings(setting.answers)
        resampler = Resampler(setting.answers["quality"].to_numpy(), draw(setting))
        resampled = members.resample(resampler, rankings, risks, costs, progress, wanted=metrics)
        for key in metrics:
            if key not in resampled:
                raise QuantrustError(
                    f"comparison: no metric {key}; expected those of the metrics table, thresholds excepted"
                )
        values = members.summarise(rankings, risks, costs)
        results.append(Results(setting, values, {key: resampled[key] for key in metrics}))
    return results


def differences(
    first: Sequence[Results], second: Sequence[Results], metrics: Sequence[Key], level: float
) -> pl.DataFrame:
    """Return the table of `compare` before correction, from both sides' results on the same settings.

    Raises
    ------
    QuantrustError
        If the two sides do not answer the same questions.
    """
    rows: list[tuple[object, ...]] = []
    for one, other in zip(first, second, strict=True):
        setting = one.setting
        if not setting.answers["question_id"].equals(other.setting.answers["question_id"]):
            raise QuantrustError(
                f"comparison on {setting.dataset}: the two sides do not answer the same questions; "
                "expected scores made from the same questions tables"
            )
        for key in metrics:
            difference = one.values[key] - other.values[key]
            between = one.resampled[key] - other.resampled[key]
            low, high = interval(between, level)
            p = two_sided_p_value(between)
            numbers = [math.nan] * 4 if math.isnan(difference) else [difference, low, high, p]
            rows.append((setting.dataset, setting.id_share, *key, *numbers, math.nan, setting.answers.height))
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return table.with_columns(pl.col("difference", "low", "high", "p_value").fill_nan(None))


def _parameters(metrics: Sequence[Key], kind: str) -> list[float]:
    kinds = {metric.name: metric.parameter for metric in METRICS}
    given = [parameter for name, parameter in metrics if parameter is not None and kinds.get(name) == kind]
    return list(dict.fromkeys(given))


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


def fewest_resamples(tests: int, alpha: float) -> int:
    """Return from how many resamples on Holm's correction can leave any of some p-values significant.

    No p-value of `two_sided_p_value` is below 2 / (resamples + 1), and the correction multiplies the smallest by the
    number of tests.

    Parameters
    ----------
    tests : int
        P-values that are corrected together.
    alpha : float
        The level, in (0, 1), that a corrected one must not exceed.

    Examples
    --------
    >>> fewest_resamples(648, 0.05), fewest_resamples(33, 0.05)
    (25919, 1319)
    """
    # Rounded first, because 2 * 33 / 0.05 is a hair above 1,320 in floating point, or may be.
    return math.ceil(round(2 * tests / alpha - 1, 6))


def holm(p_values: ArrayLike) -> Floats:
    """Correct p-values for their number by Holm's step-down procedure.

    Parameters
    ----------
    p_values : array_like, shape (m,)
        NaN where nothing was tested; it stays NaN and does not count.

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
