"""`quantrust score`: reliability of predictions in the official result format."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quantrust.commands.numbers import as_given, chance_note, count, parsed, share
from quantrust.commands.outputs import check_not_read, check_writable, make_folders, unwritable
from quantrust.data.format import format_names, read_official, recognised
from quantrust.data.official import Files, Question, place_of, uneven_references
from quantrust.data.predictions import Prediction, read_predictions
from quantrust.errors import QuantrustError
from quantrust.evaluation.intervals import LEVEL, metric_interval, null_if_nan
from quantrust.evaluation.metric_records import OF_PROBABILITIES, SCALARS, Deployment, Key
from quantrust.evaluation.metrics import Floats, Ranking, rank
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.summary import deploy, summarise
from quantrust.files import atomic_path, write_json
from quantrust.progress import progress
from quantrust.tasks.task import Quality, Task, task_of_format

PROBABILITY, SCORE = KINDS = ("probability", "score")
RISKS = (0.005, 0.01, 0.05, 0.1, 0.2)
COSTS = (1.0, 10.0, 100.0)
LARGEST_COST = 1e12
"""Sums of costs of any data set then stay finite, and far from where gains below them are lost to rounding."""

DESCRIPTION = """\
Score predictions in the official VQA result format with an added confidence:
accuracy, risk-coverage, effective reliability and calibration, with intervals
from resampling the images. Reads VQAv2, AdVQA, VizWiz and GQA files as
published, and multiple-choice questions. The format decides how answers are
judged."""

EPILOG = """\
a prediction is a record of P.json (VizWiz: question_id is the image's name):
  [{"question_id": 1, "answer": "yes", "confidence": 0.93}, ...]

examples:
  all metrics that need no threshold
    quantrust score --questions Q.json --annotations A.json --predictions P.json
  thresholds chosen on the answers in V.json, metrics of those in P.json
    quantrust score --questions Q.json --annotations A.json \\
        --predictions P.json --threshold-predictions V.json \\
        --risks 0.01 0.05 --json out.json"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "score",
        help="score predictions with confidences against official annotations",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="Q.json",
        help="official questions; not needed if the annotations have them",
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="official annotations")
    parser.add_argument(
        "--format", choices=format_names(), help="format of these files (default: the one they look like)"
    )
    parser.add_argument("--predictions", type=Path, required=True, metavar="P.json", help="predictions to report on")
    parser.add_argument(
        "--threshold-predictions",
        type=Path,
        metavar="V.json",
        help="predictions for other questions, on which thresholds are chosen; without them, metrics that need a "
        "chosen threshold are left out",
    )
    parser.add_argument(
        "--confidence",
        choices=KINDS,
        help="the kind of confidence: probability (a value outside [0, 1] is an error) or score (it only ranks answers "
        "and has no calibration errors); default: probability if all values lie in [0, 1]",
    )
    parser.add_argument("--subset", action="store_true", help="allow questions without a prediction")
    parser.add_argument("--risks", type=share, nargs="+", default=list(RISKS), metavar="R", help="risk limits")
    parser.add_argument("--costs", type=_cost, nargs="+", default=list(COSTS), metavar="C", help="costs of an error")
    parser.add_argument(
        "--resamples", type=count, default=2000, metavar="B", help="resamples of the images (default: 2000; 0: none)"
    )
    parser.add_argument("--seed", type=count, default=0, help="seed of the resamples (default: 0)")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write all metrics here, as unrounded fractions")
    parser.add_argument(
        "--per-question", type=Path, metavar="OUT.csv", help="write question_id, accuracy and confidence here"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Score, print a table and write the files that were asked for.

    Raises
    ------
    QuantrustError
        If the input cannot be scored or a file cannot be written. Nothing is then written.
    """
    # A value given twice is one row.
    risks, costs = list(dict.fromkeys(arguments.risks)), list(dict.fromkeys(arguments.costs))
    _check_outputs(arguments)
    files = Files(arguments.annotations, arguments.questions)
    file_format = arguments.format or recognised(files)
    task = task_of_format(file_format)
    questions = {question.question_id: question for question in read_official(file_format, files)}
    quality = _quality(task, questions, arguments.annotations)
    predictions = read_predictions(arguments.predictions, questions)
    threshold_predictions = None
    if arguments.threshold_predictions is not None:
        threshold_predictions = read_predictions(arguments.threshold_predictions, questions)
    _check_partition(questions, predictions, threshold_predictions, arguments)

    # One estimator made both files: a value outside [0, 1] in either says that it yields no probabilities.
    answered = [(arguments.predictions, predictions), (arguments.threshold_predictions, threshold_predictions or {})]
    kind = _kind(answered, arguments.confidence)
    is_probability = kind == PROBABILITY
    scored = _score(questions, predictions, quality)
    deployment, notes = None, [NOTE]
    if threshold_predictions is not None:
        val = _score(questions, threshold_predictions, quality)
        deployment = deploy(val.ranking, risks, costs)
        notes.append(DEPLOYED_NOTE)
        chance = chance_note(risks, np.unique(val.images).size, LEVEL)
        if chance is not None:
            notes.append(chance)
        shared = np.intersect1d(scored.images, val.images).size
        if shared:
            images = "1 image has" if shared == 1 else f"{shared} images have"
            print(
                f"note: {images} questions in both {arguments.predictions} and "
                f"{arguments.threshold_predictions}: thresholds are best chosen on other images",
                file=sys.stderr,
            )
    if kind == SCORE:
        notes.append(SCORE_NOTE)
    values = summarise(scored.ranking, risks, costs, deployment, is_probability)
    resampled = _resample(scored, risks, costs, deployment, is_probability, arguments.resamples, arguments.seed)
    intervals = {
        key: metric_interval(key[0], value, resampled[key])
        for key, value in values.items()
        if key in resampled and not math.isnan(value)
    }
    undefined = {key: int(np.count_nonzero(np.isnan(resampled[key]))) for key in intervals}

    notes.append(f"judged by {task.quality_name}, the answers being to questions in the format {file_format}")
    corpus = _corpus_metrics(task, questions, predictions)
    document = _document(scored, kind, risks, costs, deployment, values, intervals, undefined, arguments)
    _write(arguments, {"format": file_format, **document, **corpus}, predictions, scored)
    print(_table(scored, values | {(name, None): value for name, value in corpus.items()}, intervals, notes))


@dataclass(frozen=True)
class _Scored:
    accuracy: Floats
    images: np.ndarray
    ranking: Ranking


def _quality(task: Task, questions: Mapping[str, Question], path: Path) -> Quality:
    """Return what judges the answers; note on standard error where questions differ in how many references they have.

    Raises
    ------
    QuantrustError
        If the task cannot judge answers by the references of a question.
    """
    for question_id, question in questions.items():
        task.check_references(question.answers, place_of(path, question_id))
    if note := uneven_references(questions.values()):
        print(f"note: {path}: {note}", file=sys.stderr)
    return task.judge([question.answers for question in questions.values()])


def _corpus_metrics(
    task: Task, questions: Mapping[str, Question], predictions: Mapping[str, Prediction]
) -> dict[str, float]:
    """Return the metrics that a task has of all answers together."""
    answers = [prediction.answer for prediction in predictions.values()]
    references = [questions[key].answers for key in predictions]
    return {name: metric(answers, references) for name, metric in task.corpus_metrics.items()}


def _score(questions: Mapping[str, Question], predictions: Mapping[str, Prediction], quality: Quality) -> _Scored:
    accuracy = np.array([quality(p.answer, questions[key].answers) for key, p in predictions.items()])
    confidence = np.array([p.confidence for p in predictions.values()])
    images = np.array([questions[key].image_id for key in predictions])
    return _Scored(accuracy=accuracy, images=images, ranking=rank(accuracy, confidence))


def _kind(files: Sequence[tuple[Path, Mapping[str, Prediction]]], declared: str | None) -> str:
    """Return the kind of the confidences; print a note if it was not declared and they are not probabilities.

    Raises
    ------
    QuantrustError
        If they are declared as probabilities and one is outside [0, 1].
    """
    outside = [
        (path, question_id, prediction.confidence)
        for path, predictions in files
        for question_id, prediction in predictions.items()
        if not 0.0 <= prediction.confidence <= 1.0
    ]
    if declared == SCORE or not outside:
        return declared or PROBABILITY
    path, question_id, confidence = outside[0]
    others = f" and {len(outside) - 1} more are" if len(outside) > 1 else " is"
    fault = f'{path}: question {question_id}: "confidence" {confidence!r}{others} outside [0, 1]'
    if declared == PROBABILITY:
        raise QuantrustError(
            f"{fault}; expected probabilities, or --confidence score for scores that only rank answers"
        )
    print(
        f"note: {fault}: taken as scores that only rank answers, without {', '.join(OF_PROBABILITIES)}; "
        "--confidence declares their kind",
        file=sys.stderr,
    )
    return SCORE


def _check_partition(
    questions: Mapping[str, Question],
    predictions: Mapping[str, Prediction],
    threshold_predictions: Mapping[str, Prediction] | None,
    arguments: argparse.Namespace,
) -> None:
    for question_id in threshold_predictions or ():
        if question_id in predictions:
            raise QuantrustError(
                f"{arguments.threshold_predictions}: question {question_id}: is also in {arguments.predictions}; "
                "expected thresholds to be chosen on other questions than those reported on"
            )
    if arguments.subset:
        return
    for question_id in questions:
        if question_id not in predictions and question_id not in (threshold_predictions or {}):
            both = "" if threshold_predictions is None else f" nor in {arguments.threshold_predictions}"
            asked = arguments.questions or arguments.annotations
            raise QuantrustError(
                f"{arguments.predictions}: question {question_id}: is asked in {asked}, but has no "
                f"prediction here{both}; predict every question or pass --subset"
            )


def _resample(
    scored: _Scored,
    risks: Sequence[float],
    costs: Sequence[float],
    deployment: Deployment | None,
    is_probability: bool,
    resamples: int,
    seed: int,
) -> dict[Key, Floats]:
    if resamples == 0:
        return {}
    resampler = Resampler(scored.accuracy, draw_images(scored.images, resamples, seed))
    with progress("resampling images", resamples, "resamples", only_on_terminals=True) as bar:
        return resampler.evaluate(scored.ranking, risks, costs, deployment, is_probability, progress=bar.update)


NOTE = "coverage_at_risk reads its threshold off these very answers"
DEPLOYED_NOTE = (
    "deployed and effective_reliability numbers use thresholds from --threshold-predictions, which stay fixed while\n"
    "images are resampled"
)

SCORE_NOTE = f"{', '.join(OF_PROBABILITIES)} are undefined: the confidences are scores, not probabilities"

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


def _document(
    scored: _Scored,
    kind: str,
    risks: Sequence[float],
    costs: Sequence[float],
    deployment: Deployment | None,
    values: Mapping[Key, float],
    intervals: Mapping[Key, tuple[float, float]],
    undefined: Mapping[Key, int],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    nulled = {key: null_if_nan(value) for key, value in values.items()}
    at_risk = AT_RISK if deployment is not None else {"coverage_at_risk": AT_RISK["coverage_at_risk"]}

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

    images = int(np.unique(scored.images).size)
    document = {"questions": scored.ranking.n, "images": images, "confidence": kind, **nested(nulled)}
    if arguments.resamples:
        document["intervals"] = {
            "level": LEVEL,
            "resamples": arguments.resamples,
            "seed": arguments.seed,
            **nested({key: list(pair) for key, pair in intervals.items()}),
            # An interval is over the other resamples.
            "undefined_resamples": nested(undefined),
        }
    return document


def _check_outputs(arguments: argparse.Namespace) -> None:
    outputs = [path for path in (arguments.json, arguments.per_question) if path is not None]
    for path in outputs:
        check_writable(path)
    inputs = (arguments.questions, arguments.annotations, arguments.predictions, arguments.threshold_predictions)
    for path in outputs:
        check_not_read(path, filter(None, inputs))
    if len(outputs) == 2:
        one, other = (path.resolve() for path in outputs)
        if one == other or one in other.parents or other in one.parents:
            raise QuantrustError(
                f"{outputs[1]}: is, holds or lies in the other output, {outputs[0]}; expected paths of two files"
            )


def _write(
    arguments: argparse.Namespace, document: dict[str, Any], predictions: Mapping[str, Prediction], scored: _Scored
) -> None:
    path = Path()
    try:
        with ExitStack() as undo:
            for path in filter(None, (arguments.json, arguments.per_question)):
                make_folders(path, undo)
            with ExitStack() as stack:
                if arguments.per_question is not None:
                    path = arguments.per_question
                    partial = stack.enter_context(atomic_path(path))
                    table = {
                        "question_id": list(predictions),
                        "accuracy": scored.accuracy,
                        "confidence": [prediction.confidence for prediction in predictions.values()],
                    }
                    pl.DataFrame(table).write_csv(partial)
                if arguments.json is not None:
                    path = arguments.json
                    write_json(path, document)
            undo.pop_all()
    except OSError as error:
        raise unwritable(path, error.strerror or error) from None


def _table(
    scored: _Scored,
    values: Mapping[Key, float],
    intervals: Mapping[Key, tuple[float, float]],
    notes: Sequence[str],
) -> str:
    rows = [("metric", "value", f"{LEVEL:.0%} interval")]
    for (name, parameter), value in values.items():
        label = name if parameter is None else f"{name} {as_given(parameter)}"
        if name.endswith("threshold") or name.startswith("threshold"):
            # Whole: a threshold is there to be used.
            shown, between = "none" if math.isnan(value) else repr(value), ""
        else:
            shown = "undefined" if math.isnan(value) else f"{100 * value:.2f} %"
            pair = intervals.get((name, parameter))
            between = "" if pair is None else f"{100 * pair[0]:.2f} .. {100 * pair[1]:.2f}"
        rows.append((label, shown, between))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    images = np.unique(scored.images).size
    return "\n".join([f"{scored.ranking.n} questions on {images} images", *lines, *notes])


def _cost(text: str) -> float:
    value = parsed(float, text, f"a number from 0 to {LARGEST_COST:g}")
    if not 0.0 <= value <= LARGEST_COST:
        raise argparse.ArgumentTypeError(f"{text} is outside [0, {LARGEST_COST:g}]")
    return value
