import json

import pytest

from official_readers import read_official
from quantrust.data.format import load_format
from quantrust.data.official import Files
from quantrust.errors import QuantrustError

RECORD = {
    "question_id": 17,
    "image": "17.jpg",
    "question": "What is on the table?",
    "choices": ["a cup", " a plate ", "a book"],
    "answer": 1,
    "answer_type": "object",
}


def read(tmp_path, content, **files):
    (tmp_path / "m.json").write_text(json.dumps(content))
    return load_format("multiple_choice").read(Files(tmp_path / "m.json", **files))


def test_the_choices_follow_the_question_and_the_reference_is_a_letter(tmp_path):
    first, second = read(tmp_path, [RECORD, RECORD | {"question_id": "x", "answer": 0}], images="images")
    assert first.question == "What is on the table?\nA. a cup\nB. a plate\nC. a book"
    assert (first.question_id, first.image_id, first.image) == ("17", "17.jpg", "images/17.jpg")
    assert (first.answers, first.answer_type, first.question_kind) == (("B",), "object", None)
    assert second.answers == ("A",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_id": None}, 'question number 1: expected an integer or a string in "question_id", got None'),
        ({"image": None}, 'question 17: expected an integer or a string in "image", got None'),
        ({"question": None}, 'question 17: expected a string in "question", got None'),
        ({"choices": None}, 'question 17: expected a list of 2 to 26 strings in "choices", got None'),
        ({"choices": ["a"]}, "question 17: expected a list of 2 to 26 strings"),
        ({"choices": [str(k) for k in range(27)]}, "question 17: expected a list of 2 to 26 strings"),
        ({"choices": ["a", 3]}, 'question 17: expected a string in "choices", got 3'),
        ({"choices": ["a", " "]}, "question 17: .*expected texts that are different and not empty"),
        ({"choices": ["a", "a "]}, "question 17: .*expected texts that are different and not empty"),
        ({"answer": None}, "question 17: .*use a split whose answers are published"),
        ({"answer": 3}, r'question 17: "answer" is 3; expected the place of one of the 3 choices, from 0 on'),
        ({"answer": -1}, 'question 17: "answer" is -1; expected the place'),
        ({"answer": True}, 'question 17: "answer" is True; expected the place'),
        ({"answer": "B"}, "question 17: \"answer\" is 'B'; expected the place"),
        ({"answer_type": 3}, 'question 17: expected a string in "answer_type", got 3'),
        ({"image": "../17.jpg"}, r"question 17: .*\.\./17\.jpg"),
    ],
)
def test_a_malformed_question_is_named(tmp_path, change, message):
    with pytest.raises(QuantrustError, match=rf"m\.json: {message}"):
        read(tmp_path, [RECORD | change], images="images")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a list of objects, got dict"),
        ([], "holds no questions; expected at least one"),
        ([3], "entry 1: expected an object, got int"),
        ([RECORD, RECORD], "question 17: occurs twice"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, content, message):
    with pytest.raises(QuantrustError, match=rf"m\.json: {message}"):
        read(tmp_path, content)


def test_the_format_is_told_by_the_annotations(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([RECORD]))
    assert read_official(None, tmp_path / "m.json") == read(tmp_path, [RECORD])
