"""Fairness by group: what the one threshold of a variant does to each group of questions, and whether bits widen gaps.

A service has one threshold for all questions. Here its coverage and risk are taken on the questions of each group, and
held against those of all questions: the difference is the group's gap. A group is *behind* where its risk is higher
than that of all questions, or its coverage lower.

The worst of many groups is partly noise: of groups that are all alike, one is the worst on any sample. Two things pay
for that. All intervals of the groups of a grouping hold at once (Bonferroni: of k groups each has the level
1 - (1 - level) / k), so that a group may be picked after looking, and it is called behind only where the interval of
its gap says so. And `worst_share` says in what share of the resamples the same group is the worst. The gap itself, as
measured, is on average too wide for the group that was picked for it.

Whether quantization widens a gap is a paired question: on each resample of images, the gap under a scheme minus that of
the reference. The p-values of all groups, estimators and schemes of a model on a dataset are corrected together. A gap
in coverage is never wider than the coverage of all questions, so that it also narrows where a variant answers little.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quantrust.artifacts.tables import read_table, write_table
from quantrust.data.groupings import GROUPINGS
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import read_scores, val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.comparison import corrected, two_sided_p_value, warn_of_few_resamples
from quantrust.evaluation.intervals import LEVEL, interval, null_if_nan
from quantrust.evaluation.limits import fewest_to_judge
from quantrust.evaluation.members import Members, in_turn
from quantrust.evaluation.metric_records import metric_named
from quantrust.evaluation.metrics import Floats, at_threshold, rank
from quantrust.evaluation.resampled_metrics import answered, ratio
from quantrust.evaluation.resampling import ImageDraws
from quantrust.evaluation.shipping import FAILS, MEETS, OPEN
from quantrust.evaluation.variant import Setting, check_confidences, remembered_draws, whole_test_sets

COVERAGE, RISK = "deployed_coverage", "deployed_risk"
METRICS = (COVERAGE, RISK)
WIDENS, NARROWS, AHEAD = "widens", "narrows", "ahead"

SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "scheme": pl.String,
        "estimator": pl.String,
        "dataset": pl.String,
        "grouping": pl.String,
        "group": pl.String,
        "metric": pl.String,
        "risk_limit": pl.Float64,
        "threshold": pl.Float64,
        "n": pl.Int64,
        "images": pl.Int64,
        "answered": pl.Int64,
        "answered_images": pl.Int64,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "verdict": pl.String,
        "groups": pl.Int64,
        "gap": pl.Float64,
        "gap_low": pl.Float64,
        "gap_high": pl.Float64,
        "behind": pl.Boolean,
        "worst": pl.Boolean,
        "worst_share": pl.Float64,
        "reference_gap": pl.Float64,
        "change": pl.Float64,
        "change_low": pl.Float64,
        "change_high": pl.Float64,
        "p_value": pl.Float64,
        "p_holm": pl.Float64,
        "effect": pl.String,
    }
)


@dataclass(frozen=True)
class FairnessSettings:
    """What the groups of questions are held against each other by.

    Attributes
    ----------
    groupings : sequence of str
        Columns of the scores, or of the tables of groups that are given beside them, by which questions are grouped.
    reference : str
        The scheme whose gaps the others' are held against.
    estimators : sequence of str
        By whose confidence questions are answered, each under its own threshold.
    risk : float in (0, 1)
        The risk limit that the thresholds keep on the ID val answers.
    id_dataset : str
    resamples : int
        Bootstrap resamples of images.
    seed : int
    level : float in (0, 1)
        Nominal coverage of the intervals; 1 - level is the level of the tests.
    """

    groupings: Sequence[str]
    reference: str
    estimators: Sequence[str]
    risk: float
    id_dataset: str
    resamples: int
    seed: int
    level: float = LEVEL

    @property
    def fewest(self) -> int:
        """The number of images below which nothing is said about a group."""
        return fewest_to_judge(self.risk, self.level)


def write_fairness(
    scores_paths: Mapping[tuple[str, str], str | Path],
    mixture_paths: Mapping[str, str | Path],
    group_paths: Mapping[str, str | Path],
    out_path: str | Path,
    settings: FairnessSettings,
) -> None:
    """Tabulate the coverage and risk of every group of questions under one threshold, on whole test sets.

    Parameters
    ----------
    scores_paths : mapping of (str, str) to str or Path
        The Parquet file of scores by model and scheme.
    mixture_paths : mapping of str to str or Path
        For each shifted dataset the Parquet file of its mixtures.
    group_paths : mapping of str to str or Path
        For each dataset that has further groupings their Parquet file (`quantrust.data.question_groups`).
    out_path : str or Path
        Parquet file to write, with the columns of `SCHEMA`: see `judge_groups`.
    settings : FairnessSettings

    Raises
    ------
    QuantrustError
        As `judge_groups`.
    """
    mixtures = {dataset: read_table(path) for dataset, path in mixture_paths.items()}
    groups = {dataset: read_table(path) for dataset, path in group_paths.items()}
    draw = remembered_draws(settings.resamples, settings.seed)
    tables = [pl.DataFrame(schema=SCHEMA)]
    for model in dict.fromkeys(model for model, _ in scores_paths):
        schemes = [scheme for name, scheme in scores_paths if name == model]
        # The reference first, so that of the others only one is in memory at a time.
        schemes.sort(key=lambda scheme: scheme != settings.reference)
        scores = (
            (scheme, read_scores(scores_paths[model, scheme], settings.estimators, settings.groupings))
            for scheme in schemes
        )
        tables.append(judge_groups(model, scores, mixtures, groups, draw=draw, settings=settings))
    table = pl.concat(tables)
    families = table.group_by("model", "dataset").agg(pl.col("p_holm").count())["p_holm"].to_list()
    warn_of_few_resamples(settings.resamples, max(families, default=0), 1 - settings.level)
    order = pl.DataFrame(list(scores_paths), schema=["model", "scheme"], orient="row")
    write_table(order.join(table, on=["model", "scheme"], maintain_order="left_right").select(SCHEMA.names()), out_path)


def judge_groups(
    model: str,
    scores: Iterator[tuple[str, pl.DataFrame]],
    mixtures: Mapping[str, pl.DataFrame],
    groups: Mapping[str, pl.DataFrame],
    *,
    draw: Callable[[Setting], ImageDraws],
    settings: FairnessSettings,
) -> pl.DataFrame:
    """Tabulate the groups of questions of a model under all its schemes.

    Parameters
    ----------
    model : str
    scores : iterator of (str, polars.DataFrame)
        Schemes with their scores tables; the reference, where there is one, comes first.
    mixtures : mapping of str to polars.DataFrame
        For each shifted dataset its mixtures.
    groups : mapping of str to polars.DataFrame
        For some datasets ``question_id`` and a column of groups, null for none, for each grouping that is no column of
        the scores. A dataset without it has no groups there.
    draw : callable
        Returns the resamples of a setting's images, the same for every scheme.
    settings : FairnessSettings

    Returns
    -------
    polars.DataFrame
        Columns of `SCHEMA`, for every scheme, estimator and dataset two rows (coverage and risk) for all questions,
        whose ``grouping`` and ``group`` are null, and two for each group. ``threshold`` is the one that all ID val
        answers give. Of ``n`` questions about ``images`` images it answers ``answered``, about ``answered_images``.
        ``value`` is a fraction; ``verdict`` says of a risk whether its whole interval keeps the limit (``meets``), lies
        above it (``fails``), or neither (``open``). ``gap`` is the group's value minus that of all questions of the
        dataset. ``groups`` is the number k of groups of the grouping of which anything is said; the intervals of
        ``value`` and ``gap`` hold for all k at once, and a verdict needs as many answered images as
        `quantrust.evaluation.limits.fewest_to_judge` asks for at their level. ``worst`` marks the group that is
        furthest behind, and ``worst_share`` is the share of resamples in which it is. ``change`` is the gap minus
        ``reference_gap``, the reference's, with an interval of its own and a two-sided p-value; ``p_holm`` is corrected
        for all rows of the model and dataset. ``effect`` is ``open`` where it is not below 1 - level. Otherwise it says
        that the group is further behind than under the reference (``widens``), less far (``narrows``), or behind under
        neither (``ahead``).

        Numbers are null where nothing is said: of a group with fewer images than `FairnessSettings.fewest`, and of
        the risk where fewer are answered. So are changes where either side has no gap.

    Raises
    ------
    QuantrustError
        If an estimator or grouping has no column, there are no ID val answers, or two schemes do not answer the same
        questions.

    Notes
    -----
    Of a learned estimator the numbers are those of its first member; each resample is one of one member under its own
    threshold (see `quantrust.evaluation.members`), the same member on both sides of a change.
    """
    references: dict[tuple[str, str], _Side] = {}
    partitions: dict[str, _Partition] = {}
    rows: list[dict[str, object]] = []
    for scheme, table in scores:
        table = add_calibrated(table, settings.estimators, settings.id_dataset)
        check_confidences(table, settings.estimators, f"{model}/{scheme}")
        val = val_answers(table, settings.id_dataset, f"{model}/{scheme}", "thresholds are set on")
        for setting in whole_test_sets(table, mixtures, settings.id_dataset):
            if setting.dataset not in partitions:
                partitions[setting.dataset] = _partition(setting, groups, draw(setting), settings)
            partition = partitions[setting.dataset]
            if not partition.questions.equals(setting.answers["question_id"]):
                raise QuantrustError(
                    f"{model}/{scheme} and another scheme of {model} do not answer the same questions of "
                    f"{setting.dataset}; expected scores made from the same questions tables"
                )
            for estimator in settings.estimators:
                side = _side(partition, setting, Members.of(table, val, estimator, [settings.risk], []), settings)
                if scheme == settings.reference:
                    references[setting.dataset, estimator] = side
                head = {"model": model, "scheme": scheme, "estimator": estimator, "dataset": setting.dataset}
                against = None if scheme == settings.reference else references.get((setting.dataset, estimator))
                rows += [head | row for row in _rows(partition, side, against, settings)]
    found = pl.DataFrame(rows, schema=SCHEMA)
    families = [corrected(family) for _, family in found.group_by("dataset", maintain_order=True)]
    return pl.concat(families).with_columns(effect=_effect(1 - settings.level))


@dataclass(frozen=True)
class _Partition:
    """The questions of a test set by group; column 0 is that of all questions, the others are those of `names`.

    Attributes
    ----------
    questions : polars.Series
        Identifiers of the questions.
    names : list of (str, str)
        Grouping and group, in the order of the groupings.
    inside : ndarray of bool, shape (n, 1 + groups)
        Which questions are in which group.
    draws : ImageDraws
    """

    questions: pl.Series
    names: list[tuple[str, str]]
    inside: NDArray[np.bool_]
    draws: ImageDraws

    def by_image(self, values: Floats) -> Floats:
        """Sum values of the questions, shape (n,), over each image and group, shape (images, 1 + groups)."""
        images = self.draws.counts.shape[1]
        columns = [np.bincount(self.draws.image, values * inside, minlength=images) for inside in self.inside.T]
        return np.stack(columns, axis=1)

    def images(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count the images with a chosen question in each group, shape (1 + groups,)."""
        return np.count_nonzero(self.by_image(chosen.astype(np.float64)), axis=0)

    @cached_property
    def sizes(self) -> Floats:
        """Questions of each group on each resample, shape (resamples, 1 + groups)."""
        return self.draws.sums(self.by_image(np.ones(len(self.inside))))


