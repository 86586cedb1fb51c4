"""Datasets of the hub as rows: written by `datasets` in the published layouts, read back by the official reader."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.vqa.official import read_vizwiz, read_vqav2
from quantrust.vqa.rows import write_official

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
    with pytest.raises(QuantrustError, match=r"data-00000\.parquet: has no column image_id, only question_type"):
        write_official(parquet([row], features), "vqav2", tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"rows")
    with pytest.raises(QuantrustError, match=r"x\.parquet: can not be read as rows"):
        write_official([tmp_path / "x.parquet"], "vqav2", tmp_path)
