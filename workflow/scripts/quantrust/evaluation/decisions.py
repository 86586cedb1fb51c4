"""The coverage that each risk limit of a grid leaves a variant, and the threshold for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.certification import CertificationSettings, evaluate_certification
from quantrust.evaluation.comparison import Estimates, results_of
from quantrust.evaluation.intervals import LEVEL, null_if_nan
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.study import check_confidences, draw_setting, whole_test_sets
from quantrust.evaluation.summary import deploy

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
        "certified_coverage": pl.Float64,
        "certified_risk": pl.Float64,
        "splits": pl.Int64,
        "certified_share": pl.Float64,
        "certified_median_coverage": pl.Float64,
        "certified_median_risk": pl.Float64,
        "certified_violation_rate": pl.Float64,
    }
)
CERTIFIED = {
    "certified_threshold": "threshold",
    "certified_coverage": "coverage",
    "certified_risk": "risk",
    "splits": "splits",
    "certified_share": "certified_share",
    "certified_median_coverage": "median_coverage",
    "certified_median_risk": "median_risk",
    "certified_violation_rate": "violation_rate",
}
"""Columns that are those of `quantrust.evaluation.certification`, under their names there."""
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
        Probability, in (0, 1), with which a certificate may fail.
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
) -> pl.DataFrame:
    """Tabulate thresholds and coverages of a variant on whole test sets, for every risk limit of a grid.

    Parameters
    ----------
    scores, mixtures, model, scheme
        As in `quantrust.evaluation.study.evaluate_variant`; where its metrics hold a limit of the grid, the results
        here are the same.
    settings : DecisionSettings

    Returns
    -------
    polars.DataFrame
        Columns of `SCHEMA`, a row for each estimator, dataset and limit. ``coverage`` is C@R, with the threshold read
        off the labels of the test set; ``threshold`` is the one that ID val answers give, about ``val_images`` images,
        and the deployed columns are what it does on the test set: ``deployed_images`` of its ``images`` have a question
        that is answered. ``certified_threshold``, ``certified_coverage`` and ``certified_risk`` are those of the first
        random half of `quantrust.evaluation.certification.evaluate_certification`, the other certified columns those of
        all ``splits``. Null where undefined or where there is no such threshold. Of a learned estimator thresholds and
        results are those of its first member, which is deployed; intervals and ``splits`` are over all members, each
        under its own threshold.

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
        thresholds = deploy(rank(val["accuracy"], val[estimator]), settings.risks, []).risk_thresholds
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
                        *(certificate[column] for column in CERTIFIED.values()),
                    )
                )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
