"""The questions table: one row a question, whatever official format it came from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.errors import QuantrustError
from quantrust.files import atomic_path
from quantrust.vqa.official import COCO_IMAGE_NAME, Question, read_vizwiz, read_vqav2

SCHEMA = pl.Schema(
    {
        "question_id": pl.String,
        "dataset": pl.String,
        "split": pl.String,
        "image_id": pl.String,
        "image": pl.String,
        "question": pl.String,
        "answers": pl.List(pl.String),
        "answer_type": pl.String,
        "question_kind": pl.String,
    }
)


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
        If a question or an image occurs in two splits: splits are disjoint by image.
    """
    split_of_question: dict[str, str] = {}
    split_of_image: dict[str, str] = {}
    for split, questions in splits.items():
        for question in questions:
            _claim(split_of_question, question.question_id, split, f"{dataset}: question {question.question_id}")
            where = f"{dataset}: image {question.image_id} (question {question.question_id})"
            _claim(split_of_image, question.image_id, split, where)
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


def build_questions_table(dataset: str, splits: Mapping[str, Mapping[str, Any]], out_path: str | Path) -> None:
    """Read the official files of a dataset's splits and write its questions table.

    Parameters
    ----------
    dataset : str
        The dataset's name.
    splits : mapping of str to mapping
        For each split ``format`` (``vqav2`` or ``vizwiz``), ``annotations``, ``images`` (folder), for ``vqav2`` also
        ``questions`` and, where the images are not COCO val2014's, ``image_name``.
    out_path : str or Path
        The Parquet file to write.

    Raises
    ------
    QuantrustError
        As the readers and `questions_table`; also for an unknown format and an image file that does not exist.
    """
    table = questions_table(dataset, {split: _read_split(dataset, split, spec) for split, spec in splits.items()})
    for image, question_id in (
        table.unique("image", keep="first", maintain_order=True).select("image", "question_id").iter_rows()
    ):
        if not Path(image).is_file():
            raise QuantrustError(
                f"{image}: no such image file, but question {question_id} of {dataset} refers to it; "
                "check the folder of images in the config"
            )
    with atomic_path(out_path) as partial:
        table.write_parquet(partial)


def _read_split(dataset: str, split: str, spec: Mapping[str, Any]) -> list[Question]:
    match spec["format"]:
        case "vqav2":
            image_name = spec.get("image_name", COCO_IMAGE_NAME)
            return read_vqav2(spec["questions"], spec["annotations"], spec["images"], image_name)
        case "vizwiz":
            return read_vizwiz(spec["annotations"], spec["images"])
        case other:
            raise QuantrustError(f"{dataset}: split {split}: unknown format {other!r}; expected one of vqav2, vizwiz")
