"""Questions are counted from settings, from official files, or from what the config says, and never guessed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quantrust.data.questions import build_questions_table, write_division
from quantrust.embedded.datasets import write_dataset
from quantrust.errors import QuantrustError
from quantrust.planning.questions import Questions, count_questions

DIVIDED = {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 3}


def vqav2(folder: Path, images: int) -> dict[str, Any]:
    """Write questions about images, one about the first, two about the second and so on, and annotations."""
    asked = [(image, 100 * image + number) for image in range(1, images + 1) for number in range(image)]
    questions = [{"image_id": image, "question": "what?", "question_id": question} for image, question in asked]
    answers = [{"answer": "yes", "answer_confidence": "yes", "answer_id": place} for place in range(1, 11)]
    annotations = [
        {"image_id": image, "question_id": question, "answer_type": "yes/no", "answers": answers}
        for image, question in asked
    ]
    (folder / "questions.json").write_text(json.dumps({"questions": questions}))
    (folder / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    return {
        "format": "vqav2",
        "questions": str(folder / "questions.json"),
        "annotations": str(folder / "annotations.json"),
        "images": str(folder),
    }


def test_embedded_datasets_have_the_questions_that_their_writers_write(tmp_path: Path) -> None:
    settings = {"images": {"dev": 3, "val": 2, "test": 4}, "questions_per_image": 6, "captions": 2, "seed": 0}
    write_dataset("scenes", tmp_path / "scenes", settings)
    splits = {
        split: {
            "format": "vqav2",
            "questions": str(tmp_path / "scenes" / f"questions_{split}.json"),
            "annotations": str(tmp_path / "scenes" / f"annotations_{split}.json"),
            "images": str(tmp_path / "scenes" / "images"),
        }
        for split in ("dev", "val", "test")
    }
    build_questions_table("scenes", splits, tmp_path / "q.parquet", tmp_path / "skipped.parquet", division_path=None)
    counted = count_questions({"format": "embedded", **settings}, is_id_dataset=True)
    assert counted.by_split == dict(Counter(pl.read_parquet(tmp_path / "q.parquet")["split"]))
    assert counted == Questions(54, {"dev": 18, "val": 12, "test": 24}, exact=True, source="config")
    assert counted.of("dev", "val") == 30
    language = {"format": "embedded", "images": 9, "questions_per_image": 4, "questions": 21, "adversary": "a"}
    assert count_questions(language, is_id_dataset=False).by_split == {"test": 21}
    assert count_questions({"format": "embedded", "images": 9, "seed": 0}, is_id_dataset=False).by_split == {"test": 9}


def test_divided_files_are_counted_by_the_division_that_the_study_makes(tmp_path: Path) -> None:
    dataset = vqav2(tmp_path, images=20)
    write_division("own", dataset, DIVIDED, tmp_path / "division.parquet")
    split_of = dict(pl.read_parquet(tmp_path / "division.parquet").iter_rows())
    expected = Counter(split_of[str(image)] for image in range(1, 21) for _ in range(image))
    counted = count_questions({**dataset, "split": DIVIDED}, is_id_dataset=True)
    assert counted == Questions(210, dict(expected), exact=True, source="files")
    # the size that the config gives does not matter once the files are there
    assert count_questions({**dataset, "split": DIVIDED, "size": 5}, is_id_dataset=True) == counted
    split_file = tmp_path / "split.json"
    split_file.write_text(json.dumps({"dev": [1], "val": [2], "test": list(range(3, 21))}))
    by_file = count_questions({**dataset, "split_file": str(split_file)}, is_id_dataset=True)
    assert by_file.by_split == {"dev": 1, "val": 2, "test": 207}


def test_files_of_splits_are_counted_each(tmp_path: Path) -> None:
    annotations = [{"image": f"{number}.jpg", "question": "what?", "answers": []} for number in range(7)]
    (tmp_path / "val.json").write_text(json.dumps(annotations))
    shift = {"format": "vizwiz", "splits": {"test": {"annotations": str(tmp_path / "val.json"), "images": "x"}}}
    assert count_questions(shift, is_id_dataset=False) == Questions(7, {"test": 7}, exact=True, source="files")


def test_without_files_the_size_counts_and_shares_of_it_are_not_exact() -> None:
    missing = {"format": "vqav2", "questions": "no/q.json", "annotations": "no/a.json", "images": "no"}
    assert count_questions({**missing, "split": DIVIDED}, is_id_dataset=True) is None
    sized = count_questions({**missing, "split": DIVIDED, "size": 1000}, is_id_dataset=True)
    assert sized == Questions(1000, {"dev": 400, "val": 100, "test": 500}, exact=False, source="size")
    one = {"format": "vqav2", "splits": {"test": missing}, "size": 10}
    assert count_questions(one, is_id_dataset=False) == Questions(10, {"test": 10}, exact=True, source="size")
    unknown = count_questions({**missing, "split_file": "no/split.csv", "size": 10}, is_id_dataset=True)
    assert (unknown.total, unknown.of("dev")) == (10, None)


def test_files_that_cannot_be_counted_are_named(tmp_path: Path) -> None:
    dataset = vqav2(tmp_path, images=2)
    for text, message in [
        (
            '{"questions": [{"question_id": 1}]}',
            'question 1: expected an integer or a string in "image_id", got',
        ),
        ('{"questions": [{"question_id": 1, "image_id": [7]}]}', r'question 1: .* in "image_id", got \[7\]'),
        ('{"questions": [{"image_id": 7}]}', 'question number 1: .* in "question_id", got None'),
        ('{"questions": []}', "holds no questions; expected at least one"),
        ("[]", 'expected a JSON object with the key "questions"'),
    ]:
        (tmp_path / "questions.json").write_text(text)
        with pytest.raises(QuantrustError, match=rf"questions\.json: {message}"):
            count_questions({**dataset, "split": DIVIDED}, is_id_dataset=True)
