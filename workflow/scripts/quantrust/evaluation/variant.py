"""The metrics and curves tables of one variant: every estimator on every mixture, with intervals."""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.intervals import LEVEL, metric_interval, null_if_nan
from quantrust.evaluation.members import Members, in_turn, values_of, with_members
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.metrics import Floats, Ranking, risk_coverage_curve
from quantrust.evaluation.resampling import ImageDraws, Resampler, draw_images

CURVE_POINTS = 200
"""Points at most that a curve is stored with."""

METRICS_SCHEMA = pl.Schema(
    {
        "model": pl.String(),
        "scheme": pl.String(),
        "estimator": pl.String(),
        "dataset": pl.String(),
        "id_share": pl.Float64(),
        "metric": pl.String(),
        "parameter": pl.Float64(),
        "value": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
        "n": pl.Int64(),
        "members": pl.List(pl.Float64),
    }
)
CURVES_SCHEMA = pl.Schema(
    {
        "model": pl.String(),
        "scheme": pl.String(),
        "estimator": pl.String(),
        "dataset": pl.String(),
        "id_share": pl.Float64(),
        "coverage": pl.Float64(),
        "risk": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
    }
)


@dataclass(frozen=True)
class Setting:
    """A set of test answers that metrics are reported on.

    Attributes
    ----------
    dataset : str
        The shifted dataset, or the ID dataset where there is none.
    id_share : float or None
        Share of ID questions; None for a shifted test set as a whole, where its mixture of share 0 holds only a part.
    answers : polars.DataFrame
        Rows of the scores table, by dataset and question.
    """

    dataset: str
    id_share: float | None
    answers: pl.DataFrame


def settings_of(
    scores: pl.DataFrame, mixtures: Mapping[str, pl.DataFrame], id_dataset: str, *, with_id_dataset: bool = True
) -> Iterator[Setting]:
    """Yield the pure ID test set, then each shifted dataset's mixtures and, where they differ, its whole test set.

    Parameters
    ----------
    scores : polars.DataFrame
        The scores table of a variant.
    mixtures : mapping of str to polars.DataFrame
        The mixtures table of each shifted dataset.
    id_dataset : str
        The ID dataset.
    with_id_dataset : bool
        Whether its test set is among them.

    Raises
    ------
    QuantrustError
        If the scores lack a question of a mixture, or a dataset has no test answers.
    """
    test = scores.filter(pl.col("split") == "test").sort("dataset", "question_id")
    if with_id_dataset:
        yield Setting(id_dataset, 1.0, _whole(test, id_dataset))
    for dataset, table in mixtures.items():
        pure = 0
        for (share,), drawn in table.group_by("id_share", maintain_order=True):
            answers = test.join(drawn.select("dataset", "question_id"), on=["dataset", "question_id"], how="semi")
            if answers.height != drawn.height:
                missing = drawn.join(test, on=["dataset", "question_id"], how="anti").row(0, named=True)
                raise QuantrustError(
                    f"scores: question {missing['question_id']} of {missing['dataset']} is in a mixture with "
                    f"{dataset}, but has no test answer; expected features of the questions that the mixtures are of"
                )
            if share == 0.0:
                pure = answers.height
            yield Setting(dataset, share, answers)
        whole = _whole(test, dataset)
        if whole.height != pure:
            yield Setting(dataset, None, whole)


def whole_test_sets(
    scores: pl.DataFrame, mixtures: Mapping[str, pl.DataFrame], id_dataset: str, *, with_id_dataset: bool = True
) -> Iterator[Setting]:
    """Yield those settings of `settings_of` that hold a whole test set, one for each dataset."""
    pure = {dataset: table.filter(pl.col("id_share") == 0.0) for dataset, table in mixtures.items()}
    settings = list(settings_of(scores, pure, id_dataset, with_id_dataset=with_id_dataset))
    # If the mixture of share 0 is only a part of a test set, the whole test set follows it.
    yield from {setting.dataset: setting for setting in settings}.values()


