"""A small study of captions, from the workflow to tables, figures, the page and a bundle that writes captions."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from end_to_end.conftest import once
from quantrust.cli import main
from quantrust.data.formats.scene_captions import INSTRUCTION
from study_workspace import ROOT, Workspace

pytestmark = pytest.mark.slow

MODEL, DATASET, SCHEMES = "qwen2-vl-tiny", "scenes-captions", ["bf16", "hqq-w3g64-full"]
TEST_PICTURES = 30
BUNDLE = f"data/bundles/{MODEL}/{SCHEMES[1]}"


@pytest.fixture(scope="module")
def captions(studies: Path) -> Workspace:
    """A study of the shipped model's captions, without training, with a bundle; not to be changed."""

    def make(folder: Path) -> None:
        workspace = Workspace.make(folder)
        (folder / "resources").symlink_to(ROOT / "resources")
        workspace.configure(
            {
                "study": {
                    "models": [MODEL],
                    "schemes": SCHEMES,
                    "id_dataset": DATASET,
                    "shifts": [],
                    "estimators": ["maxprob", "length-normalised"],
                },
                "datasets": {DATASET: {"images": {"dev": 1, "val": 24, "test": TEST_PICTURES}, "captions": 1}},
                "features": {"batch_size": 32, "images_per_chunk": 32},
                "evaluation": {"resamples": 20},
                "certification": {"splits": 5},
                "comparison": {"resamples": 20},
            }
        )
        workspace.run()
        workspace.run(BUNDLE)

    return once(studies / "captions", make)


def table(study: Workspace, name: str) -> pl.DataFrame:
    return pl.read_csv(study.folder / "reports" / "tables" / f"{name}.csv", infer_schema_length=None)


def test_cider_d_is_in_the_tables_with_its_interval(captions: Workspace) -> None:
    metrics = pl.read_parquet(captions.folder / "data" / "metrics" / MODEL / f"{SCHEMES[0]}.parquet")
    (row,) = metrics.filter(metric="cider_d", estimator="maxprob").iter_rows(named=True)
    assert row["n"] == TEST_PICTURES
    # The model is shipped and has learned to describe such pictures; the metric's scale is from 0 to 10.
    assert 0.2 < row["low"] < row["value"] < row["high"] < 10
    (shown,) = table(captions, "accuracy").filter(scheme=SCHEMES[0]).iter_rows(named=True)
    assert [shown["cider_d"], shown["cider_d_low"], shown["cider_d_high"]] == pytest.approx(
        [row["value"], row["low"], row["high"]]
    )
    compared = table(captions, "comparisons").filter(pl.col("metric") == "cider_d")
    assert compared["p_value"].is_between(0, 1).all() and compared.height > 0


def test_nothing_is_drawn_of_groups_that_captions_lack(captions: Workspace) -> None:
    names = {path.stem for path in (captions.folder / "reports").rglob("*") if path.suffix in (".pdf", ".csv")}
    assert {"risk_coverage", "degradation", "efficiency", "reliability_diagrams", "drift_from_bf16"} <= names
    assert not names & {"answer_types", "question_kinds", "fairness", "fairness_by_group"}


def test_the_page_speaks_of_pictures_and_not_of_questions(captions: Workspace) -> None:
    text = (captions.folder / "reports" / "index.html").read_text(encoding="utf-8")
    body = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    # Links and identifiers keep their names; the config is shown as it is.
    words = re.sub(r"<pre\b.*?</pre>|<[^>]+>", " ", body, flags=re.DOTALL).lower()
    assert f"{TEST_PICTURES} test pictures of {DATASET}" in words
    assert "f1 of facts" in words and "cider-d" in words
    assert [words[found.start() - 60 : found.end() + 60] for found in re.finditer("question", words)] == []


def test_a_bundle_writes_captions_or_abstains(
    captions: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bundle, features = captions.folder / BUNDLE, captions.folder / "data" / "features" / MODEL / SCHEMES[1]
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-to-text" in card and f"asked `{INSTRUCTION}`" in card and "CIDEr-D" in card
    assert "question" not in card and "accuracy" not in card

    pictures = captions.folder / "data" / "embedded" / DATASET / "images"
    official, out = captions.folder / "data" / "embedded" / DATASET / "captions_test.json", tmp_path / "captions.jsonl"
    given = ["--items", str(official), "--images", str(pictures), "--out", str(out)]
    assert main(["answer", str(bundle), *given]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    measured = pl.read_parquet(features / f"{DATASET}.parquet", columns=["question_id", "split", "answer"])
    assert {line["id"]: line["answer"] for line in lines} == dict(
        measured.filter(split="test").select("question_id", "answer").iter_rows()
    )
    assert all(line["answered"] == (line["confidence"] >= line["threshold"]) for line in lines)

    first = lines[0]
    capsys.readouterr()
    assert main(["answer", str(bundle), "--image", first["image"]]) == (0 if first["answered"] else 3)
    printed = capsys.readouterr().out
    assert printed.startswith(first["answer"] if first["answered"] else "(abstained)")
    assert main(["answer", str(bundle), "--image", first["image"], "--question", "what is it?"]) == 2
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1 and "was measured on one text alone; leave the question out" in refused
