"""Every rule of `config/paper.yaml` on models of the published width, in bfloat16 on the CPU, in less than 8 GB."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from quantrust.artifacts.documents import DIGESTS
from quantrust.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.full_width]

MODELS = ["qwen2-vl-7b", "idefics3-8b"]
SCHEMES = ["bf16", "hqq-w4g64", "mbq-w4g64"]
DATASETS = ["vqav2", "advqa", "vizwiz"]
VARIANTS = [(model, scheme) for model in MODELS for scheme in SCHEMES]
QUESTIONS = 200
HIDDEN = {"qwen2-vl-7b": 3584, "idefics3-8b": 4096}
MEMORY_BYTES = 8 * 10**9


@pytest.fixture(scope="module")
def features(paper_study) -> dict[tuple[str, str, str], pl.DataFrame]:
    """The features of every variant and dataset, without the hidden states."""
    return {
        (*variant, dataset): pl.read_parquet(_features(paper_study, *variant, dataset)).drop(
            "image_state", "question_state", "answer_state"
        )
        for variant in VARIANTS
        for dataset in DATASETS
    }


def _features(paper_study, model: str, scheme: str, dataset: str) -> Path:
    return paper_study.folder / "data" / "features" / model / scheme / f"{dataset}.parquet"


def test_the_run_had_every_rule_of_the_published_study(paper_study) -> None:
    """Every rule that the published config asks for in the same folder, its other schemes included in that plan."""
    paper_study.configure({})
    try:
        published, written = paper_study.plan("--forceall")
    finally:
        paper_study.restore()
    assert paper_study.rules_run == published.keys()
    for model in MODELS:
        for scheme in ("hqq-w8g64", "hqq-w3g64", "mbq-w8g64", "mbq-w3g64"):
            assert f"data/checkpoints/{model}/{scheme}" in written


def test_no_job_held_8_gb(paper_study) -> None:
    """By what the system counted for every process of the run, and by Snakemake's samples of the heavy jobs."""
    assert 10**9 < paper_study.peak_memory < MEMORY_BYTES
    runs = paper_study.folder / "benchmarks" / "runs"
    samples = sorted(runs.rglob("*.tsv"))
    assert {path.relative_to(runs).parts[0] for path in samples} >= {
        "quantize_model",
        "dump_shard",
        "train_selector",
    }
    for path in samples:
        sample = pl.read_csv(path, separator="\t", null_values="NA")
        # All processes of a job, memory that several share divided among them: those that prepare pictures share the
        # model with the one that they were forked from. A job of a second or two may end before the first sample.
        assert (sample["max_pss"].fill_null(0) * 2**20 < MEMORY_BYTES).all(), path