def _partition(
    setting: Setting, groups: Mapping[str, pl.DataFrame], draws: ImageDraws, settings: FairnessSettings
) -> _Partition:
    answers = setting.answers
    columns, names = [np.ones(answers.height, dtype=np.bool_)], []
    for grouping in settings.groupings:
        values = _groups_of(answers, grouping, groups.get(setting.dataset))
        for group in values.drop_nulls().unique().sort():
            names.append((grouping, group))
            columns.append((values == group).fill_null(False).to_numpy())
    return _Partition(answers["question_id"], names, np.stack(columns, axis=1), draws)


def _groups_of(answers: pl.DataFrame, grouping: str, groups: pl.DataFrame | None) -> pl.Series:
    """Return the group of each answer's question, null for none."""
    if grouping in GROUPINGS:
        return answers[grouping]
    if groups is None or grouping not in groups.columns:
        return pl.Series([None] * answers.height, dtype=pl.String)
    own = groups.select("question_id", pl.col(grouping).alias("group"))
    return answers.select("question_id").join(own, on="question_id", how="left", maintain_order="left")["group"]


@dataclass(frozen=True)
class _Side:
    """Results of one scheme and estimator in all groups.

    Attributes
    ----------
    threshold : float or None
    answered, answered_images : ndarray of int64, shape (1 + groups,)
    values : mapping of str to ndarray of float64, shape (1 + groups,)
        By metric; NaN where nothing is said.
    resampled : mapping of str to ndarray of float64, shape (resamples, 1 + groups)
        NaN where undefined on a resample.
    """

    threshold: float | None
    answered: NDArray[np.int64]
    answered_images: NDArray[np.int64]
    values: Mapping[str, Floats]
    resampled: Mapping[str, Floats]

    def gaps(self, metric: str) -> Floats:
        """Return the gap of each group, shape (1 + groups,); that of all questions is 0."""
        return self.values[metric] - self.values[metric][0]

    def resampled_gap(self, metric: str, place: int) -> Floats:
        """Return the gap of one group on each resample, shape (resamples,)."""
        return self.resampled[metric][:, place] - self.resampled[metric][:, 0]


