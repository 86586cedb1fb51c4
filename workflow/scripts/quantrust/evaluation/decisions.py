"""The coverage that each risk limit of a grid leaves a variant, and the threshold for it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.certification import CertificationSettings, evaluate_certification
from quantrust.evaluation.intervals import LEVEL, null_if_nan
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.operating_points import OperatingPoints
from quantrust.evaluation.results import Estimates, results_of
from quantrust.evaluation.summary import deploy
from quantrust.evaluation.variant import check_confidences, draw_setting, whole_test_sets

SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "scheme": pl.String,
        "estimator": pl.String,
        "dataset": pl.String,
        "risk_limit": pl.Float64,
        "n": pl.Int64,
        "images": pl.Int64,
        "val_images": pl.Int64,
        "coverage": pl.Float64,
        "coverage_low": pl.Float64,
        "coverage_high": pl.Float64,
        "threshold": pl.Float64,
        "deployed_coverage": pl.Float64,
        "deployed_coverage_low": pl.Float64,
        "deployed_coverage_high": pl.Float64,
        "deployed_risk": pl.Float64,
        "deployed_risk_low": pl.Float64,
        "deployed_risk_high": pl.Float64,
        "deployed_images": pl.Int64,
        "certified_threshold": pl.Float64,
        "certified_delta": pl.Float64,
        "certified_images": pl.Int64,
        "certified_fewest": pl.Int64,
        "certified_coverage": pl.Float64,
        "certified_coverage_low": pl.Float64,
        "certified_coverage_high": pl.Float64,
        "certified_risk": pl.Float64,
        "certified_risk_low": pl.Float64,
        "certified_risk_high": pl.Float64,
        "splits": pl.Int64,
        "certified_share": pl.Float64,
        "certified_median_coverage": pl.Float64,
        "certified_median_risk": pl.Float64,
        "certified_violation_rate": pl.Float64,
    }
)
OF_HALVES = {
    "splits": "splits",
    "certified_share": "certified_share",
    "certified_median_coverage": "median_coverage",
    "certified_median_risk": "median_risk",
    "certified_violation_rate": "violation_rate",
}
"""Columns that are those of `quantrust.evaluation.certification`, under their names there."""
MEASURED = ("coverage", "coverage_low", "coverage_high", "risk", "risk_low", "risk_high")
"""What the table has of a certified threshold's `quantrust.evaluation.operating_points.Measured`."""
RESAMPLED = {"coverage_at_risk": "coverage", "deployed_coverage": "deployed_coverage", "deployed_risk": "deployed_risk"}
"""Metrics with an interval, and their columns."""


