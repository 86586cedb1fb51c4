"""File formats of datasets: what each module of `quantrust.data.formats` defines, and how it is found by its name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.data.groupings import GROUPINGS
from quantrust.data.official import Files, Question, same_ids
from quantrust.errors import QuantrustError
from quantrust.named_modules import DATA_FORMATS, load_module, module_names

PARTS = ("questions", "annotations")
"""Files that a format may read."""


@dataclass(frozen=True)
class Asked:
    """Who asks what: the identifiers of a question and its image."""

    question_id: str
    image_id: str


def _nothing(questions: Sequence[Question]) -> str | None:
    return None


@dataclass(frozen=True)
class Format:
    """A file format of datasets. A module of `quantrust.data.formats` has one, called ``FORMAT``.

    Attributes
    ----------
    task : str
        The task whose questions the files hold, a module of `quantrust.tasks`.
    parts : tuple of str
        Which of `PARTS` a dataset has; the first one has the questions in it.
    read : callable
        Reads files as a list of `Question`, in the order of the file that has the questions. Raises a `QuantrustError`
        that names file and question.
    listed : callable
        Returns what the file with the questions asks, in order, whether or not it has reference answers. Raises a
        `QuantrustError` if the file cannot be read, is not of the format or holds no questions.
    recognises : callable
        Whether a parsed annotations file seems to be of this format, and of no other, however faulty it is.
    image_name : str or None
        Template of the names of image files. None where the records name them.
    may_be_mute : bool
        Whether an item may have no text of its own: the model is then shown the picture alone, or with the prompt.
    has_subsets : bool
        Whether its files hold several splits, of which `Files.subset` names one.
    groupings : tuple of str
        Which of `GROUPINGS` its items may have a value for.
    note : callable
        Takes the questions of a split and returns what a user should know of them, None where that is nothing.
    """

    task: str
    parts: tuple[str, ...]
    read: Callable[[Files], list[Question]]
    listed: Callable[[str | Path], list[Asked]]
    recognises: Callable[[Any], bool]
    image_name: str | None = None
    may_be_mute: bool = False
    has_subsets: bool = False
    groupings: tuple[str, ...] = GROUPINGS
    note: Callable[[Sequence[Question]], str | None] = _nothing


def format_names() -> list[str]:
    """Return the names of the formats, sorted."""
    return module_names(DATA_FORMATS)


def format_module(name: str) -> str:
    """Return the dotted name of a format's module."""
    return f"{DATA_FORMATS}.{name}"


def load_format(name: str) -> Format:
    """Return the format of a name; a `QuantrustError` lists the names where there is none such."""
    if name not in (known := format_names()):
        raise QuantrustError(f"unknown format {name!r}; expected one of {', '.join(known)}")
    found: Format = load_module(DATA_FORMATS, name, ("FORMAT",)).FORMAT
    return found


def files_of(spec: Mapping[str, Any]) -> Files:
    """Return the files that a section of the config names."""
    keys = ("annotations", "questions", "images", "image_name", "instruction", "subset")
    return Files(**{key: spec[key] for key in keys if key in spec})


def file_of_questions(name: str, spec: Mapping[str, Any]) -> str:
    """Return the path of the file with the questions, among those that a section of the config names."""
    path: str = spec[load_format(name).parts[0]]
    return path


def recognised(files: Files) -> str:
    """Return the name of the format that an annotations file is in.

    Raises
    ------
    QuantrustError
        If the file cannot be read, or not exactly one format recognises it.
    """
    found = [name for name in format_names() if load_format(name).recognises(files.annotated)]
    if len(found) != 1:
        raise QuantrustError(
            f"{files.annotations}: looks like a file of {len(found)} formats; expected one of "
            f"{', '.join(format_names())}, or --format to say which"
        )
    return found[0]


def read_official(name: str, files: Files) -> list[Question]:
    """Read a dataset whose questions may be listed in a file of their own, whatever its format.

    Parameters
    ----------
    name : str
        The format.
    files : Files
        Where the format has the questions among the annotations, the questions file may be left out, be the annotations
        once more, or list the same questions in the same format, with or without reference answers.

    Returns
    -------
    list of Question
        In the order of the questions file, where there is one.

    Raises
    ------
    QuantrustError
        As the format's reader; also if the questions file is missing, or the two files list different questions.
    """
    file_format = load_format(name)
    if files.questions is None and "questions" in file_format.parts:
        raise QuantrustError(
            f"{files.annotations}: is in the format {name}, which has the questions in a file of their own; give that "
            "file as well"
        )
    questions = file_format.read(files)
    if files.questions is None or "questions" in file_format.parts:
        return questions
    annotated = {question.question_id: question for question in questions}
    asked = [one.question_id for one in file_format.listed(files.questions)]
    same_ids(asked, files.questions, annotated, files.annotations)
    return [annotated[question_id] for question_id in asked]
