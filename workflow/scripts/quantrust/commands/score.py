"""`quantrust score`: the reliability of answers with confidences, from official files or from a table of scores."""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quantrust.commands.numbers import as_given, chance_note, count, number_of_resamples, parsed, share
from quantrust.commands.outputs import check_outputs, json_writer, write_outputs
from quantrust.commands.plots import add_plot_option, check_plot, reliability_writer
from quantrust.commands.reliability import (
    KINDS,
    PROBABILITY,
    SCORE,
    Reliability,
    Settings,
    percentages,
    reliability,
    reliability_record,
    reliability_text,
)
from quantrust.commands.tables import (
    TABLE_HELP,
    Answers,
    add_column_options,
    answers_of,
    by_split,
    notes_of,
    read_table_option,
)
from quantrust.data.format import format_names, read_official, recognised
from quantrust.data.official import Files, Question, place_of, uneven_references
from quantrust.data.predictions import Prediction, read_predictions
from quantrust.data.table import table_format_names
from quantrust.errors import QuantrustError
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.metric_records import OF_PROBABILITIES, Key
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.summary import deploy
from quantrust.progress import progress
from quantrust.tasks.task import Quality, Task, task_of_format

RISKS = (0.005, 0.01, 0.05, 0.1, 0.2)
COSTS = (1.0, 10.0, 100.0)
LARGEST_COST = 1e12
"""Sums of costs of any data set then stay finite, and far from where gains below them are lost to rounding."""
MOST_GROUPS = 100
OFFICIAL = ("questions", "annotations", "predictions")

DESCRIPTION = """\
Score answers with confidences: accuracy, risk-coverage, effective reliability
and calibration, with intervals from resampling the images. The answers are in
a table of scores, in a log of lm-evaluation-harness or lmms-eval, or in the
official VQA result format beside questions and annotations as published
(VQAv2, AdVQA, VizWiz, GQA, COCO captions) or multiple-choice questions. There
the format decides how answers are judged."""

