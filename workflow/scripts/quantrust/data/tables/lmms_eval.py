"""Logs of samples of lmms-eval: ``<date>_samples_<task>.jsonl``, written with ``--log_samples``.

Read as of version 0.7 (https://github.com/EvolvingLMMs-Lab/lmms-eval, ``lmms_eval/evaluator.py`` and
``lmms_eval/loggers/evaluation_tracker.py``). An object has ``doc_id``, ``target`` as text, ``input``,
``filtered_resps``, ``resps`` where they differ, ``token_counts``, ``doc_hash``, sometimes ``input_media``, and each
metric under its name. The ``doc`` is left out, and with it the id of the image. A metric is a number, or an object
whose entry ``score`` is one. In some tasks a sample has only the metric of its own category.

**Confidence.** Of a multiple-choice task, ``filtered_resps`` has a pair for each choice: its *loss*, the mean negative
log-likelihood of its tokens, and whether greedy decoding writes it. The harness takes the choice of the smallest loss.
The confidence is that choice's share in a softmax of the negative losses. Generated answers, which most of its tasks
have, come without a confidence in these logs.
"""

from collections.abc import Sequence
from dataclasses import replace

from quantrust.data.logs import RESPONSES, SAMPLE, check_choices, choices, metric_of, read_samples, value_or_score
from quantrust.data.records import MISSING, Records
from quantrust.data.table import Read, TableFormat, Wanted
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError

FIXED = (SAMPLE, "target", "input", "resps", RESPONSES, "token_counts", "doc_hash", "input_media")
JUDGES_CHOICE = "acc"


def _recognises(records: Records) -> bool:
    return all(name in records.columns for name in (SAMPLE, RESPONSES, "target")) and "arguments" not in records.columns


def _confidence(records: Records, metric: str) -> tuple[Sequence[float], str]:
    # Generated answers are refused first, and by what is missing: a confidence.
    found = choices(records, -1)
    if metric != JUDGES_CHOICE:
        raise QuantrustError(
            f"{records.path}: which choice {shown(metric)} judges is not known, so that it has no confidence; expected "
            f"--metric {JUDGES_CHOICE}, or a field with the confidence in --confidence"
        )
    check_choices(records, found, metric, None)
    return [choice.probability for choice in found], f"softmax of the choices' negative losses, in {RESPONSES}"


def _read(records: Records, wanted: Wanted) -> Read:
    metric = metric_of(records, wanted, FIXED, value_or_score)
    judged = [value is not MISSING for value in records.columns[metric]]
    read = read_samples(records.keep(judged), wanted, metric, value_or_score, _confidence)
    if all(judged):
        return read
    left_out = f"samples left out, without the metric {metric}: {judged.count(False)}"
    return replace(read, notes=(*read.notes, left_out))


TABLE = TableFormat(recognises=_recognises, read=_read)
