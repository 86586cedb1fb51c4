"""All metrics, one record each: its value, its form over resamples, which way is better, and how it is written.

Whoever computes, tabulates or prints metrics asks the records, so that a metric is added by one of them.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from quantrust.evaluation import metrics, resampled_metrics
from quantrust.evaluation.metrics import BINS, Floats, Ranking, gain_tenths, width_bins
from quantrust.evaluation.resampled_metrics import Blocks, answered, ratio

Key = tuple[str, float | None]
"""A metric's name and its parameter: the risk limit or the cost, None where it has none."""
Term = tuple[object, ...]
Sums = Mapping[Term, Floats]


@dataclass(frozen=True)
class At:
    """Where a metric is computed.

    Attributes
    ----------
    parameter : float or None
        The risk limit or the cost; None where the metric has none.
    threshold : float or None
        The threshold that val gives for it; None where val gives none.
    """

    parameter: float | None = None
    threshold: float | None = None

    @property
    def limit(self) -> float:
        """The parameter, of a metric that has one."""
        if self.parameter is None:
            raise TypeError("this metric has a parameter")
        return self.parameter


@dataclass(frozen=True)
class OfOrder:
    """A metric on resamples that depends on the order of the answers: `value` returns shape (resamples,)."""

    value: Callable[[Blocks, At], Floats]


@dataclass(frozen=True)
class OfSums:
    """A metric on resamples that is computed from sums over answers.

    Attributes
    ----------
    terms : callable
        Returns by name what is summed, each of shape (n,) in the order of the ranking. Metrics may share terms; those
        named `N` and `TENTHS` are always there.
    value : callable
        Takes the sums by the same names, each of shape (resamples,), and returns the metric, shape (resamples,).
    """

    terms: Callable[[Ranking, At], Mapping[Term, Floats]]
    value: Callable[[Sums, At], Floats]


N: Term = ("n",)
"""The number of answers."""
TENTHS: Term = ("tenths",)
"""The qualities in tenths, whose sums are exact."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes
    ----------
    name : str
        In the metrics table and in what the command line writes.
    label : str
        How headings write it; `{}` stands for the risk limit in percent or for the cost.
    value : callable
        Returns the metric of a ranking, NaN or None where it is undefined.
    resampled : OfOrder, OfSums or None
        The same on resamples; None for thresholds, which have no interval.
    parameter : {"risk", "cost"} or None
        What it takes beside the answers.
    deployed : bool
        Whether it needs a threshold from val.
    higher_is_better : bool or None
        None where neither is better.
    needs_probability : bool
        Whether it is undefined for confidences that are scores and not probabilities.
    of_answers_alone : bool
        Whether no confidence enters it, so that it is the same under every estimator.
    biased_upwards : bool
        Whether resampling adds a bias that the value already has (see `quantrust.evaluation.intervals`).
    smooth : bool
        Whether it changes little when one answer does (see `quantrust.evaluation.simulation`).
    compared : bool
        Whether `quantrust compare` shows its differences.
    of_corpus : bool
        Whether it is a metric of all answers together that only some tasks have (`quantrust.tasks.task.Task`): the mean
        of what each answer adds to it, under its name among the scores.
    """

    name: str
    label: str
    value: Callable[[Ranking, At], float | None]
    resampled: OfOrder | OfSums | None
    parameter: Literal["risk", "cost"] | None = None
    deployed: bool = False
    higher_is_better: bool | None = True
    needs_probability: bool = False
    of_answers_alone: bool = False
    biased_upwards: bool = False
    smooth: bool = False
    compared: bool = False
    of_corpus: bool = False


def _no_terms(ranking: Ranking, at: At) -> dict[Term, Floats]:
    return {}


def _mean_accuracy(sums: Sums, at: At) -> Floats:
    return sums[TENTHS] / (10 * sums[N])


def _bin_terms(ranking: Ranking, at: At) -> dict[Term, Floats]:
    gaps = ranking.confidence - ranking.quality
    bins = width_bins(ranking.confidence)
    return {("bin", index): np.where(bins == index, gaps, 0.0) for index in range(BINS)}


def _ece(sums: Sums, at: At) -> Floats:
    return np.sum([np.abs(sums["bin", index]) for index in range(BINS)], axis=0) / sums[N]


def _answered_terms(kind: str) -> Callable[[Ranking, At], dict[Term, Floats]]:
    def terms(ranking: Ranking, at: At) -> dict[Term, Floats]:
        through = answered(ranking.confidence, at.threshold)
        return {
            ("answered", kind, at.parameter): through,
            ("risk_tenths", kind, at.parameter): through * (10.0 - 10.0 * ranking.quality),
        }

    return terms


def _answered_share(kind: str) -> OfSums:
    return OfSums(_answered_terms(kind), lambda sums, at: sums["answered", kind, at.parameter] / sums[N])


def _answered_risk(kind: str) -> OfSums:
    return OfSums(
        _answered_terms(kind),
        lambda sums, at: ratio(sums["risk_tenths", kind, at.parameter], 10 * sums["answered", kind, at.parameter]),
    )


