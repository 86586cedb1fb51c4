"""Multiple choice: questions of which one of several choices is the answer, in a format of this project.

The file is a JSON list with an object per question::

    {"question_id": "17", "image": "17.jpg", "question": "What is on the table?",
     "choices": ["a cup", "a plate", "a book"], "answer": 1}

``image`` is the name of the image's file, ``choices`` are 2 to 26 different texts, and ``answer`` is the place of the
right one, from 0 on. ``answer_type`` and ``question_kind`` are optional texts.

A model is asked the question, then the choices on a line each, with a letter before it ("A. a cup"). The reference
answer is the letter; a prompt that says so belongs into the config.
"""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase as LETTERS
from typing import Any

from quantrust.data.format import Asked, Format
from quantrust.data.official import (
    Files,
    Question,
    by_id,
    each_image_one_file,
    image_file,
    list_of_objects,
    optional_text,
    place_of,
    some_questions,
)
from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError
from quantrust.files import read_json


def _records(parsed: Any, path: str | Path) -> Iterator[tuple[Asked, dict[str, Any]]]:
    records = by_id(list_of_objects(parsed, path), path)
    some_questions(records, path)
    for question_id, record in records.items():
        yield Asked(question_id, identifier(record.get("image"), "image", place_of(path, question_id))), record


def read_multiple_choice(files: Files) -> list[Question]:
    """Read questions with their choices and answers.

    Raises
    ------
    QuantrustError
        If the file is not of the format or has no questions, an identifier occurs twice, two images have one file, or
        the choices or the answer of a question are not as they should be. The message names file and question.
    """
    path, result = files.annotations, []
    for asked, record in _records(files.annotated, path):
        where = place_of(path, asked.question_id)
        choices = _choices(record, where)
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
        question = text(record.get("question"), "question", where)
        result.append(
            Question(
                question_id=asked.question_id,
                image_id=asked.image_id,
                image=image_file(files, asked.image_id, where),
                # without a text it stays without one, which is refused
                question="\n".join([question, *lines]) if question else "",
                answers=(_letter(record, choices, where),),
                answer_type=optional_text(record, "answer_type", where),
                question_kind=optional_text(record, "question_kind", where),
            )
        )
    return each_image_one_file(result, path)


def _choices(record: dict[str, Any], where: str) -> list[str]:
    choices = record.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise QuantrustError(
            f'{where}: expected a list of 2 to {len(LETTERS)} strings in "choices", got {shown(choices)}'
        )
    texts = [text(choice, "choices", where).strip() for choice in choices]
    if "" in texts or len(set(texts)) < len(texts):
        raise QuantrustError(f'{where}: "choices" is {shown(choices)}; expected texts that are different and not empty')
    return texts


def _letter(record: dict[str, Any], choices: list[str], where: str) -> str:
    answer = record.get("answer")
    if answer is None:
        raise QuantrustError(
            f'{where}: expected the place of the right choice in "answer", got none; use a split whose answers are '
            "published"
        )
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise QuantrustError(
            f'{where}: "answer" is {shown(answer)}; expected the place of one of the {len(choices)} choices, from 0 on'
        )
    return LETTERS[answer]


def _listed(path: str | Path) -> list[Asked]:
    return [asked for asked, _ in _records(read_json(path), path)]


def _recognises(annotations: Any) -> bool:
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "choices" in first


FORMAT = Format(
    task="exact_match", parts=("annotations",), read=read_multiple_choice, listed=_listed, recognises=_recognises
)
