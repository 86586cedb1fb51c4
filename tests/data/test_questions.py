import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from quantrust.artifacts.tables import write_table
from quantrust.data.official import Question
from quantrust.data.questions import SCHEMA, SKIPPED_SCHEMA, build_questions_table, questions_table, write_division
from quantrust.errors import QuantrustError


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


def test_a_file_in_two_splits_is_refused():
    other = dataclasses.replace(question("2", "b"), image="images/a.png")
    with pytest.raises(QuantrustError, match=r"image b \(question 2\): its file images/a\.png: .* the splits val and"):
        questions_table("scenes", {"val": [question("1", "a")], "test": [other]})


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def spec(tmp_path):
    picture().save(tmp_path / "x.png")
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


@pytest.fixture
def several(tmp_path):
    """Write several images with two questions each, in the VQAv2 format; returns a function of the images' suffix."""

    def write(suffix, images=3):
        answers = [{"answer": "red", "answer_id": i + 1} for i in range(10)]
        ids = [(f"{image}-{k}", image) for image in range(images) for k in range(2)]
        questions = [{"question_id": q, "image_id": i, "question": "What?", "image": f"{i}.{suffix}"} for q, i in ids]
        annotations = [{"question_id": q, "image_id": i, "answers": answers} for q, i in ids]
        for image in range(images):
            picture().save(tmp_path / f"{image}.{suffix}")
        (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
        (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations}))
        paths = {"questions": tmp_path / "q.json", "annotations": tmp_path / "a.json", "images": tmp_path}
        return {"format": "vqav2", **paths}

    return write


def test_the_written_table_reads_back_and_is_the_same_bytes_twice(spec, tmp_path):
    for name in ("one", "two"):
        build_questions_table("scenes", {"test": spec}, tmp_path / f"{name}.parquet", tmp_path / f"{name}-left.parquet")
    assert (tmp_path / "one-left.parquet").read_bytes() == (tmp_path / "two-left.parquet").read_bytes()
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    table = pl.read_parquet(tmp_path / "one.parquet")
    assert table.schema == SCHEMA
    assert table.row(0, named=True)["image"] == f"{tmp_path}/x.png"


def test_a_vizwiz_split_needs_no_questions_file(spec, tmp_path):
    record = {"image": "x.png", "question": "What?", "answers": [{"answer": "red"}] * 10, "answer_type": "other"}
    (tmp_path / "v.json").write_text(json.dumps([record]))
    splits = {"test": {"format": "vizwiz", "annotations": tmp_path / "v.json", "images": tmp_path}}
    build_questions_table("shift", splits, tmp_path / "shift.parquet", tmp_path / "skipped.parquet")
    assert pl.read_parquet(tmp_path / "shift.parquet")["question_id"].to_list() == ["x.png"]


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_images_whose_files_are_links_to_one_file_count_as_different_and_are_noted(several, tmp_path, caplog, link):
    spec = several("png", images=4)
    for name in ("1.png", "3.png"):
        (tmp_path / name).unlink()
        getattr(tmp_path / name, link)(tmp_path / "0.png")
    build_questions_table("scenes", {"test": spec}, tmp_path / "out.parquet", tmp_path / "skipped.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet")["image_id"].n_unique() == 4
    (note,) = [record.getMessage() for record in caplog.records if "links" in record.getMessage()]
    assert note == (
        f"scenes: 2 image files are links to the file of another image, such as {tmp_path}/1.png to that of "
        f"{tmp_path}/0.png; they count as different images, which may stand in different splits"
    )


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