def _side(partition: _Partition, setting: Setting, members: Members, settings: FairnessSettings) -> _Side:
    quality = setting.answers["quality"].to_numpy()
    members.check(settings.resamples)
    coverages, risks, count = [], [], len(members.columns)
    thresholds = [deployment.risk_thresholds[settings.risk] for deployment in members.deployments]
    for member, (column, threshold) in enumerate(zip(members.columns, thresholds, strict=True)):
        through = answered(setting.answers[column].to_numpy(), threshold)
        draws = partition.draws.part(member, count)
        # In tenths, which are whole numbers for ten reference answers, so that equal answers give equal sums.
        by_image = [partition.by_image(values) for values in (through, through * (10.0 - 10.0 * quality))]
        kept, lost_tenths = np.split(draws.sums(np.concatenate(by_image, axis=1)), 2, axis=1)
        coverages.append(ratio(kept, partition.sizes[member::count]))
        risks.append(ratio(lost_tenths, 10.0 * kept))
    confidence = setting.answers[members.columns[0]].to_numpy()
    kept_first = answered(confidence, thresholds[0]) > 0
    images, answered_images = partition.images(np.ones_like(kept_first)), partition.images(kept_first)
    points = [at_threshold(rank(quality[inside], confidence[inside]), thresholds[0]) for inside in partition.inside.T]
    enough = {COVERAGE: images >= settings.fewest, RISK: answered_images >= settings.fewest}
    values = {
        COVERAGE: np.array([point.coverage for point in points]),
        RISK: np.array([point.risk for point in points]),
    }
    return _Side(
        thresholds[0],
        np.count_nonzero(partition.inside & kept_first[:, None], axis=0),
        answered_images,
        {metric: np.where(enough[metric], values[metric], math.nan) for metric in METRICS},
        {COVERAGE: in_turn(coverages), RISK: in_turn(risks)},
    )


