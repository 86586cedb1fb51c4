"""The questions table: one row per question, whatever official format it came from."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from quantrust.artifacts.tables import read_table, write_table, write_tables
from quantrust.data.format import file_of_questions, files_of, load_format
from quantrust.data.images import find_bad_images, refuse_bad_images, shared_files
from quantrust.data.official import Question, place_of, uneven_references
from quantrust.data.splits import read_split_file, split_by_image
from quantrust.errors import QuantrustError

CheckReferences = Callable[[Sequence[str], str], None]
"""Raises a `QuantrustError` that begins with the given place where reference answers cannot be judged by."""

SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "dataset": pl.String(),
        "split": pl.String(),
        "image_id": pl.String(),
        "image": pl.String(),
        "question": pl.String(),
        "answers": pl.List(pl.String),
        "answer_type": pl.String(),
        "question_kind": pl.String(),
    }
)

SKIPPED_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "dataset": pl.String(),
        "split": pl.String(),
        "image_id": pl.String(),
        "image": pl.String(),
        "reason": pl.String(),
    }
)
_log = logging.getLogger(__name__)
_REASONS = {"image": pl.String(), "reason": pl.String()}


def questions_table(dataset: str, splits: Mapping[str, Sequence[Question]]) -> pl.DataFrame:
    """Put the questions of a dataset's splits into one table.

    Parameters
    ----------
    dataset : str
        The dataset's name.
    splits : mapping of str to sequence of Question
        The questions of each split, in order.

    Returns
    -------
    polars.DataFrame
        Columns as in `SCHEMA`, one row a question, splits one after another.

    Raises
    ------
    QuantrustError
        If a question, an image or its file occurs in two splits: splits are disjoint by image.
    """
    split_of_question: dict[str, str] = {}
    split_of_image: dict[str, str] = {}
    split_of_file: dict[str, str] = {}
    for split, questions in splits.items():
        for question in questions:
            _claim(split_of_question, question.question_id, split, f"{dataset}: question {question.question_id}")
            where = f"{dataset}: image {question.image_id} (question {question.question_id})"
            _claim(split_of_image, question.image_id, split, where)
            if question.image is not None:
                _claim(split_of_file, question.image, split, f"{where}: its file {question.image}")
    rows = [
        (
            q.question_id,
            dataset,
            split,
            q.image_id,
            q.image,
            q.question,
            list(q.answers),
            q.answer_type,
            q.question_kind,
        )
        for split, questions in splits.items()
        for q in questions
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _claim(owner: dict[str, str], key: str, split: str, where: str) -> None:
    if owner.setdefault(key, split) != split:
        raise QuantrustError(
            f"{where}: occurs in the splits {owner[key]} and {split}; "
            "expected splits without a common image: divide the dataset by image"
        )


def build_questions_table(
    dataset: str,
    splits: Mapping[str, Mapping[str, Any]],
    out_path: str | Path,
    skipped_path: str | Path,
    *,
    check_references: CheckReferences | None = None,
    division_path: str | Path | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
    max_aspect_ratio: float | None = None,
) -> None:
    """Read the official files of a dataset, look at every image, and write its questions table.

    Parameters
    ----------
    dataset : str
        The dataset's name.
    splits : mapping of str to mapping
        For each split ``format`` (a module of `quantrust.data.formats`), ``annotations``, ``images`` (folder),
        ``questions`` where the format has a file of its own for them, ``image_name`` where images are called otherwise
        than the format has it, and ``subset`` where only a part of the files is read. With `division_path` one entry,
        of any name, whose questions are divided.
    out_path : str or Path
        The Parquet file to write, with the columns of `SCHEMA`.
    skipped_path : str or Path
        A Parquet file of the questions that are left out, with the columns of `SKIPPED_SCHEMA`; it has no rows where
        all images can be used.
    check_references : callable, optional
        What the dataset's task asks of the reference answers of a question; see `quantrust.tasks.task.Task`. None
        takes whatever the format's reader returns.
    division_path : str or Path, optional
        The split of every image, as `write_division` writes it.
    on_bad_image : {"stop", "skip"}
        Whether an image that cannot be used (missing, damaged, no image, too thin) stops the study or only leaves its
        questions out.
    max_aspect_ratio : float, optional
        The longer side of an image over its shorter one at most: what all models read that will be asked.

    Raises
    ------
    QuantrustError
        As the readers and `questions_table`; also for an unknown format, for a question without text, for an image that
        cannot be used unless they are skipped, and for a split that would be left without a question.
    """
    parts = {split: read_part(dataset, spec) for split, spec in splits.items()}
    for split, questions in parts.items():
        _check_references(questions, splits[split]["annotations"], check_references)
        if note := load_format(splits[split]["format"]).note(questions):
            _log.warning("%s: %s: %s", dataset, split, note)
    if division_path is None:
        table = questions_table(dataset, parts)
    else:
        (questions,) = parts.values()
        table = _divided_table(dataset, questions, read_table(division_path))
    if note := shared_files(table["image"].unique(maintain_order=True)):
        _log.warning("%s: %s", dataset, note)
    bad = find_bad_images(dataset, table["image"].unique(maintain_order=True), max_aspect_ratio)
    if on_bad_image == "stop":
        about = table.filter(pl.col("image").is_in(list(bad))).group_by("image").agg("question_id")
        refuse_bad_images(dataset, bad, dict(about.iter_rows()))
    reasons = pl.DataFrame({"image": list(bad), "reason": list(bad.values())}, schema=_REASONS)
    skipped = table.join(reasons, on="image", maintain_order="left").select(SKIPPED_SCHEMA.names())
    kept = table.filter(~pl.col("image").is_in(list(bad)))
    emptied = set(table["split"]) - set(kept["split"])
    if emptied:
        raise QuantrustError(
            f"{dataset}: split {min(emptied)}: none of its images can be used, for example {next(iter(bad))} "
            f"({next(iter(bad.values()))}); correct the folder of images in the config"
        )
    write_tables({skipped_path: skipped, out_path: kept})


def _check_references(questions: Sequence[Question], path: str | Path, check: CheckReferences | None) -> None:
    if check is not None:
        for question in questions:
            check(question.answers, place_of(path, question.question_id))
    if note := uneven_references(questions):
        _log.warning("%s: %s", path, note)


def write_division(dataset: str, spec: Mapping[str, Any], division: Mapping[str, Any], out_path: str | Path) -> None:
    """Divide a dataset by image, by a seed or by a published file, and write the split of every image.

    Parameters
    ----------
    dataset : str
        The dataset's name.
    spec : mapping
        Where its official files are, as an entry of `splits` in `build_questions_table`.
    division : mapping
        Either the share of every split and ``seed``; or ``file``, which `read_split_file` reads, and ``splits``, those
        that the study needs.
    out_path : str or Path
        The Parquet file to write, with the columns ``image_id`` and ``split``.

    Raises
    ------
    QuantrustError
        As the readers, `split_by_image` and `read_split_file`.
    """
    images = [question.image_id for question in read_part(dataset, spec)]
    if "file" in division:
        table = read_split_file(division["file"], images, division["splits"])
    else:
        shares = {split: share for split, share in division.items() if split != "seed"}
        try:
            table = split_by_image(images, shares, division["seed"])
        except QuantrustError as error:
            raise QuantrustError(f"{dataset}: {error}") from None
    write_table(table, out_path)


def _divided_table(dataset: str, questions: Sequence[Question], division: pl.DataFrame) -> pl.DataFrame:
    split_of = dict(division.iter_rows())
    parts: dict[str, list[Question]] = {split: [] for split in division["split"].unique(maintain_order=True)}
    for question in questions:
        if question.image_id not in split_of:
            raise QuantrustError(
                f"{dataset}: image {question.image_id} (question {question.question_id}): is in no split; "
                "divide the dataset again"
            )
        parts[split_of[question.image_id]].append(question)
    return questions_table(dataset, parts)


def read_part(dataset: str, spec: Mapping[str, Any]) -> list[Question]:
    """Read the official files of a dataset, or of one of its splits; no image is opened.

    Parameters
    ----------
    dataset : str
        The dataset's name.
    spec : mapping
        An entry of `splits` in `build_questions_table`.

    Raises
    ------
    QuantrustError
        As the format's reader; also for an unknown format, and for a question without text.
    """
    try:
        file_format = load_format(spec["format"])
    except QuantrustError as error:
        raise QuantrustError(f"{dataset}: {error}") from None
    questions = file_format.read(files_of(spec))
    # What other texts leave no token, a model's tokenizer says.
    if not file_format.may_be_mute and (mute := [item.question_id for item in questions if not item.question]):
        raise QuantrustError(
            f"{place_of(file_of_questions(spec['format'], spec), mute[0])}: has no text (of {len(mute)} like it); take "
            "it out of the files, with its annotation"
        )
    return questions
