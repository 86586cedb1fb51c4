import json

import pytest

from official_readers import read_official
from quantrust.data.format import load_format
from quantrust.data.official import Files
from quantrust.errors import QuantrustError

# In the form of the published testdev_balanced_questions.json.
RECORD = {
    "semantic": [{"operation": "select", "dependencies": [], "argument": "table (2,)"}],
    "entailed": [],
    "equivalent": ["201307251"],
    "question": "Is the table to the left of the chair?",
    "imageId": "n161313",
    "isBalanced": True,
    "groups": {"global": None, "local": "13-table_left"},
    "answer": "no",
    "semanticStr": "select: table (2,)",
    "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
    "types": {"detailed": "relVerify", "semantic": "rel", "structural": "verify"},
    "fullAnswer": "No, the table is to the right.",
}


def read(tmp_path, content, **files):
    path = tmp_path / "g.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_format("gqa").read(Files(path, **files))


def test_gqa_as_published(tmp_path):
    second = RECORD | {"imageId": "2405722", "question": "What is on the table?", "answer": "cup"}
    second["types"] = {"detailed": "relO", "semantic": "rel", "structural": "query"}
    first, other = read(tmp_path, {"201307251": RECORD, "201307252": second}, images="images")
    assert (first.question_id, first.image_id, first.image) == ("201307251", "n161313", "images/n161313.jpg")
    assert (first.question, first.answers) == ("Is the table to the left of the chair?", ("no",))
    assert (first.answer_type, first.question_kind) == ("verify", "rel")
    assert (other.image, other.answers, other.answer_type) == ("images/2405722.jpg", ("cup",), "query")


def test_what_is_not_needed_may_be_left_out(tmp_path):
    (question,) = read(tmp_path, {"1": {"imageId": 7, "question": "What?", "answer": "cup"}})
    assert (question.image_id, question.image, question.answer_type, question.question_kind) == ("7", None, None, None)


def test_the_template_of_image_names_can_be_given(tmp_path):
    record = {"imageId": "7", "question": "What?", "answer": "cup"}
    assert read(tmp_path, {"1": record}, images="i", image_name="{image_id}.png")[0].image == "i/7.png"
    assert read(tmp_path, {"1": record}, images="i", image_name="{image_id:06d}.png")[0].image == "i/000007.png"


def test_an_image_identifier_stays_as_it_is_where_the_template_asks_for_no_number(tmp_path):
    record = {"imageId": "007", "question": "What?", "answer": "cup"}
    assert read(tmp_path, {"1": record}, images="i")[0].image == "i/007.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a JSON object with an object per question"),
        ({}, "holds no questions; expected at least one"),
        ({"1": []}, "question 1: expected an object, got list"),
        ({"": RECORD}, "question number 1: \"question identifier\" is ''; expected an identifier"),
        ({"1": RECORD | {"imageId": None}}, 'question 1: expected an integer or a string in "imageId", got None'),
        ({"1": RECORD | {"question": 3}}, 'question 1: expected a string in "question", got 3'),
        ({"1": RECORD | {"answer": None}}, "question 1: .*use a split whose answers are published"),
        ({"1": RECORD | {"answer": ["no"]}}, r"question 1: expected a string in \"answer\", got \['no'\]"),
        ({"1": RECORD | {"types": "rel"}}, "question 1: expected an object in \"types\", got 'rel'"),
        ({"1": RECORD | {"types": {"semantic": 3}}}, 'question 1: expected a string in "semantic", got 3'),
        ({"1": RECORD | {"imageId": "../x"}}, r"question 1: .*\.\./x"),
        ('{"1": {}, "2": {}, "1": {}}', "has the key '1' twice; expected it once"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, content, message):
    with pytest.raises(QuantrustError, match=rf"g\.json: {message}"):
        read(tmp_path, content, images="images")


def test_questions_are_listed_without_their_answers(tmp_path):
    (tmp_path / "g.json").write_text(json.dumps({"1": {"imageId": "n7"}, "2": {"imageId": "n8"}}))
    asked = load_format("gqa").listed(tmp_path / "g.json")
    assert [(one.question_id, one.image_id) for one in asked] == [("1", "n7"), ("2", "n8")]


def test_the_format_is_told_by_the_annotations(tmp_path):
    (tmp_path / "g.json").write_text(json.dumps({"1": RECORD, "2": RECORD}))
    (tmp_path / "q.json").write_text(json.dumps({"2": {"imageId": "n161313"}, "1": {"imageId": "n161313"}}))
    assert [question.question_id for question in read_official(None, tmp_path / "g.json")] == ["1", "2"]
    assert [question.question_id for question in read_official(tmp_path / "q.json", tmp_path / "g.json")] == ["2", "1"]
