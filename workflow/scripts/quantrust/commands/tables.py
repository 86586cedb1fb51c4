"""Tables of scores on the command line: the options that name their columns, and the answers by split."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quantrust.data.table import ScoreTable, Wanted, read_score_table, table_format_names
from quantrust.errors import QuantrustError
from quantrust.evaluation.metrics import Floats, Ranking, rank

TEST, VAL = "test", "val"
TABLE_HELP = "a .parquet, .csv or .jsonl file with an answer a row: id, quality and confidence"
COLUMNS = {
    "id": "column of the answers' ids (default: id)",
    "quality": "column of qualities from 0 to 1, or of truths (default: quality, or correct)",
    "confidence": "column of confidences (default: confidence; of a study's scores maxprob)",
    "image": "column of the images; answers that share one are resampled together (default: image, if there)",
    "group": "column of groups of questions, each reported by itself (default: group, if there)",
    "split": "column of splits (default: split, if there)",
}
LOGS = {
    "metric": "of a log of lm-evaluation-harness or lmms-eval, the metric that is the quality",
    "filter": "of a log with several filters, the one whose answers are meant",
}


@dataclass(frozen=True)
class Answers:
    """Answers of one split.

    Attributes
    ----------
    path : Path
        The file that they are from.
    ids : sequence of str
    quality : ndarray of float64, shape (n,)
        Qualities in [0, 1].
    images : ndarray of str, shape (n,)
    ranking : Ranking
    groups : ndarray of str, shape (n,), or None
        None where the answers have none.
    """

    path: Path
    ids: Sequence[str]
    quality: Floats
    confidence: Floats
    images: np.ndarray
    ranking: Ranking
    groups: np.ndarray | None = None

    @property
    def image_count(self) -> int:
        """Number of images."""
        return int(np.unique(self.images).size)


def answers_of(table: ScoreTable, rows: pl.DataFrame) -> Answers:
    """Return rows of a table as answers."""
    quality, confidence = rows["quality"].to_numpy(), rows["confidence"].to_numpy()
    return Answers(
        path=table.path,
        ids=rows["id"].to_list(),
        quality=quality,
        confidence=confidence,
        images=rows["image"].to_numpy(),
        ranking=rank(quality, confidence),
        groups=rows["group"].to_numpy() if "group" in rows.columns else None,
    )


def check_same_questions(one: Answers, other: Answers) -> None:
    """Raise a `QuantrustError` if two tables, both in the order of ids, do not answer the same questions.

    Parameters
    ----------
    one, other : Answers
    """
    for first, second in ((one, other), (other, one)):
        ids = set(second.ids)
        if alone := [named for named in first.ids if named not in ids]:
            raise QuantrustError(
                f"{first.path}: answer {alone[0]} is not in {second.path}, like {len(alone) - 1} others; expected the "
                "same questions in both"
            )
    if (differing := np.flatnonzero(one.images != other.images)).size:
        row = int(differing[0])
        raise QuantrustError(
            f"{other.path}: answer {other.ids[row]} is about image {other.images[row]}, in {one.path} about "
            f"{one.images[row]}; expected the same images in both"
        )


def add_column_options(parser: argparse.ArgumentParser, leave_out: Sequence[str] = ()) -> argparse._ArgumentGroup:
    """Add the options that say what a table's columns mean; those left out the command has of its own."""
    group = parser.add_argument_group("columns of a table")
    for name, text in {**COLUMNS, **LOGS}.items():
        if name not in leave_out:
            group.add_argument(f"--{name}", metavar="NAME", help=text)
    group.add_argument("--test", metavar="SPLIT", default=TEST, help=f"split to report on (default: {TEST})")
    group.add_argument("--val", metavar="SPLIT", default=VAL, help=f"split that thresholds are set on (default: {VAL})")
    return group


def format_option() -> dict[str, Any]:
    """Return what an option for the format of a table takes."""
    names = table_format_names()
    return {
        "choices": names,
        "metavar": "NAME",
        "help": f"what the table is: {', '.join(names)} (default: what it looks like)",
    }


def wanted(arguments: argparse.Namespace) -> Wanted:
    """Return what the options say about the columns."""
    given = {field.name: getattr(arguments, field.name, None) for field in fields(Wanted)}
    return Wanted(**given)


def read_table_option(
    path: Path, arguments: argparse.Namespace, table_format: str | None, **changed: str | None
) -> ScoreTable:
    """Read a table as the options say, apart from what is `changed`."""
    return read_score_table(path, replace(wanted(arguments), **changed), table_format)


def by_split(table: ScoreTable, arguments: argparse.Namespace) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Return the rows to report on, and those that thresholds are set on; None where the table has none.

    Raises
    ------
    QuantrustError
        If the table has splits, and none of them is the one to report on; or if the two are the same.
    """
    rows = table.answers
    if "split" not in rows.columns:
        return rows, None
    test, val = (rows.filter(pl.col("split") == name) for name in (arguments.test, arguments.val))
    if test.is_empty():
        there_are = ", ".join(rows["split"].unique(maintain_order=True))
        raise QuantrustError(
            f"{table.path}: no answers in split {arguments.test}, only in {there_are}; expected one of these in --test"
        )
    if arguments.test == arguments.val:
        raise QuantrustError(
            f"--test and --val are both {arguments.test}; expected thresholds to be set on other answers than those "
            "reported on"
        )
    return test, None if val.is_empty() else val


def notes_of(table: ScoreTable) -> list[str]:
    """Return what is to be said of how a table was read."""
    notes = list(table.notes)
    if not table.has_images:
        notes.append("no column of images: every answer counts as one about an image of its own")
    return notes