def _gain_terms(ranking: Ranking, at: At) -> dict[Term, Floats]:
    through = answered(ranking.confidence, at.threshold)
    return {("gain_tenths", at.parameter): through * gain_tenths(ranking.quality, at.limit)}


def _all_gain_terms(ranking: Ranking, at: At) -> dict[Term, Floats]:
    return {("all_gain_tenths", at.parameter): gain_tenths(ranking.quality, at.limit)}


def _of_corpus(name: str, label: str) -> Metric:
    """Return the record of a metric of all answers together.

    On a resample it is the mean over the drawn answers. What an answer adds stays as it is, and with it what the metric
    learned from all references, such as document frequencies.
    """
    return Metric(
        name,
        label,
        lambda ranking, at: metrics.corpus_mean(ranking, name),
        OfSums(
            lambda ranking, at: {("corpus", name): ranking.corpus[name]},
            lambda sums, at: sums["corpus", name] / sums[N],
        ),
        of_answers_alone=True,
        smooth=True,
        of_corpus=True,
    )


def _recall(name: str, label: str) -> Metric:
    """Return the record of the share of queries of a kind that find what they look for among what ranks first."""
    return Metric(
        name,
        label,
        lambda ranking, at: metrics.mean_of_given(ranking, name),
        OfSums(
            lambda ranking, at: {
                ("corpus", name): np.nan_to_num(ranking.corpus[name]),
                ("given", name): (~np.isnan(ranking.corpus[name])).astype(np.float64),
            },
            lambda sums, at: ratio(sums["corpus", name], sums["given", name]),
        ),
        of_answers_alone=True,
        smooth=True,
        of_corpus=True,
    )


METRICS = (
    Metric(
        "accuracy",
        "Accuracy",
        lambda ranking, at: metrics.mean_accuracy(ranking),
        OfSums(_no_terms, _mean_accuracy),
        of_answers_alone=True,
        smooth=True,
        compared=True,
    ),
    _of_corpus("cider_d", "CIDEr-D"),
    *(_recall(f"text_to_image_r{depth}", f"text-to-image R@{depth}") for depth in (1, 5, 10)),
    *(_recall(f"image_to_text_r{depth}", f"image-to-text R@{depth}") for depth in (1, 5, 10)),
    Metric(
        "aurc",
        "AURC",
        lambda ranking, at: metrics.aurc(ranking),
        OfOrder(lambda blocks, at: blocks.aurc),
        higher_is_better=False,
        smooth=True,
        compared=True,
    ),
    Metric(
        "e_aurc",
        "E-AURC",
        lambda ranking, at: metrics.e_aurc(ranking),
        OfOrder(lambda blocks, at: blocks.aurc - blocks.ideal_aurc),
        higher_is_better=False,
        smooth=True,
    ),
    Metric(
        "augrc",
        "AUGRC",
        lambda ranking, at: metrics.augrc(ranking),
        OfOrder(lambda blocks, at: resampled_metrics.augrc(blocks)),
        higher_is_better=False,
        smooth=True,
    ),
    Metric(
        "auroc",
        "AUROC",
        lambda ranking, at: metrics.auroc(ranking),
        OfOrder(lambda blocks, at: resampled_metrics.auroc(blocks)),
        smooth=True,
        compared=True,
    ),
    Metric(
        "ece",
        "ECE",
        lambda ranking, at: metrics.ece(ranking),
        OfSums(_bin_terms, _ece),
        higher_is_better=False,
        needs_probability=True,
        biased_upwards=True,
        compared=True,
    ),
    Metric(
        "ece_mass",
        "ECE (equal mass)",
        lambda ranking, at: metrics.ece_mass(ranking),
        OfOrder(lambda blocks, at: resampled_metrics.ece_mass(blocks)),
        higher_is_better=False,
        needs_probability=True,
        biased_upwards=True,
    ),
    Metric(
        "brier",
        "Brier score",
        lambda ranking, at: metrics.brier(ranking),
        OfSums(
            lambda ranking, at: {("brier",): (ranking.confidence - ranking.quality) ** 2},
            lambda sums, at: sums["brier",] / sums[N],
        ),
        higher_is_better=False,
        needs_probability=True,
        smooth=True,
        compared=True,
    ),
    Metric(
        "coverage_at_risk",
        "C@{}",
        lambda ranking, at: metrics.coverage_at_risk(ranking, at.limit).coverage,
        OfOrder(lambda blocks, at: resampled_metrics.coverage_at_risk(blocks, at.limit)),
        parameter="risk",
        compared=True,
    ),
    Metric(
        "threshold_at_risk",
        "threshold of C@{}",
        lambda ranking, at: metrics.coverage_at_risk(ranking, at.limit).threshold,
        None,
        parameter="risk",
        higher_is_better=None,
    ),
    Metric(
        "deployed_threshold",
        "deployed threshold, risk {}",
        lambda ranking, at: at.threshold,
        None,
        parameter="risk",
        deployed=True,
        higher_is_better=None,
    ),
    Metric(
        "deployed_coverage",
        "deployed coverage, risk {}",
        lambda ranking, at: metrics.at_threshold(ranking, at.threshold).coverage,
        _answered_share("risk"),
        parameter="risk",
        deployed=True,
        compared=True,
    ),
    Metric(
        "deployed_risk",
        "deployed risk, risk {}",
        lambda ranking, at: metrics.at_threshold(ranking, at.threshold).risk,
        _answered_risk("risk"),
        parameter="risk",
        deployed=True,
        higher_is_better=False,
        compared=True,
    ),
    Metric(
        "effective_reliability",
        "Φ{}",
        lambda ranking, at: metrics.effective_reliability(ranking, at.limit, at.threshold),
        OfSums(_gain_terms, lambda sums, at: sums["gain_tenths", at.parameter] / (10 * sums[N])),
        parameter="cost",
        deployed=True,
    ),
    Metric(
        "effective_reliability_threshold",
        "threshold of Φ{}",
        lambda ranking, at: at.threshold,
        None,
        parameter="cost",
        deployed=True,
        higher_is_better=None,
    ),
    Metric(
        "effective_reliability_coverage",
        "coverage of Φ{}",
        lambda ranking, at: metrics.at_threshold(ranking, at.threshold).coverage,
        _answered_share("cost"),
        parameter="cost",
        deployed=True,
    ),
    Metric(
        "effective_reliability_risk",
        "risk of Φ{}",
        lambda ranking, at: metrics.at_threshold(ranking, at.threshold).risk,
        _answered_risk("cost"),
        parameter="cost",
        deployed=True,
        higher_is_better=False,
    ),
    Metric(
        "effective_reliability_no_abstention",
        "Φ{} without abstention",
        lambda ranking, at: metrics.effective_reliability_no_abstention(ranking, at.limit),
        OfSums(_all_gain_terms, lambda sums, at: sums["all_gain_tenths", at.parameter] / (10 * sums[N])),
        parameter="cost",
        of_answers_alone=True,
    ),
    Metric(
        "effective_reliability_best",
        "best Φ{}",
        lambda ranking, at: metrics.effective_reliability_best(ranking),
        OfSums(_no_terms, _mean_accuracy),
        parameter="cost",
        of_answers_alone=True,
    ),
)