@dataclass(frozen=True)
class EvaluationSettings:
    """What every estimator of a variant is evaluated with.

    Attributes
    ----------
    id_dataset : str
        The ID dataset.
    estimators : sequence of str
        Columns of the scores, or calibrated ones that `quantrust.evaluation.calibrators.add_calibrated` can add. An
        estimator with a confidence outside [0, 1] in the scores is not a probability; it has neither calibration errors
        nor a Brier score.
    risks : sequence of float
        Risk limits in [0, 1].
    costs : sequence of float
        At least 0.
    resamples : int
        Bootstrap resamples.
    seed : int
        Seed of the resamples.
    level : float
        Nominal coverage of the intervals and bands.
    """

    id_dataset: str
    estimators: Sequence[str]
    risks: Sequence[float]
    costs: Sequence[float]
    resamples: int
    seed: int
    level: float = LEVEL


def evaluate_variant(
    scores: pl.DataFrame,
    mixtures: Mapping[str, pl.DataFrame],
    *,
    model: str,
    scheme: str,
    settings: EvaluationSettings,
    with_id_dataset: bool = True,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Evaluate every estimator of a variant on every mixture.

    Thresholds are fixed on the ID val answers and used on every setting. Intervals come from resamples of the test
    images (see `metric_interval`), each of one member of a learned estimator (see `quantrust.evaluation.members`); each
    member's thresholds stay as they are meanwhile, so that the intervals of what depends on them do not include the
    uncertainty of choosing them. All estimators, and all variants given the same seed and mixtures, see the same
    resamples.

    Parameters
    ----------
    scores : polars.DataFrame
        Columns ``dataset``, ``split``, ``question_id``, ``image_id``, ``quality`` and one of confidences for each
        estimator, and for each further member of it. The row order does not matter.
    mixtures : mapping of str to polars.DataFrame
        For each shifted dataset the table of `quantrust.evaluation.mixtures.mixture_table`.
    model, scheme : str
        Names for the tables.
    settings : EvaluationSettings
    with_id_dataset : bool
        Whether to evaluate on the test set in distribution as well.

    Returns
    -------
    metrics, curves : polars.DataFrame
        With the columns of `METRICS_SCHEMA` and `CURVES_SCHEMA`; undefined values are null. ``members`` are the values
        of an estimator's members, the first of which is ``value``; null for an estimator that has one only.

    Raises
    ------
    QuantrustError
        If an estimator has no column or an unusable value, there are no ID val answers, or as `settings_of`.
    """
    scores = add_calibrated(scores, settings.estimators, settings.id_dataset)
    check_confidences(scores, settings.estimators, f"{model}/{scheme}")
    val = val_answers(scores, settings.id_dataset, f"{model}/{scheme}", "thresholds are set on")
    members = {
        estimator: Members.of(scores, val, estimator, settings.risks, settings.costs)
        for estimator in settings.estimators
    }

    metric_rows: list[tuple[object, ...]] = []
    curve_rows: list[tuple[object, ...]] = []
    for setting in settings_of(scores, mixtures, settings.id_dataset, with_id_dataset=with_id_dataset):
        resampler = Resampler(
            setting.answers["quality"].to_numpy(), draw_setting(setting, settings.resamples, settings.seed)
        )
        for estimator in settings.estimators:
            head = (model, scheme, estimator, setting.dataset, setting.id_share)
            rankings = members[estimator].rankings(setting.answers)
            values = members[estimator].summarise(rankings, settings.risks, settings.costs)
            resampled = members[estimator].resample(resampler, rankings, settings.risks, settings.costs)
            metric_rows += [
                (*head, *row) for row in _metric_rows(values, resampled, settings.level, setting.answers.height)
            ]
            curve_rows += [(*head, *row) for row in rows_of_curve(rankings, resampler, settings.level)]
    return (
        pl.DataFrame(metric_rows, schema=METRICS_SCHEMA, orient="row"),
        pl.DataFrame(curve_rows, schema=CURVES_SCHEMA, orient="row"),
    )


def check_confidences(scores: pl.DataFrame, estimators: Sequence[str], variant: str) -> None:
    """Raise a `QuantrustError` if an estimator has no column or a confidence that is not a finite number."""
    for estimator in estimators:
        if estimator not in scores.columns:
            raise QuantrustError(
                f"{variant}: no estimator {estimator!r} in the scores; expected one of the columns {scores.columns}"
            )
    for column in with_members(scores.columns, estimators):
        unusable = scores.filter(~pl.col(column).is_finite().fill_null(False))
        if not unusable.is_empty():
            row = unusable.row(0, named=True)
            raise QuantrustError(
                f"{variant}: question {row['question_id']} of {row['dataset']}: {column} is {row[column]}; "
                "expected a finite confidence"
            )


def draw_setting(setting: Setting, resamples: int, seed: int) -> ImageDraws:
    """Draw the resamples of a setting's images; the same for every variant and estimator.

    Answers of different datasets to the same `image_id` are drawn together, because AdVQA asks about COCO's pictures as
    VQAv2 does. Where datasets number different pictures alike, these are drawn together as well, which leaves the
    intervals valid; to draw one picture as two would not.
    """
    images = setting.answers["image_id"].to_numpy()
    # A seed of its own for each setting; of the name a checksum, because `hash` differs from run to run.
    share = 0 if setting.id_share is None else 1 + round(setting.id_share * 1_000_000)
    return draw_images(images, resamples, [seed, zlib.crc32(setting.dataset.encode()), share])


def remembered_draws(resamples: int, seed: int) -> Callable[[Setting], ImageDraws]:
    """Return `draw_setting` with these resamples, which draws for the same images of a setting once."""
    draws: dict[tuple[object, ...], ImageDraws] = {}

    def draw(setting: Setting) -> ImageDraws:
        key = (setting.dataset, setting.id_share, *setting.answers["image_id"])
        if key not in draws:
            draws[key] = draw_setting(setting, resamples, seed)
        return draws[key]

    return draw


def _whole(test: pl.DataFrame, dataset: str) -> pl.DataFrame:
    answers = test.filter(pl.col("dataset") == dataset)
    if answers.is_empty():
        raise QuantrustError(f"scores: no answers of {dataset} in split test; expected features of this dataset")
    return answers


def _metric_rows(
    summaries: Sequence[Mapping[Key, float]], resampled: Mapping[Key, Floats], level: float, n: int
) -> Iterator[tuple[object, ...]]:
    for key, value in summaries[0].items():
        own, low, high = values_of(summaries, key), math.nan, math.nan
        if key in resampled:
            low, high = metric_interval(key[0], value, resampled[key], level, own)
        members = [null_if_nan(float(one)) for one in own] if own.size > 1 else None
        yield (*key, *map(null_if_nan, (value, low, high)), n, members)


def rows_of_curve(rankings: Sequence[Ranking], resampler: Resampler, level: float) -> Iterator[tuple[float, ...]]:
    """Yield coverage, risk and the risk's interval along the risk-coverage curve.

    Parameters
    ----------
    rankings : sequence of Ranking
        Of the members of an estimator, the first of which has the curve.
    resampler : Resampler
        Of the same answers.
    level : float
        Nominal coverage of the intervals.
    """
    coverage, risk = risk_coverage_curve(rankings[0])
    points = min(CURVE_POINTS, rankings[0].n)
    index = np.arange(1, points + 1) * rankings[0].n // points - 1
    risks = in_turn(
        [
            resampler.part(member, len(rankings)).risks_at(ranking, coverage[index])
            for member, ranking in enumerate(rankings)
        ]
    )
    low, high = np.quantile(risks, [(1 - level) / 2, (1 + level) / 2], axis=0)
    yield from zip(*(column.tolist() for column in (coverage[index], risk[index], low, high)), strict=True)
