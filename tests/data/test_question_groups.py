"""Groups of questions that a user brings: by question or by image, and what is refused."""

from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.data.question_groups import MOST_GROUPS, build_question_groups, read_groups
from quantrust.errors import QuantrustError

QUESTIONS = pl.DataFrame(
    {
        "question_id": ["1", "2", "3", "4"],
        "image_id": ["a", "a", "b", "7"],
        "split": ["test", "test", "test", "val"],
    }
)


@pytest.fixture(params=["csv", "parquet"])
def group_file(request, tmp_path):
    """Return a function that writes columns in one of the forms."""

    def write(**columns: list) -> Path:
        path = tmp_path / f"groups.{request.param}"
        table = pl.DataFrame(columns)
        table.write_csv(path) if request.param == "csv" else table.write_parquet(path)
        return path

    return write


def test_groups_follow_questions_whatever_the_order_of_rows_and_of_other_questions(group_file) -> None:
    path = group_file(
        question_id=[9, 3, 1], region=["south", "north", "south"], year=[1, 2, None], more=["x", "y", "z"]
    )
    table = read_groups(path, QUESTIONS, ["year", "region"])
    assert table.rows() == [("1", None, "south"), ("2", None, None), ("3", "2", "north"), ("4", None, None)]
    assert table.columns == ["question_id", "year", "region"]


def test_groups_of_images_are_those_of_their_questions(group_file) -> None:
    path = group_file(image_id=["b", "a", "a"], region=["north", "south", "south"])
    assert read_groups(path, QUESTIONS, ["region"])["region"].to_list() == ["south", "south", "north", None]


def test_only_test_questions_are_kept(group_file, tmp_path) -> None:
    questions, out = tmp_path / "questions.parquet", tmp_path / "out" / "groups.parquet"
    write_table(QUESTIONS, questions)
    build_question_groups("own", questions, group_file(image_id=["a"], region=["south"]), ["region"], out)
    assert pl.read_parquet(out).rows() == [("1", "south"), ("2", "south"), ("3", None)]
    # of the val image alone there is a group
    with pytest.raises(QuantrustError, match=r"puts none of the 3 test questions into a group of region"):
        build_question_groups("own", questions, group_file(image_id=["7"], region=["south"]), ["region"], out)


WRONG = {
    "another column": (dict(question_id=["1"], area=["x"]), r"has no column region, only \['question_id', 'area'\]"),
    "no key": (dict(id=["1"], region=["x"]), r"has no column question_id, only"),
    "two groups of a question": (
        dict(question_id=["1", "1"], region=["x", "y"]),
        r"question_id 1: has rows of different groups, \('x',\) and \('y',\)",
    ),
    "a row without key": (dict(question_id=["1", None], region=["x", "y"]), r"has a row without question_id"),
    "other questions": (dict(question_id=["10"], region=["x"]), r"puts none of the 4 test questions into a group"),
    "a control character": (dict(question_id=["1"], region=["x\x1b[2J"]), r'question_id 1: "region" is'),
}


@pytest.mark.parametrize(("columns", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_file_of_groups_is_refused(group_file, columns, message) -> None:
    path = group_file(**columns)
    with pytest.raises(QuantrustError, match=f"{path}: ?{message}"):
        read_groups(path, QUESTIONS, ["region"])


def test_numbers_are_not_taken_for_groups(tmp_path) -> None:
    ids = [str(number) for number in range(MOST_GROUPS + 1)]
    questions = pl.DataFrame({"question_id": ids, "image_id": ids})
    pl.DataFrame({"question_id": ids, "width": ids}).write_csv(tmp_path / "many.csv")
    with pytest.raises(QuantrustError, match=r"width has 101 different groups; expected at most 100"):
        read_groups(tmp_path / "many.csv", questions, ["width"])
    pl.DataFrame({"question_id": ids, "width": [0.5] * 101}).write_parquet(tmp_path / "floats.parquet")
    with pytest.raises(QuantrustError, match=r"has width of the type Float64; expected integers or strings"):
        read_groups(tmp_path / "floats.parquet", questions, ["width"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.csv", "no such file; expected a file of groups"),
        ("groups.json", r"is not a file of groups; expected one that ends in .csv or .parquet"),
        ("text.parquet", r"cannot be read as a table \(.*\); expected question_id or image_id, and region"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, message) -> None:
    if name != "no.csv":
        (tmp_path / name).write_text("{}")
    with pytest.raises(QuantrustError, match=message):
        read_groups(tmp_path / name, QUESTIONS, ["region"])