def test_weights_files_have_the_size_that_the_plan_says(paper_study, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(paper_study.folder)
    configs = ["config/paper.yaml", "study.yaml"]
    assert main(["plan", "--config", *configs, "--out", str(tmp_path / "plan.json")]) == 0
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    planned = {
        (row["model"], row["scheme"]): row["weights_file_exact"] for row in rows if row["rule"] == "quantize_model"
    }
    checkpoints = paper_study.folder / "data" / "checkpoints"
    assert planned == {
        (model, scheme): (checkpoints / model / scheme / "model.safetensors").stat().st_size
        for model, scheme in VARIANTS
    }
    asked = {row["dataset"]: row["questions"] for row in rows if row["rule"] == "gather_features"}
    assert asked == dict.fromkeys(DATASETS, QUESTIONS)


@pytest.mark.parametrize("model", MODELS)
def test_four_bits_take_the_place_of_sixteen_in_the_language_model(paper_study, model: str) -> None:
    checkpoints = paper_study.folder / "data" / "checkpoints" / model
    records = {scheme: json.loads((checkpoints / scheme / "quantization.json").read_text()) for scheme in SCHEMES}
    for scheme in SCHEMES[1:]:
        layers = pl.DataFrame(records[scheme]["layers"], infer_schema_length=None)
        chosen = layers.drop_nulls("bits")
        # Two blocks of seven linears, nothing else.
        assert (chosen["component"] == "language").all()
        assert len(chosen) == 14
        assert chosen["relative_error"].is_between(0.01, 0.3).all()
        weights = int((chosen["rows"] * chosen["columns"]).sum())
        # 4 bits and two float16 numbers for 64 weights, in the place of bfloat16.
        saved = records["bf16"]["bytes"]["weights_file"] - records[scheme]["bytes"]["weights_file"]
        assert saved == pytest.approx(weights * (16 - 4 - 32 / 64) / 8, rel=1e-4)
    assert records["mbq-w4g64"]["calibration"]["samples"] == paper_study.overlay["calibration"]["samples"]
    # One ratio for attention and one for the MLP of each block.
    assert len(records["mbq-w4g64"]["modality_ratios"]) == 4


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_question_is_answered_by_every_variant(features, paper_study, model: str, dataset: str) -> None:
    asked = pl.read_parquet(paper_study.folder / "data" / "questions" / f"{dataset}.parquet")
    assert len(asked) == QUESTIONS
    for scheme in SCHEMES:
        rows = features[model, scheme, dataset]
        assert rows["question_id"].to_list() == asked["question_id"].to_list()
        assert rows["answer"].n_unique() > 10
        assert rows["finished"].any()
        assert rows["joint_log_prob"].is_finite().all()
        assert rows["joint_log_prob"].n_unique() > QUESTIONS / 2
        assert rows["quality"].is_between(0, 1).all()
    # Four bits change what a model says, and not everything.
    for scheme in SCHEMES[1:]:
        same = (features[model, scheme, dataset]["answer"] == features[model, "bf16", dataset]["answer"]).mean()
        assert 0 < same < 1


def test_some_answers_are_right(features) -> None:
    assert 0 < pl.concat([rows.select("quality") for rows in features.values()])["quality"].mean() < 0.5


def test_hidden_states_have_the_published_width_and_are_finite(paper_study) -> None:
    for model, scheme in VARIANTS:
        table = pq.read_table(
            _features(paper_study, model, scheme, "vqav2"), columns=["image_state", "question_state", "answer_state"]
        )
        for column in table.itercolumns():
            values = np.array(column.combine_chunks().flatten())
            assert values.size == QUESTIONS * HIDDEN[model]
            assert np.isfinite(values).all()


def test_splits_are_by_image_and_shifts_are_for_tests_alone(features) -> None:
    rows = features["qwen2-vl-7b", "bf16", "vqav2"]
    assert dict(rows.group_by("split").len().iter_rows()) == {"dev": 80, "val": 20, "test": 100}
    assert (rows.group_by("image_id").agg(pl.col("split").n_unique())["split"] == 1).all()
    for dataset in DATASETS[1:]:
        assert set(features["qwen2-vl-7b", "bf16", dataset]["split"]) == {"test"}


def test_every_estimator_scores_every_answer_and_every_metric_has_its_rows(paper_study) -> None:
    for model, scheme in VARIANTS:
        scores = pl.read_parquet(paper_study.folder / "data" / "scores" / model / f"{scheme}.parquet")
        assert len(scores) == len(DATASETS) * QUESTIONS
        assert scores.select(pl.col("maxprob", "selector").is_between(0, 1).all()).row(0) == (True, True)
        assert scores["selector"].n_unique() > 1
        metrics = pl.read_parquet(paper_study.folder / "data" / "metrics" / model / f"{scheme}.parquet")
        assert set(metrics["estimator"]) == {"maxprob", "selector"}
        accuracy = metrics.filter(metric="accuracy", estimator="maxprob", id_share=1.0, dataset="vqav2")
        low, value, high = accuracy.select("low", "value", "high").row(0)
        assert 0 <= low <= value <= high <= 1


def test_the_report_has_every_figure_and_table_and_the_page_every_variant(paper_study) -> None:
    reports = paper_study.folder / "reports" / "paper"
    made = {str(path.relative_to(reports)) for path in reports.rglob("*.*") if DIGESTS not in path.parts}
    _, written = paper_study.plan("--forceall")
    expected = {path.removeprefix("reports/paper/") for path in written if path.startswith("reports/paper/")}
    assert made == expected
    assert "index.html" in made and "risk_coverage.pdf" in made and "tables/quantization.tex" in made
    page = (reports / "index.html").read_text(encoding="utf-8")
    for name in (*MODELS, *SCHEMES, *DATASETS):
        assert f'<option value="{name}">' in page
    sizes = pl.read_csv(reports / "tables" / "sizes.csv")
    assert sorted(sizes.select("model", "scheme").iter_rows()) == sorted(VARIANTS)


def test_the_files_say_under_which_settings_they_were_made(paper_study) -> None:
    """Prompts, dtype and attention are the published study's; the overlay takes the CPU and its kernels."""
    published = yaml.safe_load((paper_study.folder / "config" / "paper.yaml").read_text())
    for model, scheme in VARIANTS:
        notes = pq.read_metadata(_features(paper_study, model, scheme, "advqa")).metadata
        settings = json.loads(notes[b"settings"])
        assert settings["prompt"] == published["models"][model].get("prompt", published["features"]["prompt"])
        assert (settings["dtype"], settings["attention"], settings["device"]) == ("bfloat16", "sdpa", "cpu")
        assert notes[b"scheme"].decode() == scheme


def test_a_second_run_does_nothing(paper_study) -> None:
    assert "Nothing to be done" in paper_study.run()
