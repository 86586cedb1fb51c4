"""Reader of predictions: the official VQA result format with an added confidence."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from quantrust.data.official import Question, list_of_objects, occurs_twice, place_of
from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError
from quantrust.files import read_json


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer and how sure its model is of it: a finite number, higher is surer."""

    answer: str
    confidence: float


def read_predictions(path: str | Path, questions: Mapping[str, Question]) -> dict[str, Prediction]:
    """Read a list of objects with ``question_id``, ``answer`` and ``confidence``.

    Parameters
    ----------
    path : str or Path
        JSON file. VizWiz results name a question by its image's file name, with or without its suffix, under ``image``
        or ``question_id``.
    questions : mapping of str to Question
        The questions there are, by identifier.

    Returns
    -------
    dict
        Prediction by question identifier, in the order of the file.

    Raises
    ------
    QuantrustError
        If the file is not of the format, is empty, answers an unknown question or one twice, names an image by a name
        without suffix that two images share, or a confidence is absent or not a finite number. The message names file
        and question.
    """
    stems: dict[str, list[str]] = {}
    for key, question in questions.items():
        # Only where an image has one question is its file name the question's identifier.
        if key == question.image_id:
            stems.setdefault(PurePosixPath(key).stem, []).append(key)
    predictions: dict[str, Prediction] = {}
    for position, record in enumerate(list_of_objects(read_json(path), path)):
        key = "image" if "image" in record and "question_id" not in record else "question_id"
        named = identifier(record.get(key), key, place_of(path, f"number {position + 1}"))
        meant = [named] if named in questions else stems.get(named, [named])
        if len(meant) > 1:
            raise QuantrustError(
                f"{path}: question {named}: may be {' or '.join(meant)}; expected the whole file name of the image"
            )
        question_id = meant[0]
        if question_id not in questions:
            raise QuantrustError(
                f"{path}: question {question_id}: is not among the questions; expected predictions for the questions "
                "that are scored"
            )
        if question_id in predictions:
            raise occurs_twice(path, question_id)
        where = place_of(path, question_id)
        answer = text(record.get("answer"), "answer", where)
        predictions[question_id] = Prediction(answer=answer, confidence=_confidence(record, where))
    if not predictions:
        raise QuantrustError(f"{path}: holds no predictions; expected at least one")
    return predictions


def _confidence(record: dict[str, Any], where: str) -> float:
    if "confidence" not in record:
        raise QuantrustError(f'{where}: has no "confidence"; expected a finite number')
    value = record["confidence"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise QuantrustError(f'{where}: "confidence" is {shown(value)}; expected a finite number')
    return float(value)
