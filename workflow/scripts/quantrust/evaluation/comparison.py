"""Paired differences between two variants or two estimators, with p-values and Holm's correction."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.intervals import LEVEL, interval
from quantrust.evaluation.metric_records import OF_ANSWERS_ALONE, Key
from quantrust.evaluation.metrics import Floats
from quantrust.evaluation.resampled_variant import read_resampled
from quantrust.evaluation.results import Estimates, MetricResults, results_of
from quantrust.evaluation.variant import draw_setting, settings_of

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
Variant = tuple[str, str]
"""Model and scheme."""


@dataclass(frozen=True)
class ComparisonSettings:
    """What is compared, and how.

    Attributes
    ----------
    pairs : sequence of pairs of (model, scheme, estimator)
        What to compare; the difference is the first minus the second.
    metrics : sequence of Key
        As in `compare`.
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    pairs: Sequence[tuple[tuple[str, str, str], tuple[str, str, str]]]
    metrics: Sequence[Key]
    level: float = LEVEL


def write_comparisons(
    resampled_paths: Mapping[tuple[str, str], str | Path], out_path: str | Path, settings: ComparisonSettings
) -> None:
    """Compare pairs of variants or estimators on whole test sets from their resampled metrics and write one table.

    Parameters
    ----------
    resampled_paths : mapping of (str, str) to str or Path
        The file of `quantrust.evaluation.resampled_variant` by model and scheme; all of the same resamples.
    out_path : str or Path
        Parquet file to write: ``first_model``, ``first_scheme``, ``first_estimator``, the same of the second, and the
        columns of `SCHEMA`. ``p_holm`` is corrected for all rows of the file. Metrics of the answers alone are compared
        for the first pair of two variants only, and not between estimators of one variant, whose answers are the same.
    settings : ComparisonSettings

    Raises
    ------
    QuantrustError
        If two variants do not answer the same questions, or a file is missing or damaged.
    """
    compared, answers_compared = [], set()
    places: dict[Variant, list[int]] = {}
    for place, (first, second) in enumerate(settings.pairs):
        variants = (first[:2], second[:2])
        repeated = variants[0] == variants[1] or variants in answers_compared
        answers_compared.add(variants)
        compared.append([key for key in settings.metrics if not (repeated and key[0] in OF_ANSWERS_ALONE)])
        places.setdefault(first[:2], []).append(place)
    # Most variants are compared with one and the same, which is kept; the others are in memory one at a time.
    reference = lru_cache(maxsize=1)(lambda variant: read_resampled(resampled_paths[variant]))
    names = [f"{place}_{name}" for place in ("first", "second") for name in NAMES]
    tables: dict[int, pl.DataFrame] = {}
    resamples = 0
    for variant, own_places in places.items():
        own = read_resampled(resampled_paths[variant])
        # All variants have as many.
        resamples = next(iter(own.values()))[0].resamples
        for place in own_places:
            first, second = settings.pairs[place]
            against = own if second[:2] == variant else reference(second[:2])
            table = differences(own[first[2]], against[second[2]], compared[place], settings.level)
            pair = [pl.lit(value).alias(name) for name, value in zip(names, (*first, *second), strict=True)]
            tables[place] = table.select(*pair, pl.all())
        # Before the next is read.
        del own, against
    empty = pl.DataFrame(schema={**dict.fromkeys(names, pl.String), **SCHEMA})
    table = corrected(pl.concat([empty, *(tables[place] for place in sorted(tables))]))
    if tables:
        warn_of_few_resamples(resamples, table["p_holm"].count(), 1 - settings.level)
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


def differences(
    first: Sequence[MetricResults], second: Sequence[MetricResults], metrics: Sequence[Key], level: float
) -> pl.DataFrame:
    """Return the table of `compare` before correction, from both sides' results on the same settings.

    Raises
    ------
    QuantrustError
        If the two sides do not answer the same questions.
    """
    rows: list[tuple[object, ...]] = []
    for one, other in zip(first, second, strict=True):
        asked = one.asked
        if asked.questions != other.asked.questions:
            raise QuantrustError(
                f"comparison on {asked.dataset}: the two sides do not answer the same questions; "
                "expected scores made from the same questions tables"
            )
        for key in metrics:
            difference = one.values[key] - other.values[key]
            between = one.resampled[key] - other.resampled[key]
            low, high = interval(between, level)
            p = two_sided_p_value(between)
            numbers = [math.nan] * 4 if math.isnan(difference) else [difference, low, high, p]
            rows.append((asked.dataset, asked.id_share, *key, *numbers, math.nan, asked.n))
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return table.with_columns(pl.col("difference", "low", "high", "p_value").fill_nan(None))


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
