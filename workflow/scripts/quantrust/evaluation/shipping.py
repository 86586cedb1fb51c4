"""Verdicts on which schemes are fit to ship: the share of the unquantized model that each keeps, and a criterion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.intervals import LEVEL, interval, null_if_nan
from quantrust.evaluation.limits import fewest_to_judge
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.metrics import Floats
from quantrust.evaluation.resampled_variant import read_resampled
from quantrust.evaluation.results import MetricResults

SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "scheme": pl.String,
        "estimator": pl.String,
        "dataset": pl.String,
        "metric": pl.String,
        "parameter": pl.Float64,
        "reference": pl.Float64,
        "value": pl.Float64,
        "kept": pl.Float64,
        "kept_low": pl.Float64,
        "kept_high": pl.Float64,
        "verdict": pl.String,
        "members": pl.Int64,
        "members_meet": pl.Int64,
        "members_fail": pl.Int64,
        "n": pl.Int64,
        "images": pl.Int64,
    }
)
MEETS, FAILS, OPEN = "meets", "fails", "open"


def fewest_images(keeps: float, level: float) -> int:
    """Return the least number of images that can judge whether a share is kept; a loss is judged like a risk.

    Examples
    --------
    >>> fewest_images(0.95, 0.95), fewest_images(1.0, 0.95)
    (73, 1)
    """
    # Whether everything is kept depends on these answers alone: no number of them shows that no other answer is lost.
    return fewest_to_judge(1.0 - keeps, level) if keeps < 1.0 else 1


def verdict(low: float, high: float, keeps: float, images: int, level: float = LEVEL) -> str:
    """Compare the interval of a kept share with the share that must be kept.

    Parameters
    ----------
    low, high : float
        NaN where undefined.
    keeps : float
    images : int
        Images that the interval is of.
    level : float
        Nominal coverage of the interval.

    Returns
    -------
    str
        ``meets`` where the whole interval lies at or above `keeps`, ``fails`` where it lies below, ``open`` where it
        contains `keeps`, is undefined or is of fewer images than `fewest_images`: the questions do not settle it.

    Examples
    --------
    >>> verdict(0.96, 1.02, 0.95, 750), verdict(0.70, 0.90, 0.95, 750), verdict(0.90, 0.99, 0.95, 750)
    ('meets', 'fails', 'open')
    >>> verdict(1.0, 1.0, 0.95, 10)
    'open'
    """
    if images < fewest_images(keeps, level):
        return OPEN
    if low >= keeps:
        return MEETS
    return FAILS if high < keeps else OPEN


def judge(ratios: Floats, members: int, keeps: float, images: int, level: float = LEVEL) -> tuple[str, int, int, int]:
    """Judge resampled shares of several members in turn; a verdict is settled if the intervals of all members agree.

    Parameters
    ----------
    ratios : ndarray of float64, shape (resamples,)
        Resample r is of member r mod `members`; NaN where undefined.
    members : int
    keeps : float
        Share that has to be kept.
    images : int
        Images that the resamples are of.
    level : float
        Nominal coverage of the members' intervals.

    Returns
    -------
    verdict : str
        As `verdict` gives it.
    members, meet, fail : int
        How many members there are, and how many of them meet and fail the criterion.

    Examples
    --------
    >>> judge(np.array([0.99, 0.97, 0.98, 0.96]), 2, 0.95, 750)
    ('meets', 2, 2, 0)
    >>> judge(np.array([0.99, 0.90, 0.98, 0.91]), 2, 0.95, 750)
    ('open', 2, 1, 1)
    """
    found = [verdict(*interval(ratios[member::members], level), keeps, images, level) for member in range(members)]
    settled = found[0] if len(set(found)) == 1 else OPEN
    return settled, members, found.count(MEETS), found.count(FAILS)


@dataclass(frozen=True)
class ShippingSettings:
    """What schemes are held against their reference by.

    Attributes
    ----------
    reference : str
        The scheme that the others are held against.
    estimators : sequence of str
        By whose confidence answers are kept, on both sides; each has verdicts of its own.
    risks : sequence of float
        Risk limits R, in [0, 1]; each has verdicts of its own, on the same resamples.
    keeps : float
        Share of the reference's coverage at risk that a scheme has to keep, in (0, 1].
    level : float in (0, 1)
        Nominal coverage of the intervals.
    corpus_metrics : sequence of str
        Metrics of all answers together that the study has.
    """

    reference: str
    estimators: Sequence[str]
    risks: Sequence[float]
    keeps: float
    level: float = LEVEL
    corpus_metrics: Sequence[str] = ()


def write_shipping(
    resampled_paths: Mapping[tuple[str, str], str | Path], out_path: str | Path, settings: ShippingSettings
) -> None:
    """Tabulate the shares of a model's accuracy and coverage at risk that every scheme keeps, on whole test sets.

    A kept share is a scheme's value over that of the reference on the same questions. Its interval is that of the
    ratio on resamples of images that both sides share, so that what the two have in common cancels. By a learned
    estimator each resample is one of one member on both sides (see `quantrust.evaluation.members`), and a verdict is
    given only where the interval of every member gives it: another training would not have changed it.

    Parameters
    ----------
    resampled_paths : mapping of (str, str) to str or Path
        The file of `quantrust.evaluation.resampled_variant` by model and scheme; all of the same resamples.
    out_path : str or Path
        Parquet file to write, with the columns of `SCHEMA`: for every variant but the reference, every estimator and
        every dataset, a row for accuracy and for each of the corpus metrics, without a verdict, and one for the
        coverage at each risk limit, which is the ``parameter``. Beside the verdict stands how many members the
        estimator has, and how many of them meet and fail the criterion by their own intervals. No rows where the scores
        have no reference.
    settings : ShippingSettings

    Raises
    ------
    QuantrustError
        If two schemes of a model do not answer the same questions, or a file is missing or damaged.
    """
    of_answers: list[Key] = [(name, None) for name in ("accuracy", *settings.corpus_metrics)]
    metrics: list[Key] = [*of_answers, *(("coverage_at_risk", risk) for risk in settings.risks)]
    rows: list[tuple[object, ...]] = []
    for model in dict.fromkeys(model for model, _ in resampled_paths):
        schemes = [scheme for name, scheme in resampled_paths if name == model and scheme != settings.reference]
        if not schemes or (model, settings.reference) not in resampled_paths:
            continue
        bases = read_resampled(resampled_paths[model, settings.reference])
        for scheme in schemes:
            found = read_resampled(resampled_paths[model, scheme])
            pairs = [
                (estimator, *pair)
                for estimator in settings.estimators
                for pair in zip(bases[estimator], found[estimator], strict=True)
            ]
            for estimator, base, own in pairs:
                asked = base.asked
                if asked.questions != own.asked.questions:
                    raise QuantrustError(
                        f"{model}/{scheme} and {model}/{settings.reference} do not answer the same questions of "
                        f"{asked.dataset}; expected scores made from the same questions tables"
                    )
                for key in metrics:
                    kept, ratios = _kept(base, own, key)
                    numbers = (base.values[key], own.values[key], kept, *interval(ratios, settings.level))
                    judged: tuple[str, int, int, int] | tuple[None, None, None, None] = (None, None, None, None)
                    if key[0] == "coverage_at_risk":
                        members = math.lcm(len(base.members), len(own.members))
                        judged = judge(ratios, members, settings.keeps, asked.images, settings.level)
                    rows.append(
                        (
                            *(model, scheme, estimator, asked.dataset, *key),
                            *map(null_if_nan, numbers),
                            *(*judged, asked.n, asked.images),
                        )
                    )
    write_table(pl.DataFrame(rows, schema=SCHEMA, orient="row"), out_path)


def _kept(base: MetricResults, own: MetricResults, key: Key) -> tuple[float, Floats]:
    """Return a scheme's share of the reference's value, also on each resample; NaN where the reference has none."""
    references = base.resampled[key]
    undefined = np.full(references.shape, math.nan)
    if base.values[key] == 0:
        return math.nan, undefined
    return own.values[key] / base.values[key], np.divide(
        own.resampled[key], references, out=undefined, where=references > 0
    )
