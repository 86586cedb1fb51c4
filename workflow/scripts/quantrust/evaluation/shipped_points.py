"""The operating points that a variant ships with: thresholds from val, and thresholds certified on all ID test images.

Each split serves one purpose. The Selector trains on dev. Val decides when its training stops, fits calibrators, sets
the val thresholds and fixes the candidates that are certified, with their order. The ID test images certify: no model,
no Selector, no calibrator, no threshold and no candidate saw them before. One question of each image is drawn at
random, because questions that share an image are not independent; the images' other questions certify nothing.

What a threshold did on the test set is measured on all questions. For a certified threshold these are, in distribution,
questions about the images that certified it: the certificate is the promise there, and the measurement describes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from quantrust.artifacts.tables import read_table, table_notes
from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.certification import one_question_an_image
from quantrust.evaluation.intervals import LEVEL, interval, null_if_nan
from quantrust.evaluation.metric_records import Deployment, Key
from quantrust.evaluation.metrics import Ranking, at_threshold, rank
from quantrust.evaluation.operating_points import (
    CERTIFIED,
    VAL,
    Certification,
    Conditions,
    Measured,
    OperatingPoint,
    OperatingPoints,
    Sought,
    write_operating_points,
)
from quantrust.evaluation.resampling import ImageDraws, Resampler
from quantrust.evaluation.shared_delta import candidates_by_limit, certify_limits, share_of_each
from quantrust.evaluation.summary import deploy
from quantrust.evaluation.variant import Setting, check_confidences, draw_setting, whole_test_sets

MEASURED = ("deployed_coverage", "deployed_risk")
"""What is measured of a threshold, as metrics are called."""
DIVIDED = (
    "dev trains the Selector; val ends its training, fits calibrators, sets thresholds and fixes the candidates; one "
    "answer about each test image certifies"
)
"""What each split of the ID dataset is used for."""
DRAW = 15
"""Beside the seed of a study, that of the questions that certify."""


@dataclass(frozen=True)
class PointSettings:
    """What the operating points of a variant are set and certified with.

    Attributes
    ----------
    id_dataset : str
    schemes : int
        How many schemes may ship. Delta is shared among them, whichever this one is.
    ships : bool
        Whether the scheme of this variant is one of them.
    estimators : sequence of str
        Those that may ship.
    risks : sequence of float
        Risk limits R, in (0, 1), in the order in which parts of delta are handed on.
    delta : float
        Probability, in (0, 1), with which any certificate of a model may fail.
    resamples : int
        Bootstrap resamples of images.
    seed : int
        Of the questions that certify, and of the resamples.
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    id_dataset: str
    schemes: int
    ships: bool
    estimators: Sequence[str]
    risks: Sequence[float]
    delta: float
    resamples: int
    seed: int
    level: float = LEVEL


def write_shipped_points(
    scores_path: str | Path,
    mixture_paths: Mapping[str, str | Path],
    features_path: str | Path,
    out_path: str | Path,
    *,
    model: str,
    scheme: str,
    settings: PointSettings,
) -> None:
    """Set and certify the operating points of a variant from its files, and write them.

    Parameters
    ----------
    scores_path : str or Path
        Parquet file with the scores table.
    mixture_paths : mapping of str to str or Path
        For each shifted dataset the Parquet file of its mixtures.
    features_path : str or Path
        Features of the ID dataset: its metadata say on what the variant answered, and with which weights.
    out_path : str or Path
        JSON file to write.
    model, scheme, settings
        As in `shipped_points`.
    """
    mixtures = {dataset: read_table(path) for dataset, path in mixture_paths.items()}
    notes = table_notes(features_path)
    points, certification = shipped_points(
        read_table(scores_path), mixtures, model=model, scheme=scheme, settings=settings
    )
    conditions = Conditions.from_notes(notes)
    write_operating_points(
        OperatingPoints(model, scheme, notes["weights_sha256"], settings.id_dataset, conditions, points, certification),
        out_path,
    )


