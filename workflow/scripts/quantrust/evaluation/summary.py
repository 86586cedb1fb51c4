"""All point metrics of one ranking under their names in the tables."""

import math
from collections.abc import Sequence

from quantrust.evaluation import metrics
from quantrust.evaluation.metric_records import Deployment, Key, asked_of, nan_if_none
from quantrust.evaluation.metrics import Ranking


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
    return {
        key: nan_if_none(metric.value(ranking, at)) if is_probability or not metric.needs_probability else math.nan
        for metric, key, at in asked_of(risks, costs, deployment, ranking.corpus)
    }
