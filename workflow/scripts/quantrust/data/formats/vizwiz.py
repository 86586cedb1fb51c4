"""VizWiz (Gurari et al., CVPR 2018): a list with one object per image, with question and answers in it.

An object has ``image`` (the name of the image's file), ``question``, ``answers`` (objects with ``answer``, without
``answer_id``; ten as published) and, where published, ``answer_type`` and ``answerable``. The embedded datasets, which
ask several questions of an image, add ``question_id`` and ``question_kind``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantrust.data.format import Asked, Format
from quantrust.data.official import (
    Files,
    Question,
    each_image_one_file,
    image_file,
    list_of_objects,
    occurs_twice,
    optional_text,
    place_of,
    reference_answers,
    some_questions,
)
from quantrust.data.texts import identifier, text
from quantrust.files import read_json


def _records(parsed: Any, path: str | Path) -> Iterator[tuple[Asked, dict[str, Any]]]:
    records = list_of_objects(parsed, path)
    some_questions(records, path)
    seen: set[str] = set()
    for position, record in enumerate(records):
        image = identifier(record.get("image"), "image", place_of(path, f"number {position + 1}"))
        where = place_of(path, image)
        question_id = identifier(record["question_id"], "question_id", where) if "question_id" in record else image
        if question_id in seen:
            raise occurs_twice(path, question_id)
        seen.add(question_id)
        yield Asked(question_id, image), record


def read_vizwiz(files: Files) -> list[Question]:
    """Read annotations; the identifier of a question is its ``question_id`` or, where it has none, the image's name.

    Raises
    ------
    QuantrustError
        If the file is not of the format or has no questions, an identifier occurs twice, two images have one file, or a
        question has no reference answers. The message names file and question.
    """
    path, result = files.annotations, []
    for asked, record in _records(files.annotated, path):
        where = place_of(path, asked.question_id)
        result.append(
            Question(
                question_id=asked.question_id,
                image_id=asked.image_id,
                image=image_file(files, asked.image_id, where),
                question=text(record.get("question"), "question", where),
                answers=reference_answers(record, where),
                answer_type=optional_text(record, "answer_type", where),
                question_kind=optional_text(record, "question_kind", where),
            )
        )
    return each_image_one_file(result, path)


def _listed(path: str | Path) -> list[Asked]:
    return [asked for asked, _ in _records(read_json(path), path)]


def _recognises(annotations: Any) -> bool:
    # a first object with choices is one of the multiple-choice format
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(annotations, list) and not (isinstance(first, dict) and "choices" in first)


FORMAT = Format(task="vqa", parts=("annotations",), read=read_vizwiz, listed=_listed, recognises=_recognises)