def shipped_points(
    scores: pl.DataFrame,
    mixtures: Mapping[str, pl.DataFrame],
    *,
    model: str,
    scheme: str,
    settings: PointSettings,
) -> tuple[tuple[OperatingPoint, ...], Certification | None]:
    """Set thresholds on val, certify thresholds on all ID test images, and measure both on whole test sets.

    Parameters
    ----------
    scores, mixtures, model, scheme
        As in `quantrust.evaluation.variant.evaluate_variant`.
    settings : PointSettings

    Returns
    -------
    points : tuple of OperatingPoint
        By estimator, then limit, the one of val first. Of a learned estimator they are those of its first member, which
        ships; their intervals are therefore over images alone.
    certification : Certification or None
        What was certified on how many images, and what every certificate takes. None for a scheme that is not declared.

    Raises
    ------
    QuantrustError
        As `evaluate_variant`, and if there are no ID test answers.
    """
    scores = add_calibrated(scores, settings.estimators, settings.id_dataset)
    check_confidences(scores, settings.estimators, f"{model}/{scheme}")
    val = val_answers(scores, settings.id_dataset, f"{model}/{scheme}", "thresholds are set on")
    test_sets = list(whole_test_sets(scores, mixtures, settings.id_dataset))
    certifying = None
    if settings.ships:
        certifying = Sample(
            settings.id_dataset, "test", one_question_of_each_image(test_sets[0].answers, settings.seed)
        )
    sampling = Sampling(
        Sample(settings.id_dataset, "val", val),
        certifying,
        [("test", test_set, draw_setting(test_set, settings.resamples, settings.seed)) for test_set in test_sets],
        settings.level,
    )
    share = share_of_each(settings.delta, settings.schemes, len(settings.estimators))
    points: list[OperatingPoint] = []
    sought: list[Sought] = []
    for estimator in settings.estimators:
        found = find_points(sampling, estimator, settings.risks, share, settings.delta)
        points += found[0]
        sought += found[1]
    if certifying is None:
        return tuple(points), None
    dataset, split, questions, images = certifying.place
    certification = Certification(
        delta=settings.delta,
        schemes=settings.schemes,
        estimators=tuple(settings.estimators),
        risk_limits=tuple(settings.risks),
        dataset=dataset,
        split=split,
        questions=questions,
        images=images,
        seed=settings.seed,
        divided=DIVIDED,
        sought=tuple(sought),
    )
    return tuple(points), certification


@dataclass(frozen=True)
class Sample:
    """Answers on which thresholds are found.

    Attributes
    ----------
    dataset, split : str
    answers : polars.DataFrame
        Columns ``image_id``, ``quality`` and one for each estimator.
    """

    dataset: str
    split: str
    answers: pl.DataFrame

    @property
    def place(self) -> tuple[str, str, int, int]:
        """Dataset, split, number of questions and number of images."""
        return self.dataset, self.split, self.answers.height, self.answers["image_id"].n_unique()

    def ranking(self, estimator: str) -> Ranking:
        """Rank the answers by the confidence of an estimator."""
        return rank(self.answers["quality"], self.answers[estimator])


