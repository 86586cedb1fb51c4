"""Retrieval among the embedded scenes: captions that no other repeats, and what a reader of all facts reaches."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from quantrust.data.queries import compared_text
from quantrust.data.questions import build_questions_table
from quantrust.embedded import datasets
from quantrust.embedded.datasets import generate, unique_captions, write_dataset
from quantrust.embedded.perfect_reader import perfect_reader, recall_of_facts
from quantrust.embedded.scenes import true_percepts
from quantrust.errors import QuantrustError


def test_the_set_is_written_in_flickr30k_s_layout(tmp_path):
    images = {"val": 2, "test": 3}
    write_dataset(
        "scenes-retrieval", tmp_path / "set", {"images": images, "captions_per_image": 4, "captions": 2, "seed": 5}
    )
    spec = {
        "format": "flickr30k",
        "annotations": tmp_path / "set" / "dataset_scenes.json",
        "images": tmp_path / "set" / "images",
    }
    splits = {split: spec | {"subset": split} for split in images}
    paths = [tmp_path / name for name in ("pairs.parquet", "skipped.parquet")]
    build_questions_table("scenes-retrieval", splits, *paths)
    table = pl.read_parquet(paths[0])
    captions = table.filter(question_kind="text_to_image")
    assert dict(table.group_by("split").agg(pl.col("image").n_unique()).iter_rows()) == images
    assert captions.height <= 5 * 4 and table.height == captions.height + 5
    texts = [compared_text(text) for text in captions["question"]]
    assert len(set(texts)) == len(texts)
    calibration = json.loads((tmp_path / "set" / "captions.json").read_text())
    assert not {record["image"] for record in calibration} & {Path(path).name for path in table["image"]}


def test_captions_that_others_repeat_are_left_out(monkeypatch):
    scenes = list(generate("test", 2, 1, 0))
    texts = {scenes[0].image_id: ["A dog.", "one"], scenes[1].image_id: ["a dog", "two", "two"]}
    monkeypatch.setattr(datasets.AnnotatedScene, "captions", lambda scene: texts[scene.image_id])
    with pytest.raises(
        QuantrustError, match=r"every caption of the image 4000001 is also one of another image of test"
    ):
        unique_captions("test", 2, 0)
    texts[scenes[1].image_id].append("three")
    assert [kept for _, kept in unique_captions("test", 2, 0)] == [["one"], ["three"]]


def test_a_perfect_reader_finds_what_facts_tell_apart():
    first, second, third = generate("test", 3, 1, 0)
    # the third picture is the second once more, so that facts do not tell them apart
    twin = replace(third, scene=second.scene, truth=true_percepts(second.scene))
    texts = ["a green 1 at the top left, a pink circle at the top right.", "a red 3 at the top right."]
    text_to_image, image_to_text = recall_of_facts([(first, texts[:1]), (second, texts[1:]), (twin, texts[1:])])
    assert text_to_image == pytest.approx((1 + 0.5 + 0.5) / 3) and image_to_text == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_the_shipped_set_can_be_solved():
    text_to_image, image_to_text = perfect_reader("test", 200, 0)
    assert text_to_image == pytest.approx(0.968, abs=5e-4) and image_to_text == 1.0
