import json

import polars as pl
import pytest

from quantrust.errors import QuantrustError
from quantrust.vqa.official import Question
from quantrust.vqa.questions import SCHEMA, build_questions_table, questions_table


def question(question_id, image_id):
    return Question(
        question_id=question_id,
        image_id=image_id,
        image=f"images/{image_id}.png",
        question="What?",
        answers=("red",) * 10,
        answer_type="other",
        question_kind=None,
    )


def test_the_table_has_one_row_a_question_with_dataset_and_split():
    table = questions_table("scenes", {"val": [question("1", "a"), question("2", "a")], "test": [question("3", "b")]})
    assert table.schema == SCHEMA
    assert table["question_id"].to_list() == ["1", "2", "3"]
    assert table["split"].to_list() == ["val", "val", "test"]
    assert table["dataset"].unique().to_list() == ["scenes"]
    assert table["answers"][0].to_list() == ["red"] * 10
    assert table["question_kind"].null_count() == 3


def test_an_image_in_two_splits_is_refused():
    with pytest.raises(QuantrustError, match=r"scenes: image a .* the splits val and test"):
        questions_table("scenes", {"val": [question("1", "a")], "test": [question("2", "a")]})


def test_a_question_in_two_splits_is_refused():
    with pytest.raises(QuantrustError, match=r"scenes: question 1: .* the splits val and test"):
        questions_table("scenes", {"val": [question("1", "a")], "test": [question("1", "b")]})


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "x.png").write_bytes(b"pixels")
    answers = [{"answer": "red", "answer_id": i + 1} for i in range(10)]
    questions = [{"question_id": "x-0", "image_id": "x", "question": "What?", "image": "x.png"}]
    annotations = [{"question_id": "x-0", "image_id": "x", "answers": answers, "answer_type": "other"}]
    (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations}))
    return {
        "format": "vqav2",
        "questions": tmp_path / "q.json",
        "annotations": tmp_path / "a.json",
        "images": tmp_path,
    }


def test_the_written_table_reads_back_and_is_the_same_bytes_twice(spec, tmp_path):
    build_questions_table("scenes", {"test": spec}, tmp_path / "one.parquet")
    build_questions_table("scenes", {"test": spec}, tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    table = pl.read_parquet(tmp_path / "one.parquet")
    assert table.schema == SCHEMA
    assert table.row(0, named=True)["image"] == f"{tmp_path}/x.png"


def test_a_vizwiz_split_needs_no_questions_file(spec, tmp_path):
    record = {"image": "x.png", "question": "What?", "answers": [{"answer": "red"}] * 10, "answer_type": "other"}
    (tmp_path / "v.json").write_text(json.dumps([record]))
    splits = {"test": {"format": "vizwiz", "annotations": tmp_path / "v.json", "images": tmp_path}}
    build_questions_table("shift", splits, tmp_path / "shift.parquet")
    assert pl.read_parquet(tmp_path / "shift.parquet")["question_id"].to_list() == ["x.png"]


def test_a_missing_image_is_named_and_leaves_no_table(spec, tmp_path):
    (tmp_path / "x.png").unlink()
    with pytest.raises(QuantrustError, match=r"x\.png: no such image file, but question x-0 of scenes"):
        build_questions_table("scenes", {"test": spec}, tmp_path / "scenes.parquet")
    assert not list(tmp_path.glob("*parquet*"))


def test_an_unknown_format_is_named(spec, tmp_path):
    with pytest.raises(QuantrustError, match="scenes: split test: unknown format 'gqa'; expected one of"):
        build_questions_table("scenes", {"test": {**spec, "format": "gqa"}}, tmp_path / "scenes.parquet")