@dataclass(frozen=True)
class DecisionSettings:
    """What the thresholds of a variant are tabulated with.

    Attributes
    ----------
    id_dataset : str
    estimators : sequence of str
    risks : sequence of float
        Limits R, in (0, 1).
    delta : float
        Probability, in (0, 1), with which a certificate of a random half may fail.
    splits : int
        Random halves of the ID test images, each of which certifies.
    resamples : int
        Bootstrap resamples of images.
    seed : int
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    id_dataset: str
    estimators: Sequence[str]
    risks: Sequence[float]
    delta: float
    splits: int
    resamples: int
    seed: int
    level: float = LEVEL

    @property
    def certification(self) -> CertificationSettings:
        """The same limits and halves, for the certificates."""
        return CertificationSettings(self.id_dataset, self.estimators, self.risks, self.delta, self.splits, self.seed)


def decide_variant(
    scores: pl.DataFrame,
    mixtures: Mapping[str, pl.DataFrame],
    *,
    model: str,
    scheme: str,
    settings: DecisionSettings,
    shipped: OperatingPoints | None = None,
) -> pl.DataFrame:
    """Tabulate thresholds and coverages of a variant on whole test sets, for every risk limit of a grid.

    Parameters
    ----------
    scores, mixtures, model, scheme
        As in `quantrust.evaluation.variant.evaluate_variant`; where its metrics hold a limit of the grid, the results
        here are the same.
    settings : DecisionSettings
    shipped : OperatingPoints, optional
        Those that the variant ships with; by default none.

    Returns
    -------
    polars.DataFrame
        Columns of `SCHEMA`, a row for each estimator, dataset and limit. ``coverage`` is C@R, with the threshold read
        off the labels of the test set; ``threshold`` is the one that ID val answers give, about ``val_images`` images,
        and the deployed columns are what it does on the test set: ``deployed_images`` of its ``images`` have a question
        that is answered. ``certified_threshold`` is the one that ships, certified on ``certified_images`` ID test
        images, one question of each; every such threshold of the model keeps its limit in distribution, except with
        probability ``certified_delta`` for all of them together. A certificate takes at least ``certified_fewest``
        answers. ``certified_coverage`` and ``certified_risk`` are what the threshold does on the test set. These
        columns are null where the limit was not declared in the config. ``splits``, ``certified_share`` and the columns
        after it are those of `quantrust.evaluation.certification.evaluate_certification`, which certifies on random
        halves and shows how often that succeeds, and how often the limit is broken on what is left. Null where
        undefined or where there is no such threshold. Of a learned estimator thresholds and results are those of its
        first member, which is deployed; intervals and ``splits`` are over all members, each under its own threshold.

    Raises
    ------
    QuantrustError
        As `evaluate_variant` and `evaluate_certification`.
    """
    scores = add_calibrated(scores, settings.estimators, settings.id_dataset)
    check_confidences(scores, settings.estimators, f"{model}/{scheme}")
    test_sets = list(whole_test_sets(scores, mixtures, settings.id_dataset))
    draws = {setting.dataset: draw_setting(setting, settings.resamples, settings.seed) for setting in test_sets}
    certified = evaluate_certification(
        scores,
        {dataset: table.filter(pl.col("id_share") == 0.0) for dataset, table in mixtures.items()},
        model=model,
        scheme=scheme,
        settings=settings.certification,
    )
    val = val_answers(scores, settings.id_dataset, f"{model}/{scheme}", "thresholds are set on")
    val_images = val["image_id"].n_unique()
    wanted: list[Key] = [(metric, risk) for metric in RESAMPLED for risk in settings.risks]
    rows: list[tuple[object, ...]] = []
    for estimator in settings.estimators:
        thresholds = deploy(rank(val["quality"], val[estimator]), settings.risks, []).risk_thresholds
        for results in results_of(
            Estimates(scores, estimator),
            test_sets,
            id_dataset=settings.id_dataset,
            metrics=wanted,
            draw=lambda setting: draws[setting.dataset],
        ):
            setting = results.setting
            surest = setting.answers.group_by("image_id").agg(pl.col(estimator).max())[estimator]
            here = certified.filter(
                pl.col("estimator") == estimator,
                pl.col("dataset") == setting.dataset,
                pl.col("id_share").eq_missing(setting.id_share),
            )
            for risk in settings.risks:
                certificate = here.row(by_predicate=pl.col("risk_limit") == risk, named=True)
                triples = []
                for metric in RESAMPLED:
                    triples.append((results.values[metric, risk], *results.interval((metric, risk), settings.level)))
                coverage, deployed_coverage, deployed_risk = triples
                numbers = (*coverage, thresholds[risk], *deployed_coverage, *deployed_risk)
                answered = 0 if thresholds[risk] is None else int((surest >= thresholds[risk]).sum())
                rows.append(
                    (
                        *(model, scheme, estimator, setting.dataset, risk, setting.answers.height, surest.len()),
                        val_images,
                        *map(null_if_nan, numbers),
                        answered,
                        *_that_ships(shipped, estimator, risk, setting.dataset),
                        *(certificate[column] for column in OF_HALVES.values()),
                    )
                )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _that_ships(shipped: OperatingPoints | None, estimator: str, risk: float, dataset: str) -> tuple[object, ...]:
    """Return the columns of the certified threshold that ships, from ``certified_threshold`` on."""
    nothing = dict.fromkeys(MEASURED)
    certification = None if shipped is None else shipped.certification
    sought = [
        one
        for one in (() if certification is None else certification.sought)
        if (one.estimator, one.risk_limit) == (estimator, risk)
    ]
    if shipped is None or certification is None or not sought:
        return (None, None, None, None, *nothing.values())
    head = (certification.delta, certification.images, sought[0].fewest)
    point = next((one for one in shipped.points_for(estimator, risk) if one.certified), None)
    if point is None:
        return (None, *head, *nothing.values())
    measured = next((dataclasses.asdict(one) for one in point.measured if one.dataset == dataset), nothing)
    return (point.threshold, *head, *(measured[column] for column in MEASURED))
