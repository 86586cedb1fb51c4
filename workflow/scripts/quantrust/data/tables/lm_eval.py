"""Logs of samples of lm-evaluation-harness: ``samples_<task>_<date>.jsonl``, written with ``--log_samples``.

Read as of version 0.4.9 and later (https://github.com/EleutherAI/lm-evaluation-harness, ``lm_eval/evaluator.py`` and
``lm_eval/loggers/evaluation_tracker.py``). An object has ``doc_id``, the whole ``doc``, ``target`` as text,
``arguments`` (``gen_args_0`` and so on, one for each request, with the text of a choice in ``arg_1``), ``resps``,
``filtered_resps``, ``filter``, the names of its ``metrics``, three hashes, and each metric under its name. A task with
several filters has an object for each filter.

**Confidence.** Of a multiple-choice task, ``filtered_resps`` has a pair for each choice: the sum of the log-likelihoods
of its tokens, and whether greedy decoding writes it. The confidence is the probability of the choice that the metric
judges among all choices, a softmax of these sums: as they are for ``acc``, divided by the number of characters for
``acc_norm`` and of bytes for ``acc_bytes``. Generated answers have no confidence in these logs.
"""

from collections.abc import Callable, Sequence
from typing import Any

from quantrust.data.logs import RESPONSES, SAMPLE, check_choices, choices, metric_of, plain_value, read_samples
from quantrust.data.records import Records
from quantrust.data.table import Read, TableFormat, Wanted, choose, no_such
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError

FIXED = (SAMPLE, "doc", "target", "arguments", "resps", RESPONSES, "filter", "metrics")
HASHES = ("doc_hash", "prompt_hash", "target_hash")
LENGTHS: dict[str, Callable[[str], int] | None] = {
    "acc": None,
    "acc_norm": len,
    "acc_bytes": lambda text: len(text.encode()),
}
"""How long a choice is to each metric that judges the likeliest one; None for one that does not divide."""
IN_WORDS = {
    "acc": "",
    "acc_norm": " divided by the number of characters",
    "acc_bytes": " divided by the number of bytes",
}


def _recognises(records: Records) -> bool:
    return all(name in records.columns for name in (SAMPLE, RESPONSES, "arguments", "target"))


def _one_filter(records: Records, wanted: Wanted) -> Records:
    if "filter" not in records.columns:
        return records
    filters = list(map(str, records.column("filter", "--filter")))
    there_are = list(dict.fromkeys(filters))
    if wanted.filter is None and len(there_are) > 1:
        raise choose(records, "filter", there_are, "--filter")
    name = there_are[0] if wanted.filter is None else wanted.filter
    if name not in there_are:
        raise no_such(records, "filter", name, there_are, "--filter")
    return records.keep([one == name for one in filters])


def _texts(records: Records) -> list[list[str]]:
    """Return the texts of the choices of every sample, without the space between the question and them."""
    return [_texts_of(value, records.where(row)) for row, value in enumerate(records.column("arguments", "--format"))]


def _texts_of(arguments: Any, where: str) -> list[str]:
    # A Parquet file of such logs has as many as any sample has, in the order of their names.
    named = arguments.items() if isinstance(arguments, dict) else ()
    requests = [request for _, request in sorted(named, key=lambda one: (len(one[0]), one[0])) if request is not None]
    found = [request.get("arg_1") if isinstance(request, dict) else None for request in requests]
    texts = [text.lstrip() for text in found if isinstance(text, str)]
    if not texts or len(texts) < len(found):
        raise QuantrustError(
            f"{where}: arguments is {shown(arguments)}; expected gen_args_0 and so on, each with arg_1"
        )
    return texts


def _lengths(records: Records, metric: str, texts: Sequence[Sequence[str]]) -> list[list[int]] | None:
    length = LENGTHS[metric]
    if length is None:
        return None
    for row, (of_row, pairs) in enumerate(zip(texts, records.column(RESPONSES, "--confidence"), strict=True)):
        if not all(of_row) or not isinstance(pairs, list) or len(of_row) != len(pairs):
            raise QuantrustError(
                f"{records.where(row)}: has {len(of_row)} choices and {RESPONSES} {shown(pairs)}; expected a pair for "
                "each choice, and no empty choice"
            )
    return [[length(text) for text in of_row] for of_row in texts]


def _confidence(records: Records, metric: str) -> tuple[Sequence[float], str]:
    # Generated answers are refused first, and by what is missing: a confidence.
    found = choices(records, 1)
    if metric not in LENGTHS:
        raise QuantrustError(
            f"{records.path}: which choice {shown(metric)} judges is not known, so that it has no confidence; expected "
            f"one of {', '.join(LENGTHS)} in --metric, or a field with the confidence in --confidence"
        )
    if "acc_mutual_info" in records.columns:
        raise QuantrustError(
            f"{records.path}: {RESPONSES} also has every choice without its question, for acc_mutual_info; log the "
            "task without this metric, or name a field in --confidence"
        )
    texts = _texts(records)
    if (lengths := _lengths(records, metric, texts)) is not None:
        found = choices(records, 1, lengths)
    check_choices(records, found, metric, texts)
    source = f"softmax of the choices' log-likelihoods{IN_WORDS[metric]}, in {RESPONSES}"
    return [choice.probability for choice in found], source


def _read(records: Records, wanted: Wanted) -> Read:
    records = _one_filter(records, wanted)
    metric = metric_of(records, wanted, (*FIXED, *HASHES), plain_value)
    return read_samples(records, wanted, metric, plain_value, _confidence)


TABLE = TableFormat(recognises=_recognises, read=_read)
