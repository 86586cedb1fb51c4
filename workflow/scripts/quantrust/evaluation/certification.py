"""Certified thresholds: a risk limit that holds with a stated probability in distribution, and how often it is broken.

Learn-then-Test (Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control",
Annals of Applied Statistics 2025): every candidate threshold is a null hypothesis "the risk of what it answers exceeds
R"; candidates are tested in an order that was fixed on other data, and the walk stops at the first that is not
rejected. The guarantee is for one question of each image, for images drawn as those of the certification set were; off
that distribution there is none.

MAPIE (1.6) was weighed and is not used: a risk there is either a share of yes-or-no events among the answered, or a
mean of soft losses over all questions, answered or not; the selective risk is a mean of soft losses among the answered.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, xlogy

from quantrust.confidence.catalogue import member_columns
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.intervals import null_if_nan
from quantrust.evaluation.metrics import Floats, Ranking, rank
from quantrust.evaluation.variant import Setting, check_confidences, settings_of

CANDIDATES = 100
"""Candidate thresholds: the confidences of val at as many evenly spaced coverages."""

SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "scheme": pl.String,
        "estimator": pl.String,
        "dataset": pl.String,
        "id_share": pl.Float64,
        "risk_limit": pl.Float64,
        "delta": pl.Float64,
        "guarantee": pl.Boolean,
        "threshold": pl.Float64,
        "coverage": pl.Float64,
        "risk": pl.Float64,
        "splits": pl.Int64,
        "certified_share": pl.Float64,
        "mean_coverage": pl.Float64,
        "median_coverage": pl.Float64,
        "median_risk": pl.Float64,
        "violation_rate": pl.Float64,
        "population_violation_rate": pl.Float64,
    }
)


def fewest_faultless(risk: float, delta: float) -> int:
    """Return the least number of faultless answers that can certify a risk limit at all.

    Parameters
    ----------
    risk : float
        The limit R, in (0, 1).
    delta : float
        Probability of failure, in (0, 1).

    Examples
    --------
    >>> fewest_faultless(0.01, 0.1)
    230
    """
    return math.ceil(math.log(delta) / math.log1p(-risk))


def hoeffding_bentkus(mean: ArrayLike, n: ArrayLike, risk: float) -> Floats:
    """Return p-values of the null hypothesis that a loss in [0, 1] has a mean above `risk`.

    The smaller of exp(-n KL(min(mean, R) || R)) and e P(Binomial(n, R) <= ceil(n mean)).

    Parameters
    ----------
    mean : array_like, shape (k,)
        Means of n independent losses.
    n : array_like of int, shape (k,)
        Their numbers; 0 gives p = 1.
    risk : float
        The limit R, in (0, 1).

    Returns
    -------
    ndarray of float64, shape (k,)
        In (0, 1].

    Notes
    -----
    Hoeffding (JASA 1963), theorem 1; Bentkus, "On Hoeffding's inequalities" (Annals of Probability 2004); combined in
    Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets" (Journal of the ACM 2021), section 3.1. Both
    hold for soft losses, not only for binary ones, and both rest on expectations of convex functions of the sum, which
    drawing without replacement does not increase (Hoeffding, theorem 4).

    Examples
    --------
    >>> hoeffding_bentkus([0.0, 0.0], [229, 230], 0.01).round(4).tolist()
    [0.1001, 0.0991]
    """
    mean, n = np.asarray(mean, dtype=np.float64), np.asarray(n, dtype=np.int64)
    below = np.minimum(mean, risk)
    divergence = xlogy(below, below / risk) + xlogy(1.0 - below, (1.0 - below) / (1.0 - risk))
    hoeffding = np.exp(-n * divergence)
    # Sums of tenths are whole tenths: without rounding to them 30 * 0.1 would count as four.
    bentkus = math.e * bdtr(np.ceil(np.round(n * mean, 9)), n, risk)
    return np.where(n > 0, np.minimum(1.0, np.minimum(hoeffding, bentkus)), 1.0)


def certify(quality: Floats, confidence: Floats, candidates: Floats, risk: float, delta: float) -> float | None:
    """Return the lowest threshold whose risk is certified.

    Parameters
    ----------
    quality, confidence : ndarray of float64, shape (n,)
        Of independent answers, one question an image, that nothing else used.
    candidates : ndarray of float64, shape (k,)
        Thresholds to test, in this order, which was fixed without these answers; see `candidate_thresholds`.
    risk : float
        The limit R, in (0, 1).
    delta : float
        Probability, over the draw of the answers, that the certified risk exceeds the limit.

    Returns
    -------
    float or None
        None where the first candidate already fails: then everything is abstained.
    """
    return _walk(rank(quality, confidence), candidates, risk, delta)


def p_values(answers: Ranking, thresholds: Floats, risk: float) -> Floats:
    """Return the p-value of each threshold, of the null hypothesis that the risk of what it answers exceeds a limit.

    Parameters
    ----------
    answers : Ranking
        Independent answers, one question an image.
    thresholds : ndarray of float64, shape (k,)
    risk : float
        The limit R, in (0, 1).

    Returns
    -------
    ndarray of float64, shape (k,)
        As `hoeffding_bentkus` returns them; 1 where nothing is answered.
    """
    kept, risk_tenths = _answered(answers, thresholds)
    mean = np.divide(risk_tenths, 10.0 * kept, out=np.ones(kept.size), where=kept > 0)
    return hoeffding_bentkus(mean, kept, risk)


def _walk(ranking: Ranking, candidates: Floats, risk: float, delta: float) -> float | None:
    rejected = p_values(ranking, candidates, risk) <= delta
    passed = int(np.argmin(rejected)) if not rejected.all() else rejected.size
    return float(candidates[passed - 1]) if passed else None


def candidate_thresholds(val: Ranking, answers: int, risk: float, delta: float) -> Floats:
    """Fix the order of candidates on val: start where val promises the surest rejection, then walk down.

    Of the thresholds at evenly spaced coverages of val only those are candidates that can be expected to keep enough
    answers for a rejection; the first is the one with the smallest p-value if the certification answers were like
    val's, because a walk that starts too high, on too few answers, stops at once.

    Parameters
    ----------
    val : Ranking
        Val answers. They must not be the certification answers; nothing else is assumed about them.
    answers : int
        Number of certification answers.
    risk, delta : float
        As in `certify`.

    Returns
    -------
    ndarray of float64, shape (k,)
        Descending; empty where no threshold can keep enough answers.
    """
    blocks = np.searchsorted(val.ends, np.arange(1, CANDIDATES + 1) / CANDIDATES * val.n, side="left")
    blocks = np.unique(np.minimum(blocks, val.ends.size - 1))
    expected = val.ends[blocks] * answers // val.n
    enough = expected >= fewest_faultless(risk, delta)
    blocks, expected = blocks[enough], expected[enough]
    if blocks.size == 0:
        return np.empty(0)
    start = int(np.argmin(hoeffding_bentkus(val.end_risks[blocks], expected, risk)))
    return val.thresholds[blocks[start:]]


def _answered(ranking: Ranking, thresholds: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return number and sum of 10 r_i of the answers that each threshold keeps."""
    blocks = ranking.ends.size - np.searchsorted(ranking.thresholds[::-1], thresholds, side="left")
    kept = np.append(0, ranking.ends)[blocks]
    return kept, 10.0 * kept - np.append(0.0, ranking.end_tenths)[blocks]


