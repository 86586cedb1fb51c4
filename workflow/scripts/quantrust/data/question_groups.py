"""Groups of questions that a user brings in a file.

They become a table of their own beside the questions table, so that another grouping asks no model anew.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import read_table, write_table
from quantrust.data.groupings import KEYS
from quantrust.data.texts import identifier, shown
from quantrust.data.user_tables import FORMS, read_user_table, text_columns
from quantrust.errors import QuantrustError

MOST_GROUPS = 100
"""Groups of a grouping at most: more of them are numbers or names, not groups."""

_log = logging.getLogger(__name__)


def build_question_groups(
    dataset: str, questions_path: str | Path, path: str | Path, groupings: Sequence[str], out_path: str | Path
) -> None:
    """Read a user's file of groups and write the groups of all test questions of a dataset.

    Parameters
    ----------
    dataset : str
        The dataset's name.
    questions_path : str or Path
        Its questions table.
    path : str or Path
        The user's file, as `read_groups` reads it.
    groupings : sequence of str
        The columns to take.
    out_path : str or Path
        Parquet file to write: ``question_id``, and for each grouping a column of groups, null for none.

    Raises
    ------
    QuantrustError
        As `read_groups`.
    """
    questions = read_table(questions_path, ["question_id", "image_id", "split"]).filter(split="test")
    table = read_groups(path, questions, groupings)
    for grouping in groupings:
        without = table[grouping].null_count()
        _log.info("%s: %s: %d of %d test questions are in no group", dataset, grouping, without, table.height)
    write_table(table, out_path)


def read_groups(path: str | Path, questions: pl.DataFrame, groupings: Sequence[str]) -> pl.DataFrame:
    """Read the groups of questions from a file of a user.

    Parameters
    ----------
    path : str or Path
        A table (.csv or .parquet) with ``question_id``, or with ``image_id`` where the questions about an image are
        alike, and a column of integers or strings for each grouping. An empty cell, and a question without a row, means
        no group. Rows may be in any order, and of other questions too.
    questions : polars.DataFrame
        ``question_id`` and ``image_id`` of the questions.
    groupings : sequence of str
        The columns to take.

    Returns
    -------
    polars.DataFrame
        ``question_id`` in the order of `questions`, and a column of strings for each grouping.

    Raises
    ------
    QuantrustError
        If the file is missing or not of the form, two rows of a question or image differ, no question has a group in
        some grouping, or a grouping has more than `MOST_GROUPS` groups.
    """
    expected = f"question_id or image_id, and {', '.join(groupings)}"
    if Path(path).suffix.lower() not in FORMS:
        raise QuantrustError(f"{path}: is not a file of groups; expected one that ends in .csv or .parquet")
    table = read_user_table(path, "a file of groups", expected)
    key = next((name for name in KEYS if name in table.columns), KEYS[0])
    table = text_columns(table, path, [key, *groupings], expected)
    group_of: dict[str, tuple[str | None, ...]] = {}
    for name, *groups in table.iter_rows():
        if name is None:
            raise QuantrustError(
                f"{path}: has a row without {key}: {shown((name, *groups))}; expected one in every row"
            )
        where = f"{path}: {key} {identifier(name, key, str(path))}"
        found = tuple(
            identifier(group, grouping, where) if group else None
            for grouping, group in zip(groupings, groups, strict=True)
        )
        if group_of.setdefault(name, found) != found:
            raise QuantrustError(f"{where}: has rows of different groups, {shown(group_of[name])} and {shown(found)}")
    none = (None,) * len(groupings)
    owners = zip(questions["question_id"], questions[key], strict=True)
    rows = [(question, *group_of.get(owner, none)) for question, owner in owners]
    result = pl.DataFrame(rows, schema=dict.fromkeys(["question_id", *groupings], pl.String), orient="row")
    for grouping in groupings:
        _check_grouping(result[grouping], path, key)
    return result


def _check_grouping(groups: pl.Series, path: str | Path, key: str) -> None:
    count = groups.drop_nulls().n_unique()
    if count == 0:
        raise QuantrustError(
            f"{path}: puts none of the {groups.len():,} test questions into a group of {groups.name}; expected the "
            f"{key} of the dataset's questions, and groups in the column {groups.name}"
        )
    if count > MOST_GROUPS:
        raise QuantrustError(
            f"{path}: {groups.name} has {count:,} different groups; expected at most {MOST_GROUPS}: put numbers into "
            "ranges, and rare groups together"
        )