FAULTS = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "truncated": (truncated, "truncated"),
    "empty": (lambda path: path.write_bytes(b""), "not an image"),
    "a page": (lambda path: path.write_bytes(b"<html>not found</html>"), "not an image"),
}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_image_is_listed_with_its_questions_and_leaves_no_table(several, tmp_path, fault, suffix):
    spec = several(suffix)
    damage, reason = FAULTS[fault]
    damage(tmp_path / f"1.{suffix}")
    message = rf"^shift: 1 image cannot be used: \S+/1\.{suffix} \(question 1-0, 1-1\): .*{reason}.*on_bad_image: skip$"
    with pytest.raises(QuantrustError, match=message) as caught:
        build_questions_table("shift", {"test": spec}, tmp_path / "shift.parquet", tmp_path / "skipped.parquet")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*parquet*"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_image_is_skipped_with_its_questions_where_that_is_asked_for(several, tmp_path, fault):
    spec = several("png")
    damage, reason = FAULTS[fault]
    out, left_out = tmp_path / "shift.parquet", tmp_path / "skipped.parquet"
    build_questions_table("shift", {"test": spec}, out, left_out, on_bad_image="skip")
    whole = pl.read_parquet(out)
    damage(tmp_path / "1.png")
    build_questions_table("shift", {"test": spec}, out, left_out, on_bad_image="skip")
    assert pl.read_parquet(out).equals(whole.filter(pl.col("image_id") != "1"))
    skipped = pl.read_parquet(left_out)
    assert skipped.schema == SKIPPED_SCHEMA
    assert skipped["question_id"].to_list() == ["1-0", "1-1"]
    assert reason in skipped["reason"][0]
    assert skipped.row(0)[1:5] == ("shift", "test", "1", f"{tmp_path}/1.png")


def test_an_image_that_is_too_thin_for_the_models_is_bad_as_others_are(several, tmp_path):
    spec = several("png")
    Image.new("RGB", (1, 300)).save(tmp_path / "1.png")
    out, left_out = tmp_path / "shift.parquet", tmp_path / "skipped.parquet"
    build_questions_table("shift", {"test": spec}, out, left_out)
    whole = pl.read_parquet(out)
    assert len(whole) == 6
    out.unlink()
    with pytest.raises(
        QuantrustError, match=r"1 image cannot be used: \S+/1\.png \(question 1-0, 1-1\): too thin: 1 x 300"
    ):
        build_questions_table("shift", {"test": spec}, out, left_out, max_aspect_ratio=200)
    assert not out.exists()
    build_questions_table("shift", {"test": spec}, out, left_out, on_bad_image="skip", max_aspect_ratio=200)
    assert pl.read_parquet(out).equals(whole.filter(pl.col("image_id") != "1"))
    assert pl.read_parquet(left_out)["reason"].str.starts_with("too thin: 1 x 300 pixels").to_list() == [True, True]


def test_every_bad_image_is_in_the_log_and_ten_in_the_message(several, tmp_path, caplog):
    spec = several("png", images=12)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(QuantrustError, match=r"12 images cannot be used: .*; and 2 more, listed in the log"):
        build_questions_table("shift", {"test": spec}, tmp_path / "shift.parquet", tmp_path / "skipped.parquet")
    assert sum("no such file" in record.getMessage() for record in caplog.records) == 12


def test_a_split_of_which_nothing_is_left_is_named(several, tmp_path):
    spec = several("png")
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(QuantrustError, match=r"shift: split test: none of its images can be used, .*0\.png"):
        build_questions_table(
            "shift", {"test": spec}, tmp_path / "s.parquet", tmp_path / "skipped.parquet", on_bad_image="skip"
        )
    assert not list(tmp_path.glob("*parquet*"))


def test_an_unknown_format_is_named(spec, tmp_path):
    with pytest.raises(QuantrustError, match="scenes: unknown format 'okvqa'; expected one of coco_captions, "):
        build_questions_table(
            "scenes", {"test": {**spec, "format": "okvqa"}}, tmp_path / "scenes.parquet", tmp_path / "skipped.parquet"
        )


