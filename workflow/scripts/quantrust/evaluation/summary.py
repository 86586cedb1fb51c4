"""All point metrics of one ranking under their names in the tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantrust.evaluation import metrics
from quantrust.evaluation.metrics import Ranking

Key = tuple[str, float | None]
"""A metric's name and its parameter: the risk limit or the cost, None where it has none."""


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


def deploy(val: Ranking, risks: Sequence[float], costs: Sequence[float]) -> Deployment:
    """Fix the thresholds of all risk limits and costs on val.

    Parameters
    ----------
    val : Ranking
        Answers that are not reported on.
    risks, costs : sequence of float
        Risk limits in [0, 1] and costs >= 0.
    """
    return Deployment(
        risk_thresholds={risk: metrics.coverage_at_risk(val, risk).threshold for risk in risks},
        cost_thresholds={cost: metrics.effective_reliability_threshold(val, cost) for cost in costs},
    )


def summarise(
    ranking: Ranking,
    risks: Sequence[float],
    costs: Sequence[float],
    deployment: Deployment | None,
    is_probability: bool,
) -> dict[Key, float]:
    """Compute all point metrics.

    Parameters
    ----------
    ranking : Ranking
    risks, costs : sequence of float
        Risk limits in [0, 1] and costs >= 0.
    deployment : Deployment or None
        Thresholds for these risks and costs; without them the metrics that need one are left out.
    is_probability : bool
        Whether the estimator yields probabilities; otherwise calibration errors and Brier score are undefined.

    Returns
    -------
    dict
        Value by `Key`, in the order of the tables; NaN where undefined, or for a threshold where there is none.
    """
    values: dict[Key, float] = {
        ("accuracy", None): metrics.mean_accuracy(ranking),
        ("aurc", None): metrics.aurc(ranking),
        ("e_aurc", None): metrics.e_aurc(ranking),
        ("augrc", None): metrics.augrc(ranking),
        ("auroc", None): metrics.auroc(ranking),
        ("ece", None): metrics.ece(ranking) if is_probability else math.nan,
        ("ece_mass", None): metrics.ece_mass(ranking) if is_probability else math.nan,
        ("brier", None): metrics.brier(ranking) if is_probability else math.nan,
    }
    for risk in risks:
        oracle = metrics.coverage_at_risk(ranking, risk)
        values["coverage_at_risk", risk] = oracle.coverage
        values["threshold_at_risk", risk] = _nan_if_none(oracle.threshold)
        if deployment is not None:
            deployed = metrics.at_threshold(ranking, deployment.risk_thresholds[risk])
            values["deployed_threshold", risk] = _nan_if_none(deployed.threshold)
            values["deployed_coverage", risk] = deployed.coverage
            values["deployed_risk", risk] = deployed.risk
    for cost in costs:
        if deployment is not None:
            threshold = deployment.cost_thresholds[cost]
            chosen = metrics.at_threshold(ranking, threshold)
            values["effective_reliability", cost] = metrics.effective_reliability(ranking, cost, threshold)
            values["effective_reliability_threshold", cost] = _nan_if_none(threshold)
            values["effective_reliability_coverage", cost] = chosen.coverage
            values["effective_reliability_risk", cost] = chosen.risk
        values["effective_reliability_no_abstention", cost] = metrics.effective_reliability_no_abstention(ranking, cost)
        values["effective_reliability_best", cost] = metrics.effective_reliability_best(ranking)
    return values


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else value
