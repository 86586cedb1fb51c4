"""Readers of the official JSON formats: VQAv2 and AdVQA questions and annotations, VizWiz lists."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError
from quantrust.files import path_inside, read_json

SPLITS = ("dev", "val", "test")
"""The Selector trains on the first, everything is chosen on the second and reported on the third."""

REFERENCES = 10
"""How many reference answers a question has in VQAv2, AdVQA and VizWiz."""

COCO_IMAGE_NAME = "COCO_val2014_{image_id:012d}.jpg"
"""How COCO val2014, which VQAv2 and AdVQA validation questions refer to, names its files."""

# A longer number than of 99 digits is the name of no file; a width of many more takes all memory.
IMAGE_NAME_PATTERN = (
    r"^(?!/)(?!(.*/)?\.\.(/|\Z))[^{}\x00-\x1f\x7f]*\{image_id(:(0?[1-9][0-9]?)?d?)?\}[^{}\x00-\x1f\x7f]*\Z"
)
"""What a template of file names looks like; the config's schema has it too."""
IMAGE_NAMES = "a file name with {image_id} in it, such as {image_id:012d}.jpg, and no other braces"
_IMAGE_NAME = re.compile(IMAGE_NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its reference answers.

    Attributes
    ----------
    question_id, image_id : str
        Identifiers, unique within a dataset. VizWiz knows only the image's file name, which then is both, as in its
        official evaluator.
    image : str or None
        Path of the image file; None where the images' folder was not given.
    question : str
        The question's text.
    answers : tuple of str
        The ten reference answers, as published.
    answer_type : str or None
        ``yes/no``, ``number``, ``other`` or ``unanswerable``; None where the file does not say.
    question_kind : str or None
        A finer kind, which only the embedded datasets have.
    """

    question_id: str
    image_id: str
    image: str | None
    question: str
    answers: tuple[str, ...]
    answer_type: str | None
    question_kind: str | None


def list_of_objects(value: Any, path: str | Path) -> list[dict[str, Any]]:
    """Return a parsed JSON value that must be a list of objects; else a `QuantrustError` names file and entry."""
    if not isinstance(value, list):
        raise QuantrustError(f"{path}: expected a list of objects, got {type(value).__name__}")
    for position, record in enumerate(value):
        if not isinstance(record, dict):
            raise QuantrustError(f"{path}: entry {position + 1}: expected an object, got {type(record).__name__}")
    return value


def listed_questions(parsed: Any, file_format: str, path: str | Path) -> list[dict[str, Any]]:
    """Return the questions of a parsed official file as it lists them: VizWiz's list, or what VQAv2 has under a key.

    Parameters
    ----------
    parsed : object
    file_format : {"vqav2", "vizwiz"}
    path : str or Path
        Where it was read, for messages.

    Raises
    ------
    QuantrustError
        If it is not of the format, or there are none.
    """
    records = list_of_objects(parsed, path) if file_format == "vizwiz" else _list_under(parsed, "questions", path)
    if not records:
        raise QuantrustError(f"{path}: holds no questions; expected at least one")
    return records


def place_of(path: str | Path, question: str) -> str:
    """Return how messages name a question of a file."""
    return f"{path}: question {question}"


def occurs_twice(path: str | Path, question_id: str) -> QuantrustError:
    """Return the error of a question that a file holds twice."""
    return QuantrustError(f"{path}: question {question_id}: occurs twice; expected each question once")


def read_vqav2(
    questions_path: str | Path,
    annotations_path: str | Path,
    images_dir: str | Path | None,
    image_name: str = COCO_IMAGE_NAME,
) -> list[Question]:
    """Read questions and annotations in the VQAv2 format, which AdVQA shares.

    Parameters
    ----------
    questions_path : str or Path
        JSON object whose ``questions`` list holds ``question_id``, ``image_id`` and ``question``.
    annotations_path : str or Path
        JSON object whose ``annotations`` list holds ``question_id``, ``image_id``, ``answers`` (ten objects with
        ``answer``) and, where published, ``answer_type``; the embedded datasets add ``question_kind``.
    images_dir : str or Path or None
        Folder of the images, which is only joined to their names; None leaves the images out.
    image_name : str
        Template of the file name, with the field ``image_id``. A question's own ``image`` key wins.

    Returns
    -------
    list of Question
        In the order of the questions file.

    Raises
    ------
    QuantrustError
        If a file is not of the format or has no questions, an identifier occurs twice, questions and annotations do not
        match, two images have one file or two files one image, or a question has not ten reference answers. The message
        names file and question.
    """
    return _vqav2(read_json(annotations_path), questions_path, annotations_path, images_dir, image_name)


def read_vizwiz(annotations_path: str | Path, images_dir: str | Path | None) -> list[Question]:
    """Read a VizWiz list: one object an image, with question and answers in it.

    Parameters
    ----------
    annotations_path : str or Path
        JSON list of objects with ``image`` (file name), ``question``, ``answers`` (ten objects with ``answer``; no
        ``answer_id``) and, where published, ``answer_type`` and ``answerable``. The embedded datasets, which ask
        several questions of an image, add ``question_id`` and ``question_kind``.
    images_dir : str or Path or None
        Folder of the images, which is only joined to their names; None leaves the images out.

    Returns
    -------
    list of Question
        In the order of the file; the identifier of a question is its ``question_id`` where it has one and the image's
        file name otherwise.

    Raises
    ------
    QuantrustError
        If the file is not of the format or has no questions, an identifier occurs twice, two images have one file, or a
        question has not ten reference answers. The message names file and question.
    """
    return _vizwiz(read_json(annotations_path), annotations_path, images_dir)


def read_official(questions_path: str | Path, annotations_path: str | Path) -> list[Question]:
    """Read a pair of files of either format, without images: a list is VizWiz's, an object VQAv2's or AdVQA's.

    Parameters
    ----------
    questions_path, annotations_path : str or Path
        The two files. VizWiz publishes questions and answers in one; then both may be the same file, or the
        questions a list with the same ``image`` values.

    Returns
    -------
    list of Question
        In the order of the questions file.

    Raises
    ------
    QuantrustError
        As `read_vqav2` and `read_vizwiz`, and if the two files list different questions.
    """
    parsed = read_json(annotations_path)
    if not isinstance(parsed, list):
        return _vqav2(parsed, questions_path, annotations_path, None, COCO_IMAGE_NAME)
    annotated = {question.question_id: question for question in _vizwiz(parsed, annotations_path, None)}
    asked: dict[str, Any] = {}
    for position, record in enumerate(list_of_objects(read_json(questions_path), questions_path)):
        key = "question_id" if "question_id" in record else "image"
        question_id = identifier(record.get(key), key, place_of(questions_path, f"number {position + 1}"))
        if question_id in asked:
            raise occurs_twice(questions_path, question_id)
        asked[question_id] = record
    _same_ids(asked, questions_path, annotated, annotations_path)
    return [annotated[question_id] for question_id in asked]


def _vqav2(
    parsed_annotations: Any,
    questions_path: str | Path,
    annotations_path: str | Path,
    images_dir: str | Path | None,
    image_name: str,
) -> list[Question]:
    questions = _by_id(listed_questions(read_json(questions_path), "vqav2", questions_path), questions_path)
    annotations = _by_id(_list_under(parsed_annotations, "annotations", annotations_path), annotations_path)
    _same_ids(questions, questions_path, annotations, annotations_path)

    result = []
    for question_id, question in questions.items():
        annotation = annotations[question_id]
        asked, annotated = place_of(questions_path, question_id), place_of(annotations_path, question_id)
        image_id = identifier(question.get("image_id"), "image_id", asked)
        if "image_id" in annotation:
            found = identifier(annotation["image_id"], "image_id", annotated)
            if found != image_id:
                raise QuantrustError(
                    f"{annotated}: has image_id {found}, but {questions_path} has {image_id}; use questions and "
                    "annotations of the same release"
                )
        result.append(
            Question(
                question_id=question_id,
                image_id=image_id,
                image=None if images_dir is None else _image_path(question, image_id, images_dir, image_name, asked),
                question=text(question.get("question"), "question", asked),
                answers=reference_answers(annotation, annotated),
                answer_type=_optional_text(annotation, "answer_type", annotated),
                question_kind=_optional_text(annotation, "question_kind", annotated),
            )
        )
    return _each_image_one_file(result, questions_path)


def _vizwiz(parsed: Any, annotations_path: str | Path, images_dir: str | Path | None) -> list[Question]:
    records = listed_questions(parsed, "vizwiz", annotations_path)
    result: dict[str, Question] = {}
    for position, record in enumerate(records):
        image = identifier(record.get("image"), "image", place_of(annotations_path, f"number {position + 1}"))
        where = place_of(annotations_path, image)
        question_id = identifier(record["question_id"], "question_id", where) if "question_id" in record else image
        if question_id in result:
            raise occurs_twice(annotations_path, question_id)
        where = place_of(annotations_path, question_id)
        result[question_id] = Question(
            question_id=question_id,
            image_id=image,
            image=None if images_dir is None else str(path_inside(images_dir, image, where)),
            question=text(record.get("question"), "question", where),
            answers=reference_answers(record, where),
            answer_type=_optional_text(record, "answer_type", where),
            question_kind=_optional_text(record, "question_kind", where),
        )
    return _each_image_one_file(list(result.values()), annotations_path)


def _each_image_one_file(questions: list[Question], path: str | Path) -> list[Question]:
    """Return questions unless two of their images have one file, or one image two files.

    Splits are kept apart and images resampled by identifiers, but it is the file that a model sees.
    """
    by_file: dict[str, Question] = {}
    by_image: dict[str, Question] = {}
    for question in questions:
        if question.image is None:
            continue
        other = by_file.setdefault(question.image, question)
        if other.image_id != question.image_id:
            raise QuantrustError(
                f"{place_of(path, question.question_id)}: its image {question.image_id} and the image {other.image_id} "
                f"of question {other.question_id} are both {question.image}; expected a file for each image"
            )
        other = by_image.setdefault(question.image_id, question)
        if other.image != question.image:
            raise QuantrustError(
                f"{place_of(path, question.question_id)}: its image {question.image_id} is {question.image}, but that "
                f"of question {other.question_id} is {other.image}; expected one file for each image"
            )
    return questions


def _list_under(value: Any, key: str, path: str | Path) -> list[dict[str, Any]]:
    if not isinstance(value, dict) or key not in value:
        raise QuantrustError(f'{path}: expected a JSON object with the key "{key}", as in the VQAv2 release')
    return list_of_objects(value[key], path)


def _by_id(records: Iterable[dict[str, Any]], path: str | Path) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for position, record in enumerate(records):
        question_id = identifier(record.get("question_id"), "question_id", place_of(path, f"number {position + 1}"))
        if question_id in result:
            raise occurs_twice(path, question_id)
        result[question_id] = record
    return result


def _same_ids(
    questions: dict[str, Any], questions_path: str | Path, annotations: dict[str, Any], annotations_path: str | Path
) -> None:
    for question_id in questions:
        if question_id not in annotations:
            raise QuantrustError(
                f"{annotations_path}: question {question_id}: has no annotation, but is asked in {questions_path}; "
                "use questions and annotations of the same release"
            )
    for question_id in annotations:
        if question_id not in questions:
            raise QuantrustError(
                f"{annotations_path}: question {question_id}: is annotated, but not asked in {questions_path}; "
                "use questions and annotations of the same release"
            )


def _optional_text(record: dict[str, Any], key: str, where: str) -> str | None:
    return None if record.get(key) is None else text(record[key], key, where)


def _image_path(record: dict[str, Any], image_id: str, images_dir: str | Path, template: str, where: str) -> str:
    if "image" in record:
        return str(path_inside(images_dir, text(record["image"], "image", where), where))
    if not _IMAGE_NAME.fullmatch(template):
        raise QuantrustError(f"the name of images {shown(template)} is not {IMAGE_NAMES}")
    try:
        number = int(image_id)
    except ValueError:
        raise QuantrustError(
            f'{where}: image_id {shown(image_id)} is not a COCO number and there is no "image"; expected one of the two'
        ) from None
    return str(path_inside(images_dir, template.format(image_id=number), where))


def reference_answers(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the ten reference answers of a record; raise unless it has ten.

    Parameters
    ----------
    record : mapping
        With `answers`, a list of objects with ``answer``.
    where : str
        The file and the question, for messages.

    Raises
    ------
    QuantrustError
    """
    answers = record.get("answers")
    if not isinstance(answers, list):
        raise QuantrustError(
            f'{where}: expected {REFERENCES} reference answers in "answers", got none; use a split whose answers are '
            "published"
        )
    if len(answers) != REFERENCES:
        raise QuantrustError(f"{where}: expected {REFERENCES} reference answers, got {len(answers)}")
    for answer in answers:
        if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
            raise QuantrustError(
                f'{where}: expected reference answers that are objects with a string in "answer", got {shown(answer)}'
            )
    return tuple(text(answer["answer"], "answer", where) for answer in answers)