def test_a_dataset_in_one_set_of_files_is_divided_by_image(several, tmp_path):
    spec = several("png", images=10)
    division = {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 3}
    write_division("shift", spec, division, tmp_path / "splits.parquet")
    images = pl.read_parquet(tmp_path / "splits.parquet")
    assert sorted(images["image_id"]) == sorted(str(k) for k in range(10))
    out = tmp_path / "shift.parquet"
    build_questions_table(
        "shift", {"all": spec}, out, tmp_path / "skipped.parquet", division_path=tmp_path / "splits.parquet"
    )
    table = pl.read_parquet(out)
    assert table.select("image_id", "split").unique().sort("image_id").equals(images.sort("image_id"))
    assert table["split"].to_list() == ["dev"] * 8 + ["val"] * 2 + ["test"] * 10
    assert table.filter(split="test")["question_id"].to_list() == [
        f"{image}-{k}" for image in sorted(images.filter(split="test")["image_id"]) for k in range(2)
    ]


def test_skipping_an_image_leaves_the_others_in_their_splits(several, tmp_path):
    spec = several("png", images=10)
    write_division("shift", spec, {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 3}, tmp_path / "before.parquet")
    (tmp_path / "4.png").unlink()
    write_division("shift", spec, {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 3}, tmp_path / "after.parquet")
    assert (tmp_path / "before.parquet").read_bytes() == (tmp_path / "after.parquet").read_bytes()


def test_a_published_split_file_is_taken_instead(several, tmp_path):
    spec = several("png", images=3)
    (tmp_path / "published.json").write_text(json.dumps({"dev": [2], "val": ["0"], "test": [1, 99]}))
    division = {"file": tmp_path / "published.json", "splits": ("dev", "val", "test")}
    write_division("shift", spec, division, tmp_path / "splits.parquet")
    assert pl.read_parquet(tmp_path / "splits.parquet").rows() == [("2", "dev"), ("0", "val"), ("1", "test")]


def test_too_few_images_for_a_split_are_named(several, tmp_path):
    division = {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 0}
    with pytest.raises(QuantrustError, match=r"shift: 2 images leave none for the split val, whose share is 0\.1"):
        write_division("shift", several("png", images=2), division, tmp_path / "splits.parquet")


def test_an_image_that_the_table_of_splits_lacks_is_named(several, tmp_path):
    spec = several("png", images=3)
    table = pl.DataFrame({"image_id": ["0", "1"], "split": ["dev", "test"]})
    write_table(table, tmp_path / "splits.parquet")
    with pytest.raises(QuantrustError, match=r"shift: image 2 \(question 2-0\): is in no split"):
        build_questions_table(
            "shift",
            {"all": spec},
            tmp_path / "shift.parquet",
            tmp_path / "skipped.parquet",
            division_path=tmp_path / "splits.parquet",
        )


def ask(spec, text):
    """Ask another question of a specification's only image."""
    content = json.loads(spec["questions"].read_text())
    content["questions"][0]["question"] = text
    spec["questions"].write_text(json.dumps(content))


def test_a_question_without_text_is_refused_with_file_and_question(spec, tmp_path):
    ask(spec, "")
    outputs = tmp_path / "out.parquet", tmp_path / "skipped.parquet"
    with pytest.raises(QuantrustError, match=r"q\.json: question x-0: has no text \(of 1 like it\); take it out"):
        build_questions_table("scenes", {"test": spec}, *outputs)
    shares = {"dev": 0.0, "val": 0.0, "test": 1.0, "seed": 0}
    with pytest.raises(QuantrustError, match=r"q\.json: question x-0: has no text"):
        write_division("scenes", spec, shares, outputs[0])
    answers = [{"answer": "red"}] * 10
    (tmp_path / "v.json").write_text(json.dumps([{"image": "x.png", "question": "", "answers": answers}]))
    vizwiz = {"format": "vizwiz", "annotations": tmp_path / "v.json", "images": tmp_path}
    with pytest.raises(QuantrustError, match=r"v\.json: question x\.png: has no text"):
        build_questions_table("scenes", {"test": vizwiz}, *outputs)
    assert not any(path.exists() for path in outputs)


@pytest.mark.parametrize("text", ["\u200b", "\n", " ", "\u0301", "?"])
def test_a_question_of_any_text_is_asked(spec, tmp_path, text):
    ask(spec, text)
    build_questions_table("scenes", {"test": spec}, tmp_path / "out.parquet", tmp_path / "skipped.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet")["question"].to_list() == [text]
