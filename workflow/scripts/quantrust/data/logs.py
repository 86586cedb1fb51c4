"""What the logs of evaluation harnesses share: metrics by name, and a confidence from the scores of the choices.

Harnesses write a JSONL file a task, an object a sample. Where a sample was answered by the likeliest of some choices,
the object has a pair for each choice: its score and whether greedy decoding would have written it, both as texts.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantrust.data.records import MISSING, Records
from quantrust.data.table import Column, Read, Wanted, choose, no_such, optional_column
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError

RESPONSES = "filtered_resps"
SAMPLE = "doc_id"
WHAT_TO_LOG = (
    "let the task's process_results return a number for every sample beside the metric, for example exp of the sum of "
    "the log-probabilities of the answer's tokens, and name it in --confidence"
)


@dataclass(frozen=True)
class Choice:
    """What a sample's choices say.

    Attributes
    ----------
    best : int
        The place of the likeliest choice.
    probability : float
        Its share of the probability of all choices.
    """

    best: int
    probability: float


def metric_of(records: Records, wanted: Wanted, fixed: Collection[str], value_of: Callable[[Any], Any]) -> str:
    """Return the name of the metric that is the quality.

    Parameters
    ----------
    records : Records
    wanted : Wanted
    fixed : collection of str
        The columns that every log has and that are no metrics.
    value_of : callable
        Returns the number that a metric's value in the log stands for.

    Raises
    ------
    QuantrustError
        If the log has none of the name that is wanted; or if none is named and there is not exactly one.
    """
    there_are = [
        name
        for name, values in records.columns.items()
        if name not in fixed
        and name != wanted.confidence
        and all(isinstance(value_of(value), int | float) for value in values if value is not MISSING)
    ]
    named = wanted.metric or wanted.quality
    if named is not None and named not in there_are:
        raise no_such(records, "metric", named, there_are, "--metric")
    if named is None and not there_are:
        raise QuantrustError(f"{records.path}: has no metric that is a number in every sample; log one")
    if named is None and len(there_are) > 1:
        raise choose(records, "metric", there_are, "--metric")
    return named or there_are[0]


def read_samples(
    records: Records,
    wanted: Wanted,
    metric: str,
    value_of: Callable[[Any], Any],
    confidence_of: Callable[[Records, str], tuple[Sequence[float], str]],
) -> Read:
    """Return what the samples of a log are as answers.

    Parameters
    ----------
    records : Records
        The samples that have the metric.
    wanted : Wanted
    metric : str
    value_of : callable
        As in `metric_of`.
    confidence_of : callable
        Returns the confidences that the choices give for a metric, and how they were found. It is not called where the
        user names a field that holds the confidence.
    """
    id_name = wanted.id or SAMPLE
    if wanted.confidence is None:
        values, source = confidence_of(records, metric)
        confidence = Column(RESPONSES, values)
    else:
        confidence = Column(wanted.confidence, records.column(wanted.confidence, "--confidence"))
        source = f"the field {wanted.confidence}"
    return Read(
        records=records,
        id=Column(id_name, records.column(id_name, "--id")),
        quality=Column(metric, [value_of(value) for value in records.column(metric, "--metric")]),
        confidence=confidence,
        image=optional_column(records, wanted.image, None, "--image"),
        group=optional_column(records, wanted.group, None, "--group"),
        split=optional_column(records, wanted.split, None, "--split"),
        notes=(f"quality: the metric {metric}; confidence: {source}",),
    )


def choices(records: Records, sign: int, lengths: Sequence[Sequence[int]] | None = None) -> list[Choice]:
    """Return what the choices of every sample say.

    Parameters
    ----------
    records : Records
        With the column `RESPONSES`.
    sign : {1, -1}
        1 if a larger score is a likelier choice, -1 if a smaller one is.
    lengths : sequence of sequence of int, optional
        For each sample the lengths by which scores are divided first.

    Raises
    ------
    QuantrustError
        If a sample has no choices, or a score that is not a number. The message says what to log.
    """
    found = []
    for row, value in enumerate(records.column(RESPONSES, "--confidence")):
        scores = _scores(records, row, value)
        if lengths is not None:
            scores = [score / length for score, length in zip(scores, lengths[row], strict=True)]
        found.append(_softmax([sign * score for score in scores]))
    return found


def _scores(records: Records, row: int, value: Any) -> list[float]:
    where = records.where(row)
    pairs = [_score(pair) for pair in value] if isinstance(value, list) else [None]
    if None in pairs:
        raise QuantrustError(
            f"{where}: {RESPONSES} is {shown(value)}, which holds no score of any choice, so that this log has no "
            f"confidence; {WHAT_TO_LOG}"
        )
    if len(pairs) < 2:
        raise QuantrustError(
            f"{where}: {RESPONSES} has the score of one text alone, the reference, which says nothing of the model's "
            f"own answer; {WHAT_TO_LOG}"
        )
    scores = [score for score in pairs if score is not None]
    if any(math.isnan(score) for score in scores) or not any(map(math.isfinite, scores)):
        raise QuantrustError(f"{where}: {RESPONSES} is {shown(value)}; expected a finite score of some choice")
    return scores


def _score(pair: Any) -> float | None:
    """Return the score of a pair of it and a truth; None if it is no such pair."""
    if not isinstance(pair, list) or len(pair) != 2 or str(pair[1]) not in ("True", "False"):
        return None
    try:
        return float(pair[0])
    except (TypeError, ValueError, OverflowError):
        return None


def _softmax(scores: Sequence[float]) -> Choice:
    best = max(range(len(scores)), key=scores.__getitem__)
    return Choice(best, 1.0 / math.fsum(math.exp(score - scores[best]) for score in scores))


def check_choices(
    records: Records, found: Sequence[Choice], metric: str, texts: Sequence[Sequence[str]] | None
) -> None:
    """Raise a `QuantrustError` if the likeliest choices are not the answers that the metric judges.

    Parameters
    ----------
    records : Records
        With the columns `metric` and ``target``. Samples whose target is not one place among the choices are passed.
    found : sequence of Choice
    metric : str
    texts : sequence of sequence of str, optional
        For each sample the texts of the choices; a target may be one of them.
    """
    targets = records.column("target", "--metric")
    values = records.column(metric, "--metric")
    for row, (choice, target, value) in enumerate(zip(found, targets, values, strict=True)):
        places = {int(target)} if isinstance(target, str) and target.isdecimal() and len(target) < 5 else set()
        if texts is not None:
            places |= {place for place, text in enumerate(texts[row]) if text == target}
        # no float is made of the value: JSON has integers that none holds
        if places and all((choice.best == place) != (value_or_score(value) > 0.5) for place in places):
            raise QuantrustError(
                f"{records.where(row)}: the likeliest choice is number {choice.best}, the target {shown(target)} and "
                f"{metric} {shown(value)}; expected a metric that judges the likeliest choice, or a field with the "
                "confidence in --confidence"
            )


def plain_value(value: Any) -> Any:
    """Return a metric's value as it is."""
    return value


def value_or_score(value: Any) -> Any:
    """Return a metric's value, or the entry ``score`` of one that is an object."""
    return value.get("score") if isinstance(value, Mapping) else value