@dataclass(frozen=True)
class Sampling:
    """Which answers serve what.

    Attributes
    ----------
    setting : Sample
        Those that set thresholds, and fix candidates with their order.
    certifying : Sample or None
        Those that certify, one question an image, about other images; None where nothing is certified.
    measuring : sequence of (str, Setting, ImageDraws)
        Sets on which thresholds are measured, each with its split and the resamples of its images.
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    setting: Sample
    certifying: Sample | None
    measuring: Sequence[tuple[str, Setting, ImageDraws]]
    level: float


def find_points(
    sampling: Sampling, estimator: str, risks: Sequence[float], share: float, delta: float
) -> tuple[list[OperatingPoint], list[Sought]]:
    """Find the operating points of one estimator.

    Parameters
    ----------
    sampling : Sampling
    estimator : str
        A column of the answers.
    risks : sequence of float
        In (0, 1), in the order in which parts of delta are handed on.
    share : float
        What the limits of this estimator have of delta together.
    delta : float
        Of everything that is declared.

    Returns
    -------
    points : list of OperatingPoint
        By limit, the one of val first. A limit without a threshold of a kind has no such point.
    sought : list of Sought
        By limit, what its certificate takes and whether it was found; empty where nothing is certified.
    """
    ranking = sampling.setting.ranking(estimator)
    found: list[tuple[str, dict[float, float | None], float | None, Sample]] = [
        (VAL, dict(deploy(ranking, risks, []).risk_thresholds), None, sampling.setting)
    ]
    sought: list[Sought] = []
    if sampling.certifying is not None:
        answers = sampling.certifying.ranking(estimator)
        certificates = certify_limits(answers, candidates_by_limit(ranking, answers.n, risks, share), share)
        thresholds = {one.risk_limit: one.threshold for one in certificates}
        found.append((CERTIFIED, thresholds, delta, sampling.certifying))
        sought = [
            Sought(estimator, one.risk_limit, one.delta, one.fewest, one.threshold is not None) for one in certificates
        ]
    measured = [_measure(sampling, estimator, thresholds) for _, thresholds, _, _ in found]
    points = [
        OperatingPoint(estimator, risk, kind, threshold, chance, *sample.place, tuple(done[risk]))
        for risk in risks
        for (kind, thresholds, chance, sample), done in zip(found, measured, strict=True)
        if (threshold := thresholds[risk]) is not None
    ]
    return points, sought


def one_question_of_each_image(answers: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Draw one question of each image; the same for every variant that answers the same questions.

    Parameters
    ----------
    answers : polars.DataFrame
        With the columns ``image_id`` and ``question_id``; the order of its rows does not matter.
    seed : int
    """
    answers = answers.sort("question_id")
    names = answers["image_id"].unique().sort()
    image = names.search_sorted(answers["image_id"]).to_numpy().astype(np.int64)
    chosen = one_question_an_image(image, np.ones(names.len(), dtype=bool), np.random.default_rng([seed, DRAW]))
    return answers[chosen]


def _measure(
    sampling: Sampling, estimator: str, thresholds: Mapping[float, float | None]
) -> dict[float, list[Measured]]:
    """Measure thresholds on every set, with intervals over images."""
    measured: dict[float, list[Measured]] = {risk: [] for risk in thresholds}
    wanted: list[Key] = [(metric, risk) for risk in thresholds for metric in MEASURED]
    for split, setting, draws in sampling.measuring:
        answers = setting.answers
        ranking = rank(answers["quality"], answers[estimator])
        deployment = Deployment(dict(thresholds), {})
        resampled = Resampler(answers["quality"].to_numpy(), draws).evaluate(
            ranking, list(thresholds), [], deployment, ranking.is_probability, wanted=wanted
        )
        for risk, threshold in thresholds.items():
            point = at_threshold(ranking, threshold)
            coverages = interval(resampled["deployed_coverage", risk], sampling.level)
            risks = interval(resampled["deployed_risk", risk], sampling.level)
            measured[risk].append(
                Measured(
                    dataset=setting.dataset,
                    split=split,
                    questions=answers.height,
                    images=answers["image_id"].n_unique(),
                    answered=round(point.coverage * answers.height),
                    coverage=point.coverage,
                    coverage_low=null_if_nan(coverages[0]),
                    coverage_high=null_if_nan(coverages[1]),
                    risk=null_if_nan(point.risk),
                    risk_low=null_if_nan(risks[0]),
                    risk_high=null_if_nan(risks[1]),
                    level=sampling.level,
                )
            )
    return measured
