"""GQA (Hudson and Manning, CVPR 2019): a JSON object with an object per question, under the question's identifier.

An object has ``imageId``, ``question``, ``answer`` and, where published, ``types``. Of these, ``structural`` (verify,
query, choose, logical or compare) becomes the answer type, and ``semantic`` (obj, attr, cat, rel or global) the kind of
question. A question has one reference answer. Those of the test split are not published: use val or testdev.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantrust.data.format import Asked, Format
from quantrust.data.official import (
    Files,
    Question,
    each_image_one_file,
    image_path,
    optional_text,
    place_of,
    some_questions,
)
from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError
from quantrust.files import read_json

IMAGE_NAME = "{image_id}.jpg"


def _records(path: str | Path) -> Iterator[tuple[Asked, dict[str, Any]]]:
    parsed = read_json(path, unique_keys=True)
    if not isinstance(parsed, dict):
        raise QuantrustError(f"{path}: expected a JSON object with an object per question, as in the GQA release")
    some_questions(parsed, path)
    for position, (key, record) in enumerate(parsed.items()):
        question_id = identifier(key, "question identifier", place_of(path, f"number {position + 1}"))
        where = place_of(path, question_id)
        if not isinstance(record, dict):
            raise QuantrustError(f"{where}: expected an object, got {type(record).__name__}")
        yield Asked(question_id, identifier(record.get("imageId"), "imageId", where)), record


def read_gqa(files: Files) -> list[Question]:
    """Read questions with their answers.

    Raises
    ------
    QuantrustError
        If the file is not of the format or has no questions, two images have one file, or a question has no answer. The
        message names file and question.
    """
    path, result = files.annotations, []
    for asked, record in _records(path):
        where = place_of(path, asked.question_id)
        if record.get("answer") is None:
            raise QuantrustError(
                f'{where}: expected a string in "answer", got none; use a split whose answers are published'
            )
        types = {} if record.get("types") is None else record["types"]
        if not isinstance(types, dict):
            raise QuantrustError(f'{where}: expected an object in "types", got {shown(types)}')
        result.append(
            Question(
                question_id=asked.question_id,
                image_id=asked.image_id,
                image=image_path(record, asked.image_id, files, IMAGE_NAME, where),
                question=text(record.get("question"), "question", where),
                answers=(text(record["answer"], "answer", where),),
                answer_type=optional_text(types, "structural", where),
                question_kind=optional_text(types, "semantic", where),
            )
        )
    return each_image_one_file(result, path)


def _listed(path: str | Path) -> list[Asked]:
    return [asked for asked, _ in _records(path)]


def _recognises(annotations: Any) -> bool:
    return (
        isinstance(annotations, dict)
        and bool(annotations)
        and all(isinstance(value, dict) for value in annotations.values())
    )


FORMAT = Format(
    task="exact_match",
    parts=("annotations",),
    read=read_gqa,
    listed=_listed,
    recognises=_recognises,
    image_name=IMAGE_NAME,
)
