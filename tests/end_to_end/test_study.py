"""A tiny study from nothing to its figures."""

import json

import polars as pl
import pytest

from quantrust.artifacts.documents import DIGESTS

MODEL, ID_DATASET = "adversary", "scenes"
DATASETS = ("scenes", "scenes-multimodal", "scenes-language")
ESTIMATORS = {"maxprob", "length-normalised", "min-token", "entropy", "margin", "selector"}


@pytest.fixture(scope="module")
def schemes(study) -> list[str]:
    return sorted(path.name for path in (study.folder / "data" / "checkpoints" / MODEL).iterdir())


def test_every_question_is_answered_by_every_variant(study, schemes: list[str]) -> None:
    for dataset in DATASETS:
        asked = pl.read_parquet(study.folder / "data" / "questions" / f"{dataset}.parquet")
        for scheme in schemes:
            answered = pl.read_parquet(study.folder / "data" / "features" / MODEL / scheme / f"{dataset}.parquet")
            assert answered["question_id"].to_list() == asked["question_id"].to_list()
            assert answered["quality"].is_between(0, 1).all()


def test_every_estimator_scores_every_answer(study, schemes: list[str]) -> None:
    for scheme in schemes:
        scores = pl.read_parquet(study.folder / "data" / "scores" / MODEL / f"{scheme}.parquet")
        assert set(scores.columns) >= ESTIMATORS
        assert set(scores["dataset"]) == set(DATASETS)
        assert scores.select(pl.col(*ESTIMATORS).is_finite().all()).row(0) == (True,) * len(ESTIMATORS)


def test_the_trained_model_answers_some_questions_rightly(study) -> None:
    metrics = pl.read_parquet(study.folder / "data" / "metrics" / MODEL / "bf16.parquet")
    accuracy = metrics.filter(metric="accuracy", estimator="maxprob", dataset=ID_DATASET, id_share=1.0).row(
        0, named=True
    )
    assert 0.05 < accuracy["low"] <= accuracy["value"] <= accuracy["high"] < 1
    assert accuracy["n"] == 28


def test_metrics_and_curves_cover_every_mixture(study, schemes: list[str]) -> None:
    for scheme in schemes:
        metrics = pl.read_parquet(study.folder / "data" / "metrics" / MODEL / f"{scheme}.parquet")
        settings = metrics.select("dataset", "id_share").unique().drop_nulls()
        assert len(settings) == 1 + 2 * 7
        assert set(metrics["estimator"]) == ESTIMATORS | {"maxprob+temperature"}
        curves = pl.read_parquet(study.folder / "data" / "curves" / MODEL / f"{scheme}.parquet")
        assert curves["coverage"].is_between(0, 1).all()


def test_fewer_bits_take_fewer_bytes(study) -> None:
    sizes = pl.read_csv(study.folder / "reports" / "tables" / "sizes.csv")
    on_disk = dict(sizes.select("scheme", "bytes_on_disk").iter_rows())
    assert on_disk["mbq-w3g32-full"] < 0.5 * on_disk["bf16"]
    for scheme, size in on_disk.items():
        folder = study.folder / "data" / "checkpoints" / MODEL / scheme
        assert (folder / "model.safetensors").stat().st_size == size
        assert json.loads((folder / "quantization.json").read_text())["scheme"] == scheme


def test_every_figure_and_table_is_made(study) -> None:
    reports = study.folder / "reports"
    made = {str(path.relative_to(reports)) for path in reports.rglob("*.*") if DIGESTS not in path.parts}
    figures = ("risk_coverage", "mixtures", "efficiency", "degradation", "reliability_diagrams", "selector_gain")
    figures += ("confidence_histograms", "answer_types", "question_kinds", "fairness_by_group", "drift_from_bf16")
    expected = {f"{name}.{kind}" for name in figures for kind in ("pdf", "png")}
    tables = (
        "data",
        "accuracy",
        "reliability",
        "members",
        "sizes",
        "certification",
        "comparisons",
        "decisions",
        "shipping",
        "drift",
        "fairness",
    )
    expected |= {f"tables/{name}.csv" for name in tables}
    expected |= {f"tables/{name}.{kind}" for name in ("quantization", "selector") for kind in ("csv", "md", "tex")}
    assert made == expected | {"index.html"}


def test_the_page_is_made_of_this_study(study, schemes: list[str]) -> None:
    page = (study.folder / "reports" / "index.html").read_text(encoding="utf-8")
    assert str(study.folder) not in page
    for name in (*DATASETS, MODEL, *schemes):
        assert f'<option value="{name}">' in page


def test_schemes_are_compared_with_bf16_and_estimators_with_maxprob_on_whole_test_sets(study) -> None:
    table = pl.read_csv(study.folder / "reports" / "tables" / "comparisons.csv")
    variants, schemes = 3, 2
    # Accuracy once; AURC, ECE and the coverages at two risk limits under either estimator, and between the two.
    of_schemes, of_estimators = (1 + 2 * 4) * schemes * len(DATASETS), 4 * variants * len(DATASETS)
    assert table.height == of_schemes + of_estimators
    pairs = table.filter(pl.col("first_scheme") != pl.col("second_scheme"))
    assert pairs.height == of_schemes
    assert set(pairs["second_scheme"]) == {"bf16"}
    assert (pairs["first_estimator"] == pairs["second_estimator"]).all()
    others = table.filter(pl.col("first_scheme") == pl.col("second_scheme"))
    assert others.select("first_estimator", "second_estimator").unique().rows() == [("selector", "maxprob")]
    assert "accuracy" not in set(others["metric"])
    assert dict(table.select("dataset", "n").unique().iter_rows()) == dict(zip(DATASETS, (28, 24, 24), strict=True))


def test_artifacts_do_not_say_where_they_were_made(study) -> None:
    """Logs and benchmarks may; so may Snakemake's own records."""
    for path in (study.folder / "data").rglob("*"):
        if path.is_file() and path.name != ".snakemake_timestamp":
            assert str(study.folder).encode() not in path.read_bytes(), path


def test_every_job_wrote_a_log_and_every_heavy_one_a_benchmark(study, schemes: list[str]) -> None:
    for scheme in schemes:
        assert (study.folder / "logs" / "quantize_model" / MODEL / f"{scheme}.log").is_file()
        assert (study.folder / "benchmarks" / "runs" / "quantize_model" / MODEL / f"{scheme}.tsv").is_file()


def test_jobs_find_what_other_jobs_of_their_model_have_made(first_study, schemes: list[str]) -> None:
    data, logs = first_study.folder / "data", first_study.folder / "logs"
    answers = [path.read_text() for path in (logs / "dump_features" / MODEL).rglob("*.log")]
    variants = [path.read_text() for path in (logs / "quantize_model" / MODEL).glob("*.log")]
    for dataset in (ID_DATASET, "scenes-multimodal"):
        assert sum(text.count(f"answering {dataset}: 0 of") for text in answers) == len(schemes)
    assert sum(text.count("layer plan of ") for text in variants) == len(schemes)
    # how many begin side by side depends on the machine
    assert sum("answering " in text for text in answers) < len(answers)
    for made in ("made_features", "made_checkpoints"):
        assert [path for path in (data / made).rglob("*") if path.is_file()] == []
    assert not (data / "asked.txt").exists()


def test_a_second_run_does_nothing(study) -> None:
    assert "Nothing to be done" in study.run()
