"""Breakdowns of a variant's answers: metrics by kind of question, and accuracy by bin of confidence."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from quantrust.confidence.catalogue import member_columns
from quantrust.data.groupings import GROUPINGS
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.intervals import LEVEL, interval, null_if_nan
from quantrust.evaluation.members import are_probabilities, in_turn
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.metrics import BINS, CORRECT, Floats, width_bins
from quantrust.evaluation.resampling import ImageDraws
from quantrust.evaluation.results import Estimates, results_of
from quantrust.evaluation.variant import Setting, check_confidences, remembered_draws, whole_test_sets

GROUPS_SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "scheme": pl.String,
        "estimator": pl.String,
        "dataset": pl.String,
        "grouping": pl.String,
        "group": pl.String,
        "metric": pl.String,
        "parameter": pl.Float64,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "n": pl.Int64,
    }
)
BINS_SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "scheme": pl.String,
        "estimator": pl.String,
        "dataset": pl.String,
        "lower": pl.Float64,
        "upper": pl.Float64,
        "n": pl.Int64,
        "right": pl.Int64,
        "confidence": pl.Float64,
        "accuracy": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
)


@dataclass(frozen=True)
class BreakdownSettings:
    """What a variant is broken down with.

    Attributes
    ----------
    id_dataset : str
    estimators : sequence of str
    risks : sequence of float
    resamples : int
        Bootstrap resamples of images.
    seed : int
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    id_dataset: str
    estimators: Sequence[str]
    risks: Sequence[float]
    resamples: int
    seed: int
    level: float = LEVEL


def break_down(
    scores: pl.DataFrame,
    mixtures: Mapping[str, pl.DataFrame],
    *,
    model: str,
    scheme: str,
    settings: BreakdownSettings,
    with_id_dataset: bool = True,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Break the whole test sets of a variant down by group of questions and by bin of confidence.

    Parameters
    ----------
    scores, mixtures, model, scheme, with_id_dataset
        As in `quantrust.evaluation.variant.evaluate_variant`; the scores also have the columns of `GROUPINGS`.
    settings : BreakdownSettings

    Returns
    -------
    groups : polars.DataFrame
        Columns of `GROUPS_SCHEMA`: accuracy, ECE, AURC, C@R, and coverage and risk under the threshold that all ID val
        answers give, on the questions of one group. Questions without a value for a grouping are left out of it.
    bins : polars.DataFrame
        Columns of `BINS_SCHEMA`: for each estimator whose confidences are probabilities and each test set the
        equal-width bins of the calibration error, ``(lower, upper]`` and the first one with its lower edge; how many
        answers fall in, how many of these are right (quality of at least one half), and their mean confidence and
        quality, null in an empty bin.

    Raises
    ------
    QuantrustError
        As `evaluate_variant`.

    Notes
    -----
    Intervals are bootstrap intervals over images, and over the members of a learned estimator
    (`quantrust.evaluation.members`). The images of a group are resampled by themselves, so that every resample has
    questions of the group; a bin may be empty in a resample, which then does not count.
    """
    scores = add_calibrated(scores, settings.estimators, settings.id_dataset)
    check_confidences(scores, settings.estimators, f"{model}/{scheme}")
    test_sets = list(whole_test_sets(scores, mixtures, settings.id_dataset, with_id_dataset=with_id_dataset))
    # those of every group in memory, because each estimator asks for them
    draw = remembered_draws(settings.resamples, settings.seed)
    groups = list(_groups(test_sets))
    metrics: list[Key] = [("accuracy", None), ("ece", None), ("aurc", None)]
    metrics += [
        (name, risk) for risk in settings.risks for name in ("coverage_at_risk", "deployed_coverage", "deployed_risk")
    ]
    group_rows: list[tuple[object, ...]] = []
    bin_rows: list[tuple[object, ...]] = []
    for estimator in settings.estimators:
        results = results_of(
            Estimates(scores, estimator),
            [setting for _, _, setting in groups],
            id_dataset=settings.id_dataset,
            metrics=metrics,
            draw=draw,
        )
        for (grouping, group, setting), found in zip(groups, results, strict=True):
            head = (model, scheme, estimator, setting.dataset, grouping, group)
            for key in metrics:
                numbers = (found.values[key], *found.interval(key, settings.level))
                group_rows.append((*head, *key, *map(null_if_nan, numbers), setting.answers.height))
        if are_probabilities(scores, estimator):
            for setting in test_sets:
                place = (model, scheme, estimator, setting.dataset)
                columns = member_columns(scores.columns, estimator)
                bin_rows += [
                    (*place, *row) for row in rows_of_bins(setting.answers, columns, draw(setting), settings.level)
                ]
    return (
        pl.DataFrame(group_rows, schema=GROUPS_SCHEMA, orient="row"),
        pl.DataFrame(bin_rows, schema=BINS_SCHEMA, orient="row"),
    )


def _groups(settings: Sequence[Setting]) -> Iterator[tuple[str, str, Setting]]:
    for setting in settings:
        for grouping in GROUPINGS:
            for group in setting.answers[grouping].drop_nulls().unique().sort():
                answers = setting.answers.filter(pl.col(grouping) == group)
                yield grouping, group, Setting(setting.dataset, setting.id_share, answers)


def rows_of_bins(
    answers: pl.DataFrame, columns: Sequence[str], draws: ImageDraws, level: float
) -> Iterator[tuple[float | int | None, ...]]:
    """Yield the bins of an estimator as `BINS_SCHEMA` has them, from ``lower`` on.

    Parameters
    ----------
    answers : polars.DataFrame
        With ``quality`` and the columns.
    columns : sequence of str
        Of the members of the estimator, the first of which is its own; probabilities.
    draws : ImageDraws
        Of the answers' images.
    level : float
        Nominal coverage of the intervals.
    """
    confidence, quality = answers[columns[0]].to_numpy(), answers["quality"].to_numpy()
    bins = width_bins(confidence)

    def per_bin(values: Floats) -> Floats:
        return np.bincount(bins, values, minlength=BINS).astype(np.float64)

    counts, right = per_bin(np.ones(bins.size)), per_bin((quality >= CORRECT).astype(np.float64))
    # Tenths are integers, so that their sums do not depend on the order of the answers.
    tenths, confidences = per_bin(10 * quality), per_bin(confidence)
    resampled = in_turn(
        [
            _resampled_accuracies(
                width_bins(answers[column].to_numpy()),
                quality,
                ImageDraws(draws.image, draws.counts[member :: len(columns)]),
            )
            for member, column in enumerate(columns)
        ]
    )
    for place in range(BINS):
        edges = (place / BINS, (place + 1) / BINS, int(counts[place]), int(right[place]))
        if counts[place] == 0:
            yield (*edges, None, None, None, None)
            continue
        means = (confidences[place] / counts[place], tenths[place] / (10 * counts[place]))
        yield (*edges, *means, *interval(resampled[:, place], level))


def _resampled_accuracies(bins: np.ndarray, quality: Floats, draws: ImageDraws) -> Floats:
    """Return the mean accuracy in each bin on each resample, shape (resamples, bins); NaN where a bin is empty."""
    cells = draws.image * BINS + bins
    shape = (draws.counts.shape[1], BINS)
    counts = np.bincount(cells, minlength=shape[0] * BINS).reshape(shape)
    tenths = np.bincount(cells, 10 * quality, minlength=shape[0] * BINS).reshape(shape)
    drawn, drawn_tenths = (draws.counts.astype(np.float64) @ table for table in (counts, tenths))
    return np.divide(drawn_tenths, 10 * drawn, out=np.full(drawn.shape, math.nan), where=drawn > 0)
