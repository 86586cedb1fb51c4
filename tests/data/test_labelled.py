"""Items of a user's own table."""

import json
from pathlib import Path

import pytest
from PIL import Image

from quantrust.data.labelled import read_labelled
from quantrust.errors import QuantrustError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("red", "red"), ("again", "red"), ("blue", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder: Path, *rows: dict, name: str = "items.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_become_items_and_images_of_the_same_bytes_are_one(folder) -> None:
    path = write(
        folder,
        {"image": "red.png", "question": "what?", "answers": ["red", "Red"], "id": 7},
        {"image": "again.png", "question": "what now?", "answers": "red", "id": "b"},
        {"image": "blue.png", "question": "what?", "answers": ["blue"], "id": "c"},
    )
    first, second, third = read_labelled(path)
    assert (first.item_id, first.image, first.answers) == ("7", folder / "red.png", ("red", "Red"))
    assert second.answers == ("red",)
    assert first.group == second.group != third.group


def test_a_row_without_a_question_has_that_of_the_bundle(folder) -> None:
    row = {"image": "red.png", "answer": "red"}
    path = write(folder, row, row | {"question": ""}, row | {"question": "what?"})
    for asked in ("describe it.", ""):
        assert [item.question for item in read_labelled(path, asked=asked)] == [asked, asked, "what?"]


def test_an_image_id_tells_images_apart(folder) -> None:
    path = write(
        folder,
        {"image": "red.png", "question": "what?", "answer": "red", "image_id": 1},
        {"image": "blue.png", "question": "what?", "answer": "blue", "image_id": 1},
    )
    items = read_labelled(path)
    assert [item.group for item in items] == ["1", "1"]
    assert [item.item_id for item in items] == ["line 1", "line 2"]


def test_a_list_of_answers_stands_in_csv_as_json(folder) -> None:
    path = folder / "items.csv"
    path.write_text('image,question,answers\nred.png,what?,"[""red"", ""[dark] red""]"\nblue.png,what?,blue\n')
    assert [item.answers for item in read_labelled(path)] == [("red", "[dark] red"), ("blue",)]


def test_answers_may_be_missing_where_they_are_not_needed(folder) -> None:
    row = {"image": "red.png", "question": "what?"}
    assert read_labelled(write(folder, row), with_answers=False)[0].answers == ()
    path = write(folder, row | {"answers": ["red"]}, row)
    assert [item.answers for item in read_labelled(path, with_answers=False)] == [(), ()]


GOOD = {"image": "red.png", "question": "what?", "answers": ["red"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": "red.png", "answers": ["red"]}], "has no column question; expected the columns image, question"),
        ([{"image": "red.png", "question": "what?"}], "has no column answers"),
        ([GOOD, {**GOOD, "question": " "}], "line 2: question is ' '; expected a text"),
        ([GOOD, {**GOOD, "answers": []}], r"line 2: answers is \[\]; expected a text or a list of texts"),
        ([GOOD, {**GOOD, "answers": [1]}], r"line 2: answers is \[1\]"),
        ([GOOD, {"image": "red.png", "question": "what?"}], "line 2: answers is missing"),
        ([{**GOOD, "id": 1}, {**GOOD, "id": "1"}], "line 2: has the id '1' again"),
        ([{**GOOD, "id": True}], "line 1: has the id True; expected a text or a whole number"),
        ([GOOD, {**GOOD, "image": "none.png"}], "line 2: image .*none.png: no such file"),
        ([{**GOOD, "image": 3}], "line 1: image is 3; expected a text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(folder, rows, message) -> None:
    with pytest.raises(QuantrustError, match=message):
        read_labelled(write(folder, *rows))


def test_a_broken_image_and_a_folder_are_named(folder) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(QuantrustError, match=r"line 1: image .*broken\.png: not an image"):
        read_labelled(write(folder, {**GOOD, "image": "broken.png"}))
    with pytest.raises(QuantrustError, match="is a folder; expected a table"):
        read_labelled(_folder_called(folder, "items.jsonl"))


def _folder_called(folder: Path, name: str) -> Path:
    path = folder / "sub" / name
    path.mkdir(parents=True)
    return path
