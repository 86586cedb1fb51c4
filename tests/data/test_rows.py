"""Datasets of the hub as rows: written by `datasets` in the published layouts, read back by the official reader."""

import io
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from official_readers import read_vizwiz, read_vqav2
from quantrust.data.rows import write_official
from quantrust.errors import QuantrustError

ANSWER = {"answer": datasets.Value("string"), "answer_confidence": datasets.Value("string")}
VQAV2 = datasets.Features(
    {
        "question_type": datasets.Value("string"),
        "multiple_choice_answer": datasets.Value("string"),
        "answers": [ANSWER | {"answer_id": datasets.Value("int64")}],
        "image_id": datasets.Value("int64"),
        "answer_type": datasets.Value("string"),
        "question_id": datasets.Value("int64"),
        "question": datasets.Value("string"),
        "image": datasets.Image(),
    }
)
VIZWIZ = datasets.Features(
    {
        "question_id": datasets.Value("string"),
        "image": datasets.Image(),
        "question": datasets.Value("string"),
        "answers": datasets.List(datasets.Value("string")),
        "category": datasets.Value("string"),
    }
)


def picture(seed):
    """A JPEG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def vqav2_row(question_id, image_id, image):
    return {
        "question_type": "what color",
        "multiple_choice_answer": "red",
        "answers": [{"answer": "red", "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)],
        "image_id": image_id,
        "answer_type": "other",
        "question_id": question_id,
        "question": "What color is it?",
        "image": {"bytes": image, "path": None},
    }


@pytest.fixture
def parquet(tmp_path):
    """Return a function that writes rows as Parquet files, two rows each, and names the files."""

    def write(rows, features):
        files = []
        for start in range(0, len(rows), 2):
            files.append(tmp_path / f"data-{start:05d}.parquet")
            datasets.Dataset.from_list(rows[start : start + 2], features=features).to_parquet(files[-1])
        return files

    return write


def test_rows_of_vqav2_become_official_files(parquet, tmp_path):
    rows = [vqav2_row(10 * image + k, image, picture(image)) for image in (7, 8) for k in range(2)]
    write_official(parquet(rows, VQAV2), "vqav2", tmp_path)
    questions = read_vqav2(tmp_path / "questions.json", tmp_path / "annotations.json", tmp_path / "images")
    assert [question.question_id for question in questions] == ["70", "71", "80", "81"]
    assert {question.image_id for question in questions} == {"7", "8"}
    assert questions[0].image == f"{tmp_path}/images/COCO_val2014_000000000007.jpg"
    assert (questions[0].question, questions[0].answer_type) == ("What color is it?", "other")
    assert questions[0].answers == ("red",) * 10
    # The bytes as published, not a second compression.
    assert (tmp_path / "images" / "COCO_val2014_000000000007.jpg").read_bytes() == picture(7)
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_rows_of_vizwiz_become_an_official_list(parquet, tmp_path):
    names = ["VizWiz_val_00000000.jpg", "VizWiz_val_00000001"]
    rows = [
        {
            "question_id": name,
            "image": {"bytes": picture(k), "path": None},
            "question": "What is this?",
            "answers": ["unanswerable"] * 9 + ["a can"],
            "category": "unanswerable",
        }
        for k, name in enumerate(names)
    ]
    write_official(parquet(rows, VIZWIZ), "vizwiz", tmp_path)
    questions = read_vizwiz(tmp_path / "annotations.json", tmp_path / "images")
    assert [question.question_id for question in questions] == [names[0], f"{names[1]}.jpg"]
    assert questions[0].answers[-1] == "a can"
    assert questions[0].answer_type == "unanswerable"
    assert (tmp_path / "images" / names[0]).read_bytes() == picture(0)
    assert not (tmp_path / "questions.json").exists()


def test_images_that_are_there_are_not_written_again(parquet, tmp_path):
    files = parquet([vqav2_row(1, 7, picture(7)), vqav2_row(2, 8, picture(8))], VQAV2)
    write_official(files, "vqav2", tmp_path)
    kept, cut = (tmp_path / "images" / f"COCO_val2014_{k:012d}.jpg" for k in (7, 8))
    before = kept.stat().st_mtime_ns
    cut.write_bytes(b"half")
    write_official(files, "vqav2", tmp_path)
    assert kept.stat().st_mtime_ns == before
    assert cut.read_bytes() == picture(8)


def test_a_row_without_an_image_is_named(parquet, tmp_path):
    row = vqav2_row(5, 7, picture(7)) | {"image": None}
    with pytest.raises(QuantrustError, match=r"data-00000\.parquet: question 5: has no image"):
        write_official(parquet([row], VQAV2), "vqav2", tmp_path)


def test_a_missing_column_is_named(parquet, tmp_path):
    features = datasets.Features({key: value for key, value in VQAV2.items() if key != "image_id"})
    row = {key: value for key, value in vqav2_row(5, 7, picture(7)).items() if key != "image_id"}
    with pytest.raises(QuantrustError, match=r"data-00000\.parquet: has no column image_id, only \['question_type'"):
        write_official(parquet([row], features), "vqav2", tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"rows")
    with pytest.raises(QuantrustError, match=r"x\.parquet: cannot be read as rows"):
        write_official([tmp_path / "x.parquet"], "vqav2", tmp_path)


def write_rows(path, **columns):
    """Write one row of VQAv2 with other columns, or without those that are None."""
    row = {
        "question_id": [1],
        "image_id": [7],
        "question": ["What?"],
        "answers": [["red"] * 10],
        "image": [{"bytes": picture(7), "path": None}],
    } | columns
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(row), path)
    return path


TEXTS = pa.list_(pa.string())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": pa.array([None], TEXTS)}, "question 1: expected reference answers in .*, got none"),
        ({"answers": pa.nulls(1)}, "question 1: expected reference answers in .*, got none"),
        ({"answers": pa.array([[]], TEXTS)}, "question 1: expected reference answers in .*, got none"),
        ({"answers": pa.array([[None] * 10], TEXTS)}, "question 1: expected reference answers that are objects"),
        ({"question_id": pa.nulls(1, pa.int64())}, 'row 1: expected an integer or a string in "question_id", got None'),
        ({"image_id": pa.nulls(1, pa.string())}, 'question 1: expected an integer or a string in "image_id", got None'),
        ({"image_id": [7.5]}, 'question 1: expected an integer or a string in "image_id", got 7.5'),
        ({"question": pa.nulls(1, pa.string())}, 'question 1: expected a string in "question", got None'),
        ({"question": pa.array([b"\xff"]).view(pa.string())}, "cannot be read as rows .*invalid start byte"),
        ({"image": [3]}, "question 1: has no image; expected the bytes of one"),
        ({"question_id": pa.array([], pa.int64())}, "no rows; expected at least one question"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_lacks_something_is_named_and_nothing_is_written(change, message, tmp_path):
    if len(next(iter(change.values()))) == 0:
        path = write_rows(tmp_path / "one.parquet")
        pq.write_table(pq.read_table(path)[:0], tmp_path / "r.parquet")
    else:
        write_rows(tmp_path / "r.parquet", **change)
    with pytest.raises(QuantrustError, match=rf"r\.parquet: {message}"):
        write_official([tmp_path / "r.parquet"], "vqav2", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize("name", ["r[1].parquet", "r*.parquet", "{v1}/r?.parquet"])
def test_a_path_is_no_pattern(name, tmp_path):
    write_rows(tmp_path / "r1.parquet", question=["another?"])
    write_official([write_rows(tmp_path / name)], "vqav2", tmp_path / "out")
    questions = read_vqav2(tmp_path / "out/questions.json", tmp_path / "out/annotations.json", tmp_path / "out/images")
    assert [question.question for question in questions] == ["What?"]


def test_the_file_of_a_row_is_named_among_several(tmp_path):
    files = [write_rows(tmp_path / "a.parquet"), write_rows(tmp_path / "b.parquet", question_id=[2], image=[None])]
    with pytest.raises(QuantrustError, match=r"b\.parquet: question 2: has no image"):
        write_official(files, "vqav2", tmp_path)
    files[1] = write_rows(tmp_path / "b.parquet")
    with pytest.raises(QuantrustError, match=r"b\.parquet: question 1: occurs twice"):
        write_official(files, "vqav2", tmp_path)


def test_images_of_one_name_in_two_folders_stay_two(tmp_path):
    files = [
        write_rows(tmp_path / f"{k}.parquet", question_id=[k], image_id=[name], image=[{"bytes": picture(k)}])
        for k, name in enumerate(["VG_1/7", "VG_2/7"])
    ]
    write_official(files, "vqav2", tmp_path)
    questions = read_vqav2(tmp_path / "questions.json", tmp_path / "annotations.json", tmp_path / "images")
    assert [Path(question.image).read_bytes() for question in questions] == [picture(0), picture(1)]
    assert [question.image_id for question in questions] == ["VG_1/7", "VG_2/7"]


@pytest.mark.parametrize(("form", "names"), [("vqav2", ["a/7", "a//7"]), ("vizwiz", ["7", "7.jpg"])])
def test_two_images_that_would_have_one_file_are_refused(form, names, tmp_path):
    files = [write_rows(tmp_path / f"{k}.parquet", question_id=[name], image_id=[name]) for k, name in enumerate(names)]
    with pytest.raises(QuantrustError, match=rf"question {names[1]}: its image {names[1]} would have the file of the"):
        write_official(files, form, tmp_path)


def test_one_image_that_is_two_pictures_is_refused(tmp_path):
    files = [
        write_rows(tmp_path / f"{k}.parquet", question_id=[k], image=[{"bytes": picture(k), "path": None}])
        for k in range(2)
    ]
    with pytest.raises(QuantrustError, match=r"1\.parquet: question 1: its image 7 is another picture than there"):
        write_official(files, "vqav2", tmp_path)


def test_another_picture_of_the_same_size_takes_the_place_of_one_that_is_there(tmp_path):
    write_official([write_rows(tmp_path / "a.parquet", image=[b"first"])], "vqav2", tmp_path)
    write_official([write_rows(tmp_path / "a.parquet", image=[b"other"])], "vqav2", tmp_path)
    assert (tmp_path / "images" / "COCO_val2014_000000000007.jpg").read_bytes() == b"other"


def test_what_json_has_no_form_for_is_left_out_and_said(tmp_path, caplog):
    moment = pa.array([0], pa.timestamp("s"))
    path = write_rows(tmp_path / "a.parquet", when=moment, raw=[b"\xff"], level=[float("nan")], kept=[[1.5, None]])
    write_official([path], "vqav2", tmp_path)
    assert f"{path}: leaving out when, raw, of types that JSON has not" in caplog.text
    (annotation,) = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    assert annotation["kept"] == [1.5, None] and annotation["level"] is None
    assert not {"when", "raw"} & annotation.keys()
