"""A study of questions with one right answer each: GQA's format in distribution, multiple choice as a shift."""

import json
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from quantrust.embedded.datasets import write_dataset
from quantrust.tasks.exact_match import exact_match
from study_workspace import ROOT, Workspace

pytestmark = pytest.mark.slow

MODEL, SCHEMES = "adversary", ["bf16", "hqq-w2g64-full"]
COLOURS = ["red", "green", "blue", "yellow"]


def write_questions(scenes: Path, folder: Path) -> None:
    """Write embedded scenes in both formats: the most frequent answer is the one that is right."""
    images = {"dev": 20, "val": 10, "test": 20}
    write_dataset("scenes", scenes, {"images": images, "questions_per_image": 3, "captions": 1, "seed": 5})
    gqa, choices = {}, []
    for split in images:
        questions = json.loads((scenes / f"questions_{split}.json").read_text())["questions"]
        annotations = json.loads((scenes / f"annotations_{split}.json").read_text())["annotations"]
        for question, annotation in zip(questions, annotations, strict=True):
            said = Counter(answer["answer"] for answer in annotation["answers"])
            gqa[question["question_id"]] = {
                "imageId": question["image_id"],
                "question": question["question"],
                "answer": said.most_common(1)[0][0],
                "types": {"structural": annotation["answer_type"], "semantic": annotation["question_kind"]},
            }
        choices += [
            {**question, "choices": COLOURS, "answer": number % len(COLOURS)}
            for number, question in enumerate(questions)
            if split == "test"
        ]
    shutil.copytree(scenes / "images", folder / "images")
    (folder / "gqa.json").write_text(json.dumps(gqa))
    (folder / "choices.json").write_text(json.dumps(choices))


def test_a_study_of_questions_with_one_right_answer_is_whole(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path / "study")
    (workspace.folder / "resources").symlink_to(ROOT / "resources")
    files = workspace.folder / "own"
    write_questions(tmp_path / "scenes", files)
    workspace.configure(
        {
            "study": {
                "models": [MODEL],
                "schemes": SCHEMES,
                "id_dataset": "own-gqa",
                "shifts": ["own-choices"],
                "estimators": ["maxprob", "maxprob+platt", "selector"],
            },
            "datasets": {
                "own-gqa": {
                    "format": "gqa",
                    "annotations": "own/gqa.json",
                    "images": "own/images",
                    "image_name": "{image_id:012d}.png",
                    "split": {"dev": 0.4, "val": 0.2, "test": 0.4, "seed": 0},
                },
                "own-choices": {
                    "format": "multiple_choice",
                    "splits": {"test": {"annotations": "own/choices.json", "images": "own/images"}},
                },
            },
            "features": {"batch_size": 32, "images_per_chunk": 32},
            "selector": {"epochs": 2, "members": 2},
            "evaluation": {"resamples": 20},
            "certification": {"splits": 5},
            "comparison": {"resamples": 20},
        }
    )
    workspace.run()

    references = {key: question["answer"] for key, question in json.loads((files / "gqa.json").read_text()).items()}
    data = workspace.folder / "data"
    for scheme in SCHEMES:
        answers = pl.read_parquet(data / "features" / MODEL / scheme / "own-gqa.parquet")
        assert len(answers) == len(references)
        judged = [exact_match(row["answer"], [references[row["question_id"]]]) for row in answers.iter_rows(named=True)]
        assert answers["quality"].to_list() == judged
        # The model is shipped and has seen such scenes.
        assert scheme != "bf16" or 0.3 < answers["quality"].mean() < 1
        scores = pl.read_parquet(data / "scores" / MODEL / f"{scheme}.parquet")
        assert set(scores["dataset"]) == {"own-gqa", "own-choices"} and set(scores["quality"]) <= {0.0, 1.0}
    table = pl.read_parquet(data / "questions" / "own-choices.parquet")
    assert table["question"].str.ends_with("\nA. red\nB. green\nC. blue\nD. yellow").all()
    accuracy = pl.read_csv(workspace.folder / "reports" / "tables" / "accuracy.csv")
    assert set(accuracy["dataset"]) == {"own-gqa", "own-choices"}
    assert (workspace.folder / "reports" / "index.html").is_file()
    # A finished study plans nothing, and the task of another dataset is no reason to answer anew.
    edited = workspace.folder / "workflow" / "scripts" / "quantrust" / "tasks" / "vqa.py"
    edited.write_text(edited.read_text() + "# edited\n")
    assert workspace.plan() == (Counter(), set())
