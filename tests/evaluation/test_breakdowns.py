"""Breakdowns: groups against metrics of the filtered answers, bins against counting one answer after another."""

import math

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantrust.artifacts.tables import write_table
from quantrust.evaluation import metrics
from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.breakdowns import BINS_SCHEMA, GROUPS_SCHEMA, BreakdownSettings, break_down
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.mixtures import mixture_table
from settings_given import given

SETTINGS = {
    "model": "m",
    "scheme": "bf16",
    "id_dataset": "id",
    "estimators": ["maxprob", "entropy"],
    "risks": [0.1, 0.3],
    "resamples": 60,
    "seed": 5,
}


def answers(dataset: str, split: str, n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    quality = rng.choice([0, 0.3, 0.6, 1.0], p=[0.2, 0.1, 0.1, 0.6], size=n)
    return pl.DataFrame(
        {
            "dataset": [dataset] * n,
            "split": [split] * n,
            "question_id": [f"{split}-{index}" for index in range(n)],
            "image_id": [f"{split}-{index // 3}" for index in range(n)],
            "answer_type": rng.choice(["yes/no", "other"], n),
            "question_kind": [None if index % 2 else "colour" for index in range(n)],
            "quality": quality,
            "maxprob": np.clip(0.4 + 0.3 * quality + 0.3 * rng.random(n), 0, 1),
            "entropy": -rng.random(n),
        }
    )


@pytest.fixture(scope="module")
def scores() -> pl.DataFrame:
    return pl.concat([answers("id", "val", 90, 0), answers("id", "test", 300, 1), answers("shift", "test", 150, 2)])


@pytest.fixture(scope="module")
def mixtures(scores: pl.DataFrame) -> dict[str, pl.DataFrame]:
    id_rows, shift = (scores.filter(dataset=name) for name in ("id", "shift"))
    return {"shift": mixture_table(id_rows, shift, [1, 0.5, 0], 0)}


@pytest.fixture(scope="module")
def tables(scores: pl.DataFrame, mixtures: dict[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return break_down(scores, mixtures, **given(BreakdownSettings, **SETTINGS))


def test_groups_hold_the_metrics_of_their_questions_alone(scores, tables) -> None:
    groups, _ = tables
    assert groups.schema == GROUPS_SCHEMA
    val = scores.filter(dataset="id", split="val")
    threshold = metrics.coverage_at_risk(rank(val["quality"], val["maxprob"]), 0.3).threshold
    for dataset, group in (("id", "other"), ("shift", "yes/no")):
        own = scores.filter(dataset=dataset, split="test", answer_type=group)
        ranking = rank(own["quality"], own["maxprob"])
        kept = metrics.at_threshold(ranking, threshold)
        rows = groups.filter(dataset=dataset, grouping="answer_type", group=group, estimator="maxprob")
        found = {(row["metric"], row["parameter"]): row for row in rows.iter_rows(named=True)}
        assert set(rows["n"]) == {own.height}
        expected = {
            ("accuracy", None): own["quality"].mean(),
            ("ece", None): metrics.ece(ranking),
            ("aurc", None): metrics.aurc(ranking),
            ("coverage_at_risk", 0.3): metrics.coverage_at_risk(ranking, 0.3).coverage,
            ("deployed_coverage", 0.3): kept.coverage,
            ("deployed_risk", 0.3): kept.risk,
        }
        for key, value in expected.items():
            assert found[key]["value"] == pytest.approx(value)
            assert found[key]["low"] <= value <= found[key]["high"]


def test_questions_without_a_kind_are_in_no_kind(tables) -> None:
    kinds = tables[0].filter(grouping="question_kind", metric="accuracy", estimator="maxprob")
    assert kinds.select("dataset", "group", "n").rows() == [("id", "colour", 150), ("shift", "colour", 75)]


def test_an_estimator_that_is_no_probability_has_groups_without_calibration_error_and_no_bins(tables) -> None:
    groups, bins = tables
    assert groups.filter(estimator="entropy", metric="ece")["value"].null_count() == 6
    assert groups.filter(estimator="entropy", metric="aurc")["value"].null_count() == 0
    assert set(bins["estimator"]) == {"maxprob"}


def test_bins_count_the_answers_and_give_the_calibration_error(scores, tables) -> None:
    _, bins = tables
    assert bins.schema == BINS_SCHEMA
    own = scores.filter(dataset="id", split="test")
    here = bins.filter(dataset="id")
    assert len(here) == 15
    assert (here["n"].sum(), here["right"].sum()) == (300, (own["quality"] >= 0.5).sum())
    for row in here.iter_rows(named=True):
        within = own.filter(
            (pl.col("maxprob") > row["lower"]) & (pl.col("maxprob") <= row["upper"])
            | ((row["lower"] == 0) & (pl.col("maxprob") == 0))
        )
        assert (row["n"], row["right"]) == (within.height, (within["quality"] >= 0.5).sum())
        assert row["confidence"] == (pytest.approx(within["maxprob"].mean()) if within.height else None)
        assert row["accuracy"] == (pytest.approx(within["quality"].mean()) if within.height else None)
    gaps = (here["n"] * (here["confidence"] - here["accuracy"]).abs()).sum() / 300
    assert gaps == pytest.approx(metrics.ece(rank(own["quality"], own["maxprob"])))


def test_the_interval_of_a_bin_is_that_of_its_resampled_means(scores, mixtures) -> None:
    """Against drawing images with replacement and averaging each time, to within the noise of the resamples."""
    _, bins = break_down(
        scores, mixtures, **given(BreakdownSettings, **{**SETTINGS, "resamples": 2000, "estimators": ["maxprob"]})
    )
    fullest = bins.filter(dataset="id").sort("n", descending=True).row(0, named=True)
    own = scores.filter(dataset="id", split="test")
    inside = own.with_columns(inside=(pl.col("maxprob") > fullest["lower"]) & (pl.col("maxprob") <= fullest["upper"]))
    by_image = [
        part.filter("inside")["quality"].to_list() for part in inside.partition_by("image_id", maintain_order=True)
    ]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        drawn = [value for image in rng.integers(len(by_image), size=len(by_image)) for value in by_image[image]]
        means.append(float(np.mean(drawn)) if drawn else math.nan)
    low, high = np.nanquantile(means, [0.025, 0.975])
    width = high - low
    assert fullest["low"] == pytest.approx(low, abs=0.15 * width)
    assert fullest["high"] == pytest.approx(high, abs=0.15 * width)


def test_what_was_broken_down_in_distribution_before_is_as_if_all_was_at_once(scores, mixtures, tables) -> None:
    id_rows = break_down(scores.filter(pl.col("dataset") == "id"), {}, **given(BreakdownSettings, **SETTINGS))
    rest = break_down(scores, mixtures, **given(BreakdownSettings, with_id_dataset=False, **SETTINGS))
    for parts, table in zip(zip(id_rows, rest, strict=True), tables, strict=True):
        assert_frame_equal(pl.concat(parts), table, check_row_order=False)


def test_files_hold_the_tables(tmp_path, scores, mixtures, tables) -> None:
    write_table(scores, tmp_path / "scores.parquet")
    write_table(mixtures["shift"], tmp_path / "shift.parquet")
    paths = (tmp_path / "groups.parquet", tmp_path / "bins.parquet")
    mixture_paths = {"shift": tmp_path / "shift.parquet"}
    write_from_scores(
        break_down, tmp_path / "scores.parquet", mixture_paths, paths, **given(BreakdownSettings, **SETTINGS)
    )
    for path, table in zip(paths, tables, strict=True):
        assert pl.read_parquet(path).equals(table)
