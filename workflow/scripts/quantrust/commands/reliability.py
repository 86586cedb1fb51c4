"""The reliability of answers as a command prints and writes it: all metrics, with intervals from resampling images."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantrust.commands.numbers import as_given
from quantrust.commands.tables import Answers
from quantrust.evaluation.intervals import LEVEL, metric_interval, null_if_nan
from quantrust.evaluation.metric_records import SCALARS, Deployment, Key
from quantrust.evaluation.metrics import Floats
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.summary import summarise

PROBABILITY, SCORE = KINDS = ("probability", "score")
AT_RISK = {
    "coverage_at_risk": {"coverage": "coverage_at_risk", "threshold": "threshold_at_risk"},
    "deployed": {"threshold": "deployed_threshold", "coverage": "deployed_coverage", "risk": "deployed_risk"},
}
AT_COST = {
    "phi": "effective_reliability",
    "threshold": "effective_reliability_threshold",
    "coverage": "effective_reliability_coverage",
    "risk": "effective_reliability_risk",
    "phi_without_abstention": "effective_reliability_no_abstention",
    "best_phi": "effective_reliability_best",
}


@dataclass(frozen=True)
class Settings:
    """What the reliability of answers is computed with.

    Attributes
    ----------
    risks, costs : sequence of float
    deployment : Deployment or None
        Thresholds for these; None leaves the metrics out that need one.
    kind : {"probability", "score"}
        What the confidences are.
    resamples : int
        Bootstrap resamples of images; 0 for none.
    seed : int
    """

    risks: Sequence[float]
    costs: Sequence[float]
    deployment: Deployment | None
    kind: str
    resamples: int
    seed: int


@dataclass(frozen=True)
class Reliability:
    """Metrics of some answers.

    Attributes
    ----------
    values : mapping of Key to float
        NaN where undefined.
    intervals : mapping of Key to pair of float
        Of the metrics that are defined and resampled.
    undefined : mapping of Key to int
        On how many resamples each of these is undefined.
    """

    values: Mapping[Key, float]
    intervals: Mapping[Key, tuple[float, float]]
    undefined: Mapping[Key, int]


def reliability(
    answers: Answers, settings: Settings, progress: Callable[[int], None] = lambda resamples: None
) -> Reliability:
    """Compute all metrics of answers, with intervals.

    Parameters
    ----------
    answers : Answers
    settings : Settings
    progress : callable
        Called with the number of resamples done since the last call.
    """
    is_probability = settings.kind == PROBABILITY
    asked = (settings.risks, settings.costs, settings.deployment, is_probability)
    values = summarise(answers.ranking, *asked)
    resampled: Mapping[Key, Floats] = {}
    if settings.resamples:
        draws = draw_images(answers.images, settings.resamples, settings.seed)
        resampled = Resampler(answers.quality, draws).evaluate(answers.ranking, *asked, progress=progress)
    intervals = {
        key: metric_interval(key[0], value, resampled[key])
        for key, value in values.items()
        if key in resampled and not math.isnan(value)
    }
    undefined = {key: sum(map(math.isnan, resampled[key])) for key in intervals}
    return Reliability(values, intervals, undefined)


def reliability_record(answers: Answers, found: Reliability, settings: Settings) -> dict[str, Any]:
    """Return what JSON says of the reliability of answers, as unrounded fractions."""
    risks, costs = settings.risks, settings.costs
    at_risk = AT_RISK if settings.deployment is not None else {"coverage_at_risk": AT_RISK["coverage_at_risk"]}

    def nested(source: Mapping[Key, Any]) -> dict[str, Any]:
        return {
            **{name: source.get((name, None)) for name in SCALARS},
            **{
                group: {as_given(r): {field: source.get((name, r)) for field, name in fields.items()} for r in risks}
                for group, fields in at_risk.items()
            },
            "effective_reliability": {
                as_given(c): {field: source.get((name, c)) for field, name in AT_COST.items()} for c in costs
            },
        }

    values = nested({key: null_if_nan(value) for key, value in found.values.items()})
    record = {"questions": answers.ranking.n, "images": answers.image_count, "confidence": settings.kind, **values}
    if settings.resamples:
        record["intervals"] = {
            "level": LEVEL,
            "resamples": settings.resamples,
            "seed": settings.seed,
            **nested({key: list(pair) for key, pair in found.intervals.items()}),
            # An interval is over the other resamples.
            "undefined_resamples": nested(found.undefined),
        }
    return record


def reliability_text(
    answers: Answers, values: Mapping[Key, float], intervals: Mapping[Key, tuple[float, float]], notes: Sequence[str]
) -> str:
    """Return the reliability of answers as a table to print, with notes below it."""
    rows = [("metric", "value", f"{LEVEL:.0%} interval")]
    for (name, parameter), value in values.items():
        label = name if parameter is None else f"{name} {as_given(parameter)}"
        if name.endswith("threshold") or name.startswith("threshold"):
            # Whole: a threshold is there to be used.
            rows.append((label, "none" if math.isnan(value) else repr(value), ""))
        else:
            rows.append((label, *percentages(value, intervals.get((name, parameter)))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    return "\n".join([f"{answers.ranking.n} questions on {answers.image_count} images", *lines, *notes])


def percentages(value: float, between: tuple[float, float] | None) -> tuple[str, str]:
    """Return a share and its interval as percentages to print."""
    shown = "undefined" if math.isnan(value) else f"{100 * value:.2f} %"
    return shown, "" if between is None else f"{100 * between[0]:.2f} .. {100 * between[1]:.2f}"