EPILOG = """\
a row of a table, here of T.jsonl:
  {"id": 1, "quality": 0.9, "confidence": 0.93, "image": "a", "split": "test"}
a prediction is a record of P.json (VizWiz: question_id is the image's name):
  [{"question_id": 1, "answer": "yes", "confidence": 0.93}, ...]

examples:
  a table; thresholds are chosen on its split val, metrics are of split test
    quantrust score T.csv --id question --quality score --json out.json
  a log of a multiple-choice task
    quantrust score samples_arc_easy.jsonl --metric acc --image doc.image
  predictions, all metrics that need no threshold
    quantrust score --questions Q.json --annotations A.json --predictions P.json
  thresholds chosen on the answers in V.json, metrics of those in P.json
    quantrust score --questions Q.json --annotations A.json \\
        --predictions P.json --threshold-predictions V.json \\
        --risks 0.01 0.05 --json out.json"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "score",
        help="score answers with confidences, in a table or against official annotations",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, nargs="?", metavar="TABLE", help=TABLE_HELP)
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="Q.json",
        help="official questions; not needed if the annotations have them",
    )
    parser.add_argument("--annotations", type=Path, metavar="A.json", help="official annotations")
    parser.add_argument(
        "--format",
        choices=[*format_names(), *table_format_names()],
        metavar="NAME",
        help=f"format of the files ({', '.join(format_names())}) or of the table ({', '.join(table_format_names())}); "
        "default: the one they look like",
    )
    parser.add_argument("--predictions", type=Path, metavar="P.json", help="predictions to report on")
    parser.add_argument(
        "--threshold-predictions",
        type=Path,
        metavar="V.json",
        help="predictions for other questions, or another table, on which thresholds are chosen; without them, and "
        "without a split val in the table, metrics that need a chosen threshold are left out",
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="the kind of confidence: probability (a value outside [0, 1] is an error) or score (it only ranks answers "
        "and has no calibration errors); default: probability if all values lie in [0, 1]",
    )
    parser.add_argument("--subset", action="store_true", help="allow questions without a prediction")
    parser.add_argument("--risks", type=share, nargs="+", default=list(RISKS), metavar="R", help="risk limits")
    parser.add_argument("--costs", type=_cost, nargs="+", default=list(COSTS), metavar="C", help="costs of an error")
    parser.add_argument(
        "--resamples",
        type=number_of_resamples,
        default=2000,
        metavar="B",
        help="resamples of the images (default: 2000; 0: none)",
    )
    parser.add_argument("--seed", type=count, default=0, help="seed of the resamples (default: 0)")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write all metrics here, as unrounded fractions")
    parser.add_argument(
        "--per-question", type=Path, metavar="OUT.csv", help="write question_id, quality and confidence here"
    )
    add_plot_option(parser, "the risk-coverage curve with its band, and the reliability diagram,")
    columns = add_column_options(parser, leave_out=("confidence",))
    columns.add_argument(
        "--confidence",
        metavar="NAME",
        help="column of confidences (default: confidence; of a study's scores maxprob); with --predictions, the same "
        "as --kind",
    )
    columns.add_argument("--dataset", metavar="NAME", help="of a study's scores, the dataset (default: the ID dataset)")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Source:
    """What is scored.

    Attributes
    ----------
    format : str
    answers : Answers
        To report on.
    val : Answers or None
        To set thresholds on.
    confidence : str
        What the files call a confidence.
    notes : list of str
    corpus : mapping of str to float
        Metrics of all answers together.
    """

    format: str
    answers: Answers
    val: Answers | None
    confidence: str
    notes: list[str]
    corpus: Mapping[str, float]


def run(arguments: argparse.Namespace) -> None:
    """Score, print a table and write the files that were asked for.

    Raises
    ------
    QuantrustError
        If the input cannot be scored or a file cannot be written. Nothing is then written.
    """
    # A value given twice is one row.
    risks, costs = list(dict.fromkeys(arguments.risks)), list(dict.fromkeys(arguments.costs))
    declared = _declared(arguments)
    _check_outputs(arguments)
    source = _from_official(arguments) if arguments.table is None else _from_table(arguments)
    answers, val = source.answers, source.val

    # One estimator made all answers: a value outside [0, 1] among any says that it yields no probabilities.
    kind = _kind([part for part in (answers, val) if part is not None], source.confidence, declared)
    deployment, notes = None, [NOTE]
    if val is not None:
        deployment = deploy(val.ranking, risks, costs)
        notes.append(DEPLOYED_NOTE if val.path != answers.path else SPLIT_NOTE.format(arguments.val))
        chance = chance_note(risks, val.image_count, LEVEL)
        if chance is not None:
            notes.append(chance)
        _note_shared(answers, val)
    if kind == SCORE:
        notes.append(SCORE_NOTE)
    settings = Settings(risks, costs, deployment, kind, arguments.resamples, arguments.seed)
    parts = _groups(answers)
    total = (1 + len(parts)) * arguments.resamples
    with progress("resampling images", total, "resamples", only_on_terminals=True) as bar:
        found = reliability(answers, settings, bar.update)
        groups = {name: (part, reliability(part, settings, bar.update)) for name, part in parts.items()}

    document = {"format": source.format, **reliability_record(answers, found, settings), **source.corpus}
    if groups:
        document["groups"] = {name: reliability_record(*one, settings) for name, one in groups.items()}
    write_outputs(_writers(arguments, document, answers, settings))
    values = {**found.values} | {(name, None): value for name, value in source.corpus.items()}
    print(reliability_text(answers, values, found.intervals, [*notes, *source.notes]))
    if groups:
        print(_groups_text(groups, settings))


def _declared(arguments: argparse.Namespace) -> str | None:
    """Return the declared kind of the confidences; raise a `QuantrustError` if options do not belong together."""
    if arguments.table is not None:
        for name in (*OFFICIAL, "subset"):
            if getattr(arguments, name):
                raise QuantrustError(f"--{name} belongs to official files; expected it without the table")
        if arguments.format in format_names():
            raise QuantrustError(
                f"--format {arguments.format} is one of official files; a table has {', '.join(table_format_names())}"
            )
        return arguments.kind
    for name in OFFICIAL[1:]:
        if getattr(arguments, name) is None:
            raise QuantrustError(f"expected a table of scores, or --{name} beside the other official files")
    if arguments.format in table_format_names():
        raise QuantrustError(
            f"--format {arguments.format} is one of tables; expected one of {', '.join(format_names())}"
        )
    if arguments.confidence not in (None, *KINDS):
        raise QuantrustError(f"--confidence {arguments.confidence}: expected one of {', '.join(KINDS)}")
    return arguments.kind or arguments.confidence


def _from_table(arguments: argparse.Namespace) -> _Source:
    table = read_table_option(arguments.table, arguments, arguments.format)
    rows, val_rows = by_split(table, arguments)
    notes = notes_of(table)
    val = None if val_rows is None else answers_of(table, val_rows)
    if arguments.threshold_predictions is not None:
        if val is not None:
            raise QuantrustError(
                f"{arguments.table}: has the split {arguments.val} itself; expected thresholds to be chosen there, or "
                "--val with the name of no split"
            )
        other = read_table_option(arguments.threshold_predictions, arguments, arguments.format, split=None, group=None)
        val = answers_of(other, other.answers)
        _check_apart(set(rows["id"]), val, arguments)
    return _Source(table.format, answers_of(table, rows), val, "confidence", notes, {})


def _check_apart(ids: set[str], val: Answers, arguments: argparse.Namespace) -> None:
    for named in val.ids:
        if named in ids:
            raise QuantrustError(
                f"{val.path}: answer {named}: is also in {arguments.table}; expected thresholds to be chosen on other "
                "questions than those reported on"
            )


def _from_official(arguments: argparse.Namespace) -> _Source:
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
    val = None
    if threshold_predictions is not None:
        val = _score(arguments.threshold_predictions, questions, threshold_predictions, quality)
    return _Source(
        format=file_format,
        answers=_score(arguments.predictions, questions, predictions, quality),
        val=val,
        confidence='"confidence"',
        notes=[f"judged by {task.quality_name}, the answers being to questions in the format {file_format}"],
        corpus=_corpus_metrics(task, questions, predictions),
    )


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
    found = {}
    for name, judge in task.corpus_metrics.items():
        worth = judge(references)
        found[name] = math.fsum(map(worth, answers, references)) / len(answers)
    return found


def _score(
    path: Path, questions: Mapping[str, Question], predictions: Mapping[str, Prediction], quality: Quality
) -> Answers:
    qualities = np.array([quality(p.answer, questions[key].answers) for key, p in predictions.items()])
    confidence = np.array([p.confidence for p in predictions.values()])
    images = np.array([questions[key].image_id for key in predictions])
    return Answers(path, list(predictions), qualities, confidence, images, rank(qualities, confidence))


def _kind(parts: Sequence[Answers], name: str, declared: str | None) -> str:
    """Return the kind of the confidences; print a note if it was not declared and they are not probabilities.

    Raises
    ------
    QuantrustError
        If they are declared as probabilities and one is outside [0, 1].
    """
    outside = [
        (part, int(row)) for part in parts for row in np.flatnonzero((part.confidence < 0.0) | (part.confidence > 1.0))
    ]
    if declared == SCORE or not outside:
        return declared or PROBABILITY
    part, row = outside[0]
    others = f" and {len(outside) - 1} more are" if len(outside) > 1 else " is"
    confidence = float(part.confidence[row])
    fault = f"{part.path}: question {part.ids[row]}: {name} {confidence!r}{others} outside [0, 1]"
    if declared == PROBABILITY:
        raise QuantrustError(f"{fault}; expected probabilities, or --kind score for scores that only rank answers")
    print(
        f"note: {fault}: taken as scores that only rank answers, without {', '.join(OF_PROBABILITIES)}; "
        "--kind declares what they are",
        file=sys.stderr,
    )
    return SCORE


def _note_shared(answers: Answers, val: Answers) -> None:
    """Say on standard error if answers are about images that thresholds are set on."""
    shared = np.intersect1d(answers.images, val.images).size
    if shared:
        images = "1 image has" if shared == 1 else f"{shared} images have"
        both = f"both {answers.path} and {val.path}" if answers.path != val.path else f"both splits of {val.path}"
        print(f"note: {images} questions in {both}: thresholds are best chosen on other images", file=sys.stderr)


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


def _groups(answers: Answers) -> dict[str, Answers]:
    """Return the answers of each group, in the order of their names; empty where there are no groups.

    Raises
    ------
    QuantrustError
        If there are more groups than one can look at.
    """
    if answers.groups is None:
        return {}
    names = np.unique(answers.groups)
    if names.size > MOST_GROUPS:
        raise QuantrustError(
            f"{answers.path}: has {names.size} groups; expected at most {MOST_GROUPS}, in a column that --group names"
        )
    return {str(name): _part(answers, answers.groups == name) for name in names}


def _part(answers: Answers, chosen: np.ndarray) -> Answers:
    quality, confidence = answers.quality[chosen], answers.confidence[chosen]
    ids = [named for named, one in zip(answers.ids, chosen, strict=True) if one]
    return Answers(answers.path, ids, quality, confidence, answers.images[chosen], rank(quality, confidence))


NOTE = "coverage_at_risk reads its threshold off these very answers"
DEPLOYED_NOTE = (
    "deployed and effective_reliability numbers use thresholds from --threshold-predictions, which stay fixed while\n"
    "images are resampled"
)
SPLIT_NOTE = (
    "deployed and effective_reliability numbers use thresholds from split {}, which stay fixed while images are\n"
    "resampled"
)
SCORE_NOTE = f"{', '.join(OF_PROBABILITIES)} are undefined: the confidences are scores, not probabilities"


def _groups_text(groups: Mapping[str, tuple[Answers, Reliability]], settings: Settings) -> str:
    """Return the lines of each group, with what can be compared between groups."""
    at_risk = ("deployed_coverage", "deployed_risk") if settings.deployment is not None else ("coverage_at_risk",)
    keys: list[Key] = [("accuracy", None), ("aurc", None)]
    keys += [(name, risk) for risk in settings.risks for name in at_risk]
    rows = [("group", "questions", "metric", "value", f"{LEVEL:.0%} interval")]
    for group, (answers, found) in groups.items():
        for place, key in enumerate(keys):
            name, risk = key
            label = name if risk is None else f"{name} {as_given(risk)}"
            head = (group, str(answers.ranking.n)) if place == 0 else ("", "")
            rows.append((*head, label, *percentages(found.values[key], found.intervals.get(key))))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    sides = "<><>>"
    cells = [[f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)] for row in rows]
    return "\n".join(["", *("  ".join(row).rstrip() for row in cells)])


def _check_outputs(arguments: argparse.Namespace) -> None:
    named = [path for path in (arguments.json, arguments.per_question) if path is not None]
    inputs = [getattr(arguments, name) for name in ("table", *OFFICIAL, "threshold_predictions")]
    check_outputs([*named, *check_plot(arguments.plot)], [path for path in inputs if path is not None])


def _writers(
    arguments: argparse.Namespace, document: dict[str, Any], answers: Answers, settings: Settings
) -> dict[Path, Callable[[Path], object]]:
    """Return what writes each file that was asked for."""
    writers: dict[Path, Callable[[Path], object]] = {}
    if arguments.per_question is not None:
        each = {"question_id": answers.ids, "quality": answers.quality, "confidence": answers.confidence}
        writers[arguments.per_question] = pl.DataFrame(each).write_csv
    if arguments.json is not None:
        writers[arguments.json] = json_writer(document)
    if arguments.plot is not None:
        parts = [(str(answers.path), answers, settings.kind)]
        writers[arguments.plot] = reliability_writer(
            arguments.plot, parts, settings.risks, settings.resamples, settings.seed
        )
    return writers


def _cost(text: str) -> float:
    value = parsed(float, text, f"a number from 0 to {LARGEST_COST:g}")
    if not 0.0 <= value <= LARGEST_COST:
        raise argparse.ArgumentTypeError(f"{text} is outside [0, {LARGEST_COST:g}]")
    return value
