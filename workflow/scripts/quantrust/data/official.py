"""What readers of official files share: questions, the files of a dataset, and the checks of records and images.

The formats themselves are the modules of `quantrust.data.formats`.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError
from quantrust.files import path_inside, read_json

SPLITS = ("dev", "val", "test")
"""The Selector trains on the first, everything is chosen on the second and reported on the third."""

COCO_IMAGE_NAME = "COCO_val2014_{image_id:012d}.jpg"
"""How COCO val2014, which VQAv2 and AdVQA validation questions refer to, names its files."""

# A longer number than of 99 digits is the name of no file; a width of many more takes all memory.
IMAGE_NAME_PATTERN = (
    r"^(?!/)(?!(.*/)?\.\.(/|\Z))[^{}\x00-\x1f\x7f]*\{image_id(:(0?[1-9][0-9]?)?d?)?\}[^{}\x00-\x1f\x7f]*\Z"
)
"""What a template of file names looks like; the config's schema has it too."""
IMAGE_NAMES = "a file name with {image_id} in it, such as {image_id:012d}.jpg, and no other braces"
_IMAGE_NAME = re.compile(IMAGE_NAME_PATTERN)


@dataclass(frozen=True)
class Files:
    """The files of a dataset, or of one of its splits.

    Attributes
    ----------
    annotations : str or Path
        The file with the reference answers; in most formats the questions are in it as well.
    questions : str or Path or None
        A file of the questions alone.
    images : str or Path or None
        The folder of the images, which is only joined to their names. None leaves the images out.
    image_name : str or None
        Template of the names of image files, with the field ``image_id``. None stands for the format's own.
    instruction : str or None
        What is asked about every image, in a format whose files do not say it. None asks nothing.
    subset : str or None
        The part of the files that is read, by its name there, in a format whose files hold several. None reads all.
    """

    annotations: str | Path
    questions: str | Path | None = None
    images: str | Path | None = None
    image_name: str | None = None
    instruction: str | None = None
    subset: str | None = None

    @cached_property
    def annotated(self) -> Any:
        """What the annotations file holds, parsed once."""
        return read_json(self.annotations)


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
        The reference answers, as published; at least one.
    answer_type : str or None
        What the format has as the type of the answer or question: ``yes/no``, ``number``, ``other`` or ``unanswerable``
        in VQAv2 and VizWiz. None where the file does not say.
    question_kind : str or None
        Another kind of question, which the embedded datasets and GQA have.
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


def place_of(path: str | Path, question: str) -> str:
    """Return how messages name a question of a file."""
    return f"{path}: question {question}"


def occurs_twice(path: str | Path, question_id: str) -> QuantrustError:
    """Return the error of a question that a file holds twice."""
    return QuantrustError(f"{path}: question {question_id}: occurs twice; expected each question once")


def each_image_one_file(questions: list[Question], path: str | Path) -> list[Question]:
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


def some_questions(records: Collection[Any], path: str | Path) -> None:
    """Raise a `QuantrustError` where a file holds no questions."""
    if not records:
        raise QuantrustError(f"{path}: holds no questions; expected at least one")


def list_under(value: Any, key: str, path: str | Path, release: str = "VQAv2") -> list[dict[str, Any]]:
    """Return the list of objects that a parsed JSON object has under a key; else a `QuantrustError` names the file."""
    if not isinstance(value, dict) or key not in value:
        raise QuantrustError(f'{path}: expected a JSON object with the key "{key}", as in the {release} release')
    return list_of_objects(value[key], path)


def by_id(records: Iterable[dict[str, Any]], path: str | Path) -> dict[str, dict[str, Any]]:
    """Return records by their ``question_id``; a `QuantrustError` names one that is missing or occurs twice."""
    result: dict[str, dict[str, Any]] = {}
    for position, record in enumerate(records):
        question_id = identifier(record.get("question_id"), "question_id", place_of(path, f"number {position + 1}"))
        if question_id in result:
            raise occurs_twice(path, question_id)
        result[question_id] = record
    return result


def same_ids(
    questions: Collection[str], questions_path: str | Path, annotations: Collection[str], annotations_path: str | Path
) -> None:
    """Raise a `QuantrustError` unless questions and annotations, each by identifier, are about the same questions."""
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


def optional_text(record: dict[str, Any], key: str, where: str) -> str | None:
    """Return a text that a record may have; None where it has none."""
    return None if record.get(key) is None else text(record[key], key, where)


def image_file(files: Files, name: str, where: str) -> str | None:
    """Return the path of an image whose name a record gives; None where the folder of images is not given."""
    return None if files.images is None else str(path_inside(files.images, name, where))


def image_path(record: Mapping[str, Any], image_id: str, files: Files, template: str, where: str) -> str | None:
    """Return the path of a question's image: of its record's own ``image``, or by the template of names.

    Parameters
    ----------
    record : mapping
    image_id : str
        Its identifier, which stands in the name as a number where the template gives a width or ``d``.
    files : Files
    template : str
        The format's own template; the files may name another in its place.
    where : str
        The file and the question, for messages.

    Returns
    -------
    str or None
        None where the folder of images is not given.
    """
    if files.images is None:
        return None
    if "image" in record:
        return image_file(files, text(record["image"], "image", where), where)
    template = template if files.image_name is None else files.image_name
    if not _IMAGE_NAME.fullmatch(template):
        raise QuantrustError(f"the name of images {shown(template)} is not {IMAGE_NAMES}")
    name: str | int = image_id
    if any(format_spec for _, _, format_spec, _ in Formatter().parse(template)):
        try:
            name = int(image_id)
        except ValueError:
            raise QuantrustError(
                f'{where}: image_id {shown(image_id)} is not a COCO number and there is no "image"; expected one of '
                "the two"
            ) from None
    return image_file(files, template.format(image_id=name), where)


def reference_answers(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the reference answers, one or more, of a record in the VQAv2 form.

    Parameters
    ----------
    record : mapping
        With ``answers``, a list of objects with ``answer``.
    where : str
        The file and the question, for messages.

    Raises
    ------
    QuantrustError
    """
    answers = record.get("answers")
    if not isinstance(answers, list) or not answers:
        raise QuantrustError(
            f'{where}: expected reference answers in "answers", got none; use a split whose answers are published'
        )
    for answer in answers:
        if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
            raise QuantrustError(
                f'{where}: expected reference answers that are objects with a string in "answer", got {shown(answer)}'
            )
    return tuple(text(answer["answer"], "answer", where) for answer in answers)


def uneven_references(questions: Iterable[Question]) -> str | None:
    """Return a note where questions of a kind have different numbers of reference answers; None where all have as many.

    Examples
    --------
    >>> def asked(*answers):
    ...     return Question("1", "a", None, "What?", answers, None, None)
    >>> uneven_references([asked("red", "blue"), asked("red"), asked("red", "pink")])
    'questions have different numbers of reference answers: 2 (2 questions), 1 (1 question)'
    """
    by_kind: dict[str | None, Counter[int]] = {}
    for question in questions:
        by_kind.setdefault(question.question_kind, Counter())[len(question.answers)] += 1
    if all(len(kind) == 1 for kind in by_kind.values()):
        return None
    counts = sum(by_kind.values(), Counter()).most_common()
    shares = (f"{number} ({count:,} question{'s' if count > 1 else ''})" for number, count in counts)
    return f"questions have different numbers of reference answers: {', '.join(shares)}"