def _rows(
    partition: _Partition, side: _Side, against: _Side | None, settings: FairnessSettings
) -> Iterator[dict[str, object]]:
    """Yield the rows of a scheme and estimator on a test set: of all questions, then of each group."""
    sizes = np.count_nonzero(partition.inside, axis=0)
    images = partition.images(np.ones(len(partition.inside), dtype=np.bool_))
    found = {metric: _judged(partition.names, side, metric, settings) for metric in METRICS}
    for place, (grouping, group) in enumerate([(None, None), *partition.names]):
        for metric in METRICS:
            row = {
                "grouping": grouping,
                "group": group,
                "metric": metric,
                "risk_limit": settings.risk,
                "threshold": side.threshold,
                "n": int(sizes[place]),
                "images": int(images[place]),
                "answered": int(side.answered[place]),
                "answered_images": int(side.answered_images[place]),
                **found[metric].get(place, {}),
            }
            if against is not None and place:
                row |= _change(side, against, metric, place, settings.level)
            yield row


def _judged(
    names: Sequence[tuple[str, str]], side: _Side, metric: str, settings: FairnessSettings
) -> dict[int, dict[str, object]]:
    """Return the numbers of a metric of all questions and of each group of which anything is said, by their columns."""
    gaps = side.gaps(metric)
    said = ~np.isnan(gaps)
    found = {0: _measured(side, metric, 0, settings.risk, settings.level)} if said[0] else {}
    for grouping in dict.fromkeys(grouping for grouping, _ in names):
        places = [place for place, name in enumerate(names, start=1) if name[0] == grouping and said[place]]
        if not places:
            continue
        # How far each group is behind: positive where its risk is higher or its coverage lower.
        sign = -1.0 if metric_named(metric).higher_is_better else 1.0
        resampled_gaps = np.stack([side.resampled_gap(metric, place) for place in places], axis=1)
        behind = sign * resampled_gaps
        furthest = behind >= np.where(np.isnan(behind), -math.inf, behind).max(axis=1)[:, None]
        worst = places[int(np.argmax(sign * gaps[places]))] if len(places) > 1 else None
        each = 1 - (1 - settings.level) / len(places)
        for column, place in enumerate(places):
            low, high = interval(resampled_gaps[:, column], each)
            found[place] = _measured(side, metric, place, settings.risk, each) | {
                "groups": len(places),
                "gap": float(gaps[place]),
                "gap_low": null_if_nan(low),
                "gap_high": null_if_nan(high),
                "behind": low > 0 if sign > 0 else high < 0,
                "worst": place == worst,
                "worst_share": float(furthest[:, column].mean()) if len(places) > 1 else None,
            }
    return found