SCALARS = tuple(metric.name for metric in METRICS if metric.parameter is None and not metric.of_corpus)
"""Names of the metrics without a parameter that any answers have."""
OF_PROBABILITIES = tuple(metric.name for metric in METRICS if metric.needs_probability)
"""Names of the metrics of confidences that are probabilities."""
OF_ANSWERS_ALONE = tuple(metric.name for metric in METRICS if metric.of_answers_alone)
"""Names of the metrics that no confidence enters."""
OF_CORPUS = tuple(metric.name for metric in METRICS if metric.of_corpus)
"""Names of the metrics of all answers together that only some tasks have."""


def metric_named(name: str) -> Metric:
    """Return the record of a metric.

    Raises
    ------
    KeyError
        If there is none of this name.
    """
    return {metric.name: metric for metric in METRICS}[name]


@dataclass(frozen=True)
class Deployment:
    """Thresholds fixed on val, for use on any other answers.

    Attributes
    ----------
    risk_thresholds : mapping of float to float or None
        For each risk limit the threshold with the largest coverage that keeps it on val.
    cost_thresholds : mapping of float to float or None
        For each cost the threshold that maximises Phi on val.
    """

    risk_thresholds: Mapping[float, float | None]
    cost_thresholds: Mapping[float, float | None]


def asked_of(
    risks: Sequence[float], costs: Sequence[float], deployment: Deployment | None, corpus: Collection[str] = ()
) -> Iterator[tuple[Metric, Key, At]]:
    """Yield every metric with each of its parameters, in the order of the metrics table.

    Parameters
    ----------
    risks, costs : sequence of float
    deployment : Deployment or None
        Thresholds for these; without them the metrics that need one are left out.
    corpus : collection of str
        Names of the metrics of all answers together that there are.
    """
    yield from (
        (metric, (metric.name, None), At())
        for metric in METRICS
        if metric.parameter is None and (not metric.of_corpus or metric.name in corpus)
    )
    thresholds: Mapping[float, float | None]
    for kind, parameters in (("risk", risks), ("cost", costs)):
        thresholds = {}
        if deployment is not None:
            thresholds = deployment.risk_thresholds if kind == "risk" else deployment.cost_thresholds
        for parameter in parameters:
            for metric in METRICS:
                if metric.parameter == kind and not (metric.deployed and deployment is None):
                    at = At(parameter, thresholds[parameter] if metric.deployed else None)
                    yield metric, (metric.name, parameter), at


def nan_if_none(value: float | None) -> float:
    """Return NaN for None."""
    return math.nan if value is None else value