@dataclass(frozen=True)
class Population:
    """Answers that a threshold is applied to.

    Attributes
    ----------
    setting : Setting
    quality, confidence : ndarray of float64, shape (n,)
    image : ndarray of int64, shape (n,)
        The image of each answer, as an index that all settings share.
    """

    setting: Setting
    quality: Floats
    confidence: Floats
    image: NDArray[np.int64]

    @cached_property
    def _ascending(self) -> tuple[NDArray[np.int64], Floats]:
        """The order of rows by confidence, and the confidences in it."""
        order = np.argsort(self.confidence)
        return order, self.confidence[order]

    def operate(self, thresholds: Sequence[float | None], left_out: NDArray[np.bool_]) -> Floats:
        """Return coverage and risk of each threshold on the other images than `left_out`, shape (thresholds, 2).

        Risk is NaN where nothing is answered.
        """
        order, confidence = self._ascending
        stays = (~left_out[self.image])[order].astype(np.float64)
        # How many answers stay, and the sum of ten times their qualities, from each place in the order on.
        counts = np.append(np.cumsum(stays[::-1])[::-1], 0.0)
        tenths = np.append(np.cumsum((10.0 * self.quality[order] * stays)[::-1])[::-1], 0.0)
        sought = np.array([math.inf if threshold is None else threshold for threshold in thresholds])
        starts = np.searchsorted(confidence, sought, side="left")
        count = counts[starts]
        risk = np.full(count.size, math.nan)
        np.divide(10.0 * count - tenths[starts], 10.0 * count, out=risk, where=count > 0)
        # No answer stays if all images of a setting certify.
        return np.stack([count / max(1.0, counts[0]), risk], axis=1)