def _measured(side: _Side, metric: str, place: int, limit: float, level: float) -> dict[str, object]:
    """Return a metric of a group with its interval, and of a risk its verdict."""
    low, high = interval(side.resampled[metric][:, place], level)
    numbers: dict[str, object] = {
        "value": float(side.values[metric][place]),
        "low": null_if_nan(low),
        "high": null_if_nan(high),
    }
    if metric == RISK:
        numbers["verdict"] = _verdict(low, high, int(side.answered_images[place]), limit, level)
    return numbers


def _verdict(low: float, high: float, images: int, limit: float, level: float) -> str:
    """Compare the interval of a risk with the limit; too few images do not settle it."""
    if images < fewest_to_judge(limit, level):
        return OPEN
    if high <= limit:
        return MEETS
    return FAILS if low > limit else OPEN


def _change(side: _Side, against: _Side, metric: str, place: int, level: float) -> dict[str, object]:
    """Return how a gap differs from the reference's, on the same resamples; nothing where either is not known."""
    reference = float(against.gaps(metric)[place])
    change = float(side.gaps(metric)[place]) - reference
    if math.isnan(change):
        return {"reference_gap": null_if_nan(reference)}
    between = side.resampled_gap(metric, place) - against.resampled_gap(metric, place)
    low, high = interval(between, level)
    return {
        "reference_gap": reference,
        "change": change,
        "change_low": null_if_nan(low),
        "change_high": null_if_nan(high),
        "p_value": null_if_nan(two_sided_p_value(between)),
    }


def _effect(alpha: float) -> pl.Expr:
    """Say what quantization does to a gap, where that is significant at the level alpha."""
    falling = pl.col("metric").is_in([name for name in METRICS if metric_named(name).higher_is_better])
    # How far the group is behind, 0 where it is ahead.
    own, reference = (
        pl.when(falling).then(-pl.col(name)).otherwise(pl.col(name)).clip(lower_bound=0.0)
        for name in ("gap", "reference_gap")
    )
    return (
        pl.when(pl.col("p_holm").is_null())
        .then(None)
        .when(pl.col("p_holm") >= alpha)
        .then(pl.lit(OPEN))
        .when(own > reference)
        .then(pl.lit(WIDENS))
        .when(own < reference)
        .then(pl.lit(NARROWS))
        .otherwise(pl.lit(AHEAD))
    )
