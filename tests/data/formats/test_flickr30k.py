"""Flickr30k: every image and every caption is a query, and one split of the file is read."""

import json
import logging

import polars as pl
import pytest
from PIL import Image

from quantrust.data.format import load_format, recognised
from quantrust.data.official import Files
from quantrust.data.queries import compared_text
from quantrust.data.questions import build_questions_table
from quantrust.errors import QuantrustError
from quantrust.tasks.task import load_task

# In the form of the published dataset_flickr30k.json.
CONTENT = {
    "dataset": "flickr30k",
    "images": [
        {
            "sentids": [0, 1],
            "imgid": 0,
            "filename": "1000092795.jpg",
            "split": "test",
            "sentences": [
                {"tokens": ["two", "dogs"], "raw": "Two dogs.", "imgid": 0, "sentid": 0},
                {"tokens": ["they", "run"], "raw": "They run.", "imgid": 0, "sentid": 1},
            ],
        },
        {
            "sentids": [2],
            "imgid": 1,
            "filename": "10002456.jpg",
            "split": "val",
            "sentences": [{"tokens": ["a", "man"], "raw": "A man.", "imgid": 1, "sentid": 2}],
        },
        {
            "sentids": [3],
            "imgid": 2,
            "filename": "1000268201.jpg",
            "split": "test",
            "sentences": [{"tokens": ["two", "dogs"], "raw": "two dogs", "imgid": 2, "sentid": 3}],
        },
    ],
}


def written(tmp_path, content=CONTENT):
    path = tmp_path / "dataset_flickr30k.json"
    path.write_text(json.dumps(content))
    return path


def read(tmp_path, content=CONTENT, **files):
    return load_format("flickr30k").read(Files(written(tmp_path, content), **files))


def test_images_look_for_captions_and_captions_for_images(tmp_path):
    queries = read(tmp_path, images="i", subset="test")
    assert [(query.question_id, query.question_kind, query.question, query.answers) for query in queries] == [
        ("1000092795.jpg", "image_to_text", "", ("1000092795.jpg#0", "1000092795.jpg#1")),
        ("1000092795.jpg#0", "text_to_image", "Two dogs.", ("1000092795.jpg",)),
        ("1000092795.jpg#1", "text_to_image", "They run.", ("1000092795.jpg",)),
        ("1000268201.jpg", "image_to_text", "", ("1000268201.jpg#0",)),
        ("1000268201.jpg#0", "text_to_image", "two dogs", ("1000268201.jpg",)),
    ]
    assert {query.image for query in queries} == {"i/1000092795.jpg", "i/1000268201.jpg"}
    quality = load_task("retrieval").judge([])
    assert [quality("1000092795.jpg#1", queries[0].answers), quality("1000268201.jpg", queries[1].answers)] == [1, 0]


def test_all_images_are_read_where_no_subset_is_asked_for(tmp_path):
    assert {query.image_id for query in read(tmp_path)} == {"1000092795.jpg", "10002456.jpg", "1000268201.jpg"}
    assert recognised(Files(written(tmp_path))) == "flickr30k"


def test_repeated_captions_are_counted_and_kept(tmp_path, caplog):
    for record in CONTENT["images"]:
        Image.new("RGB", (2, 2)).save(tmp_path / record["filename"])
    spec = {"format": "flickr30k", "annotations": written(tmp_path), "images": tmp_path}
    splits = {split: spec | {"subset": split} for split in ("val", "test")}
    out = tmp_path / "pairs.parquet"
    with caplog.at_level(logging.WARNING):
        build_questions_table("pairs", splits, out, tmp_path / "skipped.parquet")
    note = "pairs: test: 2 of 3 captions are not the only one of their words"
    assert [note in message for message in caplog.messages].count(True) == 1
    assert pl.read_parquet(out).group_by("split").len().sort("split").rows() == [("test", 5), ("val", 2)]


def test_captions_are_compared_in_lower_case_without_marks_and_cut_off():
    assert compared_text(" A man (left), #1: no-one's.") == "a man left , 1 no-one's"
    assert compared_text("a " * 60).split() == ["a"] * 50


def changed(place, **parts):
    images = [dict(record) for record in CONTENT["images"]]
    images[place] |= parts
    return {"images": images}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r'flickr30k\.json: expected a JSON object with the key "images", as in the Flickr30k release'),
        ({"images": []}, "holds no questions"),
        (changed(1, split="train"), r"has no images of the split 'val'; expected one of test, train"),
        (changed(1, split=None), 'image number 2: expected a string in "split"'),
        (changed(1, filename=7), 'image number 2: expected a string in "filename"'),
        (changed(1, filename="../a.jpg"), "leads out of its folder"),
        (changed(1, sentences=[]), r'question 10002456\.jpg: expected captions in "sentences", got none'),
        (changed(1, sentences=[{"raw": 3}]), r'question 10002456\.jpg: sentence 1: expected a string in "raw"'),
        (changed(1, sentences=[{"raw": " ."}]), r"sentence 1 is ' \.'; expected a caption with a word"),
        (
            changed(1, sentences=[{"raw": "A.", "imgid": 7}]),
            "sentence 1 is a caption of the image 7, but stands with the image 1; get the file again",
        ),
        ({"images": [CONTENT["images"][1]] * 2}, r"question 10002456\.jpg: occurs twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, content, message):
    with pytest.raises(QuantrustError, match=message):
        read(tmp_path, content, images="i", subset="val")
