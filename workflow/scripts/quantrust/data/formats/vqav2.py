"""VQAv2 (Goyal et al., CVPR 2017), whose format AdVQA has as well: questions and annotations in two files.

The questions are a JSON object whose ``questions`` list holds objects with ``question_id``, ``image_id`` and
``question``. The annotations are one whose ``annotations`` list holds ``question_id``, ``image_id``, ``answers``
(objects with ``answer``; ten as published) and, where published, ``answer_type``. The embedded datasets add
``question_kind`` to an annotation, and ``image``, the name of the image's file, to a question.
"""

from pathlib import Path
from typing import Any

from quantrust.data.format import Asked, Format
from quantrust.data.official import (
    COCO_IMAGE_NAME,
    Files,
    Question,
    by_id,
    each_image_one_file,
    image_path,
    list_under,
    optional_text,
    place_of,
    reference_answers,
    same_ids,
    some_questions,
)
from quantrust.data.texts import identifier, text
from quantrust.errors import QuantrustError
from quantrust.files import read_json


def _asked(path: str | Path) -> dict[str, dict[str, Any]]:
    records = by_id(list_under(read_json(path), "questions", path), path)
    some_questions(records, path)
    return records


def _image_id(question: dict[str, Any], where: str) -> str:
    return identifier(question.get("image_id"), "image_id", where)


def read_vqav2(files: Files) -> list[Question]:
    """Read questions and annotations.

    Raises
    ------
    QuantrustError
        If a file is not of the format or has no questions, an identifier occurs twice, questions and annotations do not
        match, two images have one file or two files one image, or a question has no reference answers. The message
        names file and question.
    """
    assert files.questions is not None
    asked = _asked(files.questions)
    annotations = by_id(list_under(files.annotated, "annotations", files.annotations), files.annotations)
    same_ids(asked, files.questions, annotations, files.annotations)

    result = []
    for question_id, question in asked.items():
        annotation = annotations[question_id]
        here, there = place_of(files.questions, question_id), place_of(files.annotations, question_id)
        image_id = _image_id(question, here)
        if "image_id" in annotation and (found := _image_id(annotation, there)) != image_id:
            raise QuantrustError(
                f"{there}: has image_id {found}, but {files.questions} has {image_id}; use questions and annotations "
                "of the same release"
            )
        result.append(
            Question(
                question_id=question_id,
                image_id=image_id,
                image=image_path(question, image_id, files, COCO_IMAGE_NAME, here),
                question=text(question.get("question"), "question", here),
                answers=reference_answers(annotation, there),
                answer_type=optional_text(annotation, "answer_type", there),
                question_kind=optional_text(annotation, "question_kind", there),
            )
        )
    return each_image_one_file(result, files.questions)


def _listed(path: str | Path) -> list[Asked]:
    asked = _asked(path).items()
    return [Asked(question_id, _image_id(question, place_of(path, question_id))) for question_id, question in asked]


def _recognises(annotations: Any) -> bool:
    # a file of the questions alone is told what it lacks; captions come with a list of their images
    return (
        isinstance(annotations, dict)
        and isinstance(annotations.get("annotations", annotations.get("questions", {})), list)
        and not isinstance(annotations.get("images"), list)
    )


FORMAT = Format(
    task="vqa",
    parts=("questions", "annotations"),
    read=read_vqav2,
    listed=_listed,
    recognises=_recognises,
    image_name=COCO_IMAGE_NAME,
)