@dataclass(frozen=True)
class CertificationSettings:
    """What a variant's thresholds are certified with.

    Attributes
    ----------
    id_dataset : str
    estimators : sequence of str
    risks : sequence of float
        Limits R, in (0, 1).
    delta : float
        Probability of failure, in (0, 1).
    splits : int
        Random halves.
    seed : int
        Seed of the halves.
    """

    id_dataset: str
    estimators: Sequence[str]
    risks: Sequence[float]
    delta: float
    splits: int
    seed: int


def evaluate_certification(
    scores: pl.DataFrame,
    mixtures: Mapping[str, pl.DataFrame],
    *,
    model: str,
    scheme: str,
    settings: CertificationSettings,
) -> pl.DataFrame:
    """Certify thresholds on one half of the ID test images and measure them on the other answers, over random halves.

    For each split the ID test images are halved at random; one question of each image of the first half, drawn at
    random, certifies. The threshold is then applied to the other half and to every mixture less the certifying images.
    A learned estimator has its members in turn, one for each split (see `quantrust.evaluation.members`), the first
    split the estimator itself; the guarantee holds for each of them.

    Parameters
    ----------
    scores, mixtures, model, scheme
        As in `quantrust.evaluation.variant.evaluate_variant`.
    settings : CertificationSettings

    Returns
    -------
    polars.DataFrame
        Columns of `SCHEMA`, a row for each estimator, setting and limit. ``guarantee`` says whether the setting is in
        distribution; elsewhere nothing is guaranteed. ``threshold``, ``coverage`` and ``risk`` are those of the first
        split, ``certified_share`` the share of splits with any certified threshold, ``mean_coverage`` and
        ``median_coverage`` over all splits, ``median_risk`` over those that answer anything.
        ``violation_rate`` is the share of splits whose risk on the setting exceeds the limit: an estimate of the broken
        promises that includes the chance of the finite other half. ``population_violation_rate``, in distribution only,
        takes all ID test answers for the population, from which the certifying images are a random draw: this is what
        delta bounds. It weighs questions like the rate beside it, while certification weighs images; the two agree
        where images have equally many questions.

    Raises
    ------
    QuantrustError
        As `evaluate_variant`, and for a limit or delta outside (0, 1).
    """
    for value in (*settings.risks, settings.delta):
        if not 0.0 < value < 1.0:
            raise QuantrustError(
                f"certification: {value} is outside (0, 1); expected risk limits and a delta strictly between 0 and 1"
            )
    scores = add_calibrated(scores, settings.estimators, settings.id_dataset)
    check_confidences(scores, settings.estimators, f"{model}/{scheme}")
    val = val_answers(scores, settings.id_dataset, f"{model}/{scheme}", "candidates are set on")
    test_sets = list(settings_of(scores, mixtures, settings.id_dataset))
    names = pl.concat([setting.answers["image_id"] for setting in test_sets]).unique().sort()
    images = [names.search_sorted(setting.answers["image_id"]).to_numpy().astype(np.int64) for setting in test_sets]
    rows: list[tuple[object, ...]] = []
    for estimator in settings.estimators:
        columns = member_columns(scores.columns, estimator)
        members = [
            (
                rank(val["quality"], val[column]),
                [
                    Population(
                        setting=setting,
                        quality=setting.answers["quality"].to_numpy(),
                        confidence=setting.answers[column].to_numpy(),
                        image=image,
                    )
                    for setting, image in zip(test_sets, images, strict=True)
                ],
            )
            for column in columns
        ]
        results = _split_results(members, names.len(), settings.risks, settings.delta, settings.splits, settings.seed)
        for risk, of_risk in zip(settings.risks, results, strict=True):
            for setting, result in zip(test_sets, of_risk, strict=True):
                head = (model, scheme, estimator, setting.dataset, setting.id_share)
                rows.append((*head, risk, settings.delta, *result))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _split_results(
    members: Sequence[tuple[Ranking, Sequence[Population]]],
    images: int,
    risks: Sequence[float],
    delta: float,
    splits: int,
    seed: int,
) -> list[list[tuple[object, ...]]]:
    """Return the columns of `SCHEMA` from ``guarantee`` on, for each limit and setting.

    `members` are each member's ranking of val and its answers on the settings.
    """
    id_images = np.unique(members[0][1][0].image)
    half = id_images.size // 2
    candidates = [[candidate_thresholds(val, half, risk, delta) for risk in risks] for val, _ in members]
    first: list[float | None] = []
    certified = np.zeros((splits, len(risks)), dtype=bool)
    outcomes = np.empty((splits, len(members[0][1]), len(risks), 2))
    population_risks = np.empty((splits, len(risks)))
    nothing = np.zeros(images, dtype=bool)
    for split in range(splits):
        member = split % len(members)
        _, populations = members[member]
        id_population = populations[0]
        # The same halves for every estimator and limit.
        rng = np.random.default_rng([seed, split])
        certifying = nothing.copy()
        certifying[rng.permutation(id_images)[:half]] = True
        chosen = one_question_an_image(id_population.image, certifying, rng)
        thresholds: list[float | None] = [None] * len(risks)
        if chosen.size:
            ranking = rank(id_population.quality[chosen], id_population.confidence[chosen])
            for place, (risk, tested) in enumerate(zip(risks, candidates[member], strict=True)):
                thresholds[place] = _walk(ranking, tested, risk, delta) if tested.size else None
        first = first or thresholds
        certified[split] = [threshold is not None for threshold in thresholds]
        outcomes[split] = [population.operate(thresholds, certifying) for population in populations]
        population_risks[split] = id_population.operate(thresholds, nothing)[:, 1]
    return [
        [
            _over_splits(
                first[place],
                certified[:, place],
                outcomes[:, index, place],
                risk,
                population_risks[:, place] if index == 0 else None,
            )
            for index in range(outcomes.shape[1])
        ]
        for place, risk in enumerate(risks)
    ]


def _over_splits(
    first: float | None, certified: NDArray[np.bool_], outcomes: Floats, risk: float, population_risks: Floats | None
) -> tuple[object, ...]:
    coverages, found = outcomes.T
    answering = found[~np.isnan(found)]
    in_distribution = population_risks is not None
    return (
        in_distribution,
        first,
        float(coverages[0]),
        null_if_nan(float(found[0])),
        certified.size,
        float(certified.mean()),
        float(coverages.mean()),
        float(np.median(coverages)),
        float(np.median(answering)) if answering.size else None,
        float(np.mean(found > risk)),
        None if population_risks is None else float(np.mean(population_risks > risk)),
    )


def one_question_an_image(
    image: NDArray[np.int64], wanted: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw one question of each image, because questions that share an image are not independent.

    Parameters
    ----------
    image : ndarray of int64, shape (n,)
        The image of each question, as an index.
    wanted : ndarray of bool, shape (images,)
        The images to draw a question of.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int64, shape (k,)
        Places of the questions, by image.
    """
    shuffled = rng.permutation(image.size)
    _, first = np.unique(image[shuffled], return_index=True)
    chosen = shuffled[first]
    return chosen[wanted[image[chosen]]]
