import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation import metrics
from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.variant import (
    CURVES_SCHEMA,
    METRICS_SCHEMA,
    EvaluationSettings,
    draw_setting,
    evaluate_variant,
    settings_of,
)
from settings_given import given

SETTINGS = {
    "model": "m",
    "scheme": "bf16",
    "id_dataset": "id",
    "estimators": ["maxprob", "entropy"],
    "risks": [0.05, 0.3],
    "costs": [1.0, 100.0],
    "resamples": 40,
    "seed": 7,
}


def answers(dataset, split, n, hardness, seed):
    rng = np.random.default_rng(seed)
    quality = rng.choice([0, 0.3, 0.6, 0.9, 1.0], p=[hardness, 0.1, 0.1, 0.1, 0.7 - hardness], size=n)
    maxprob = np.clip(0.5 * quality + 0.5 * rng.random(n), 0, 1)
    return pl.DataFrame(
        {
            "dataset": [dataset] * n,
            "split": [split] * n,
            "question_id": [f"{split}-{index}" for index in range(n)],
            "image_id": [f"{split}-{index // 3}" for index in range(n)],
            "answer_type": rng.choice(["yes/no", "other"], n),
            "question_kind": [None if index % 2 else "colour" for index in range(n)],
            "quality": quality,
            "maxprob": maxprob,
            "entropy": -rng.random(n),
        }
    )


@pytest.fixture(scope="module")
def scores():
    return pl.concat(
        [
            answers("id", "val", 90, 0.1, 0),
            answers("id", "test", 300, 0.1, 1),
            answers("shift", "test", 150, 0.4, 2),
        ]
    )


@pytest.fixture(scope="module")
def mixtures(scores):
    id_rows, shift = scores.filter(pl.col("dataset") == "id"), scores.filter(pl.col("dataset") == "shift")
    return {"shift": mixture_table(id_rows, shift, [1.0, 0.5, 0.0], seed=0)}


@pytest.fixture(scope="module")
def tables(scores, mixtures):
    return evaluate_variant(scores, mixtures, **given(EvaluationSettings, **SETTINGS))


def value(table, metric, parameter=None, estimator="maxprob", dataset="id", share=1.0, column="value"):
    row = table.filter(
        pl.col("metric") == metric,
        pl.col("parameter").eq_missing(parameter),
        pl.col("estimator") == estimator,
        pl.col("dataset") == dataset,
        pl.col("id_share").eq_missing(share),
    )
    assert row.height == 1
    return row[column][0]


def test_the_tables_have_a_row_for_each_estimator_setting_and_metric(tables):
    table, curves = tables
    assert table.schema == METRICS_SCHEMA
    assert curves.schema == CURVES_SCHEMA
    assert not table.select("estimator", "dataset", "id_share", "metric", "parameter").is_duplicated().any()
    settings = table.select("dataset", "id_share", "n").unique().sort("dataset", "id_share").rows()
    assert settings == [("id", 1.0, 300), ("shift", 0.0, 150), ("shift", 0.5, 150), ("shift", 1.0, 150)]


def test_values_are_those_of_the_metrics(tables, scores):
    id_rows = scores.filter((pl.col("dataset") == "id") & (pl.col("split") == "test"))
    ranking = rank(id_rows["quality"], id_rows["maxprob"])
    for name, metric in (("aurc", metrics.aurc), ("accuracy", metrics.mean_accuracy), ("ece", metrics.ece)):
        assert value(tables[0], name) == pytest.approx(metric(ranking))
    assert value(tables[0], "coverage_at_risk", 0.3) == metrics.coverage_at_risk(ranking, 0.3).coverage


def test_thresholds_come_from_val_in_distribution_for_every_setting(tables, scores):
    val = scores.filter(pl.col("split") == "val")
    ranking = rank(val["quality"], val["maxprob"])
    for dataset, share in (("id", 1.0), ("shift", 0.5), ("shift", 0.0)):
        for risk in SETTINGS["risks"]:
            expected = metrics.coverage_at_risk(ranking, risk).threshold
            assert value(tables[0], "deployed_threshold", risk, dataset=dataset, share=share) == expected
        for cost in SETTINGS["costs"]:
            expected = metrics.effective_reliability_threshold(ranking, cost)
            found = value(tables[0], "effective_reliability_threshold", cost, dataset=dataset, share=share)
            assert found == expected
    shift = scores.filter(pl.col("dataset") == "shift")
    threshold = metrics.coverage_at_risk(ranking, 0.3).threshold
    deployed = metrics.at_threshold(rank(shift["quality"], shift["maxprob"]), threshold)
    assert value(tables[0], "deployed_risk", 0.3, dataset="shift", share=0.0) == deployed.risk


def test_entropy_is_no_probability_and_undefined_is_null(tables):
    for metric in ("ece", "ece_mass", "brier"):
        assert value(tables[0], metric, estimator="entropy") is None
        assert value(tables[0], metric, estimator="entropy", column="low") is None
    assert tables[0].select(pl.col("value", "low", "high").is_nan().any()).row(0) == (False, False, False)


def test_intervals_surround_the_values_and_thresholds_have_none(tables):
    table = tables[0].filter(pl.col("low").is_not_null())
    smooth = table.filter(pl.col("metric").is_in(["accuracy", "aurc", "augrc", "auroc", "brier"]))
    assert (smooth["low"] <= smooth["value"]).all()
    assert (smooth["value"] <= smooth["high"]).all()
    assert (smooth["low"] < smooth["high"]).all()
    assert not table["metric"].str.contains("threshold").any()


def test_the_same_seed_gives_the_same_tables_whatever_the_order_of_rows(tables, scores, mixtures):
    shuffled = scores.sample(fraction=1, shuffle=True, seed=1)
    for before, after in zip(
        tables, evaluate_variant(shuffled, mixtures, **given(EvaluationSettings, **SETTINGS)), strict=True
    ):
        assert_frame_equal(before, after)


def test_curves_hold_at_most_two_hundred_points_that_lie_on_the_curve(tables, scores):
    id_rows = scores.filter((pl.col("dataset") == "id") & (pl.col("split") == "test"))
    coverage, risk = metrics.risk_coverage_curve(rank(id_rows["quality"], id_rows["maxprob"]))
    curve = tables[1].filter((pl.col("dataset") == "id") & (pl.col("estimator") == "maxprob"))
    assert curve.height == 200
    index = np.searchsorted(coverage, curve["coverage"].to_numpy() - 1e-9)
    np.testing.assert_allclose(curve["coverage"], coverage[index])
    np.testing.assert_allclose(curve["risk"], risk[index])
    assert curve["coverage"][-1] == 1.0
    assert (curve["low"] <= curve["high"]).all()
    shift = tables[1].filter((pl.col("dataset") == "shift") & (pl.col("id_share") == 0.5))
    assert shift.group_by("estimator").len()["len"].to_list() == [150, 150]


def test_a_whole_shift_that_its_mixture_of_share_zero_does_not_hold_is_a_setting_of_its_own(scores):
    larger = pl.concat(
        [scores, answers("shift", "test", 400, 0.4, 3).with_columns(question_id="x" + pl.col("question_id"))]
    )
    id_rows, shift = larger.filter(pl.col("dataset") == "id"), larger.filter(pl.col("dataset") == "shift")
    table = mixture_table(id_rows, shift, [0.5, 0.0], seed=0)
    found = [(s.dataset, s.id_share, s.answers.height) for s in settings_of(larger, {"shift": table}, "id")]
    assert found == [("id", 1.0, 300), ("shift", 0.5, 300), ("shift", 0.0, 300), ("shift", None, 550)]


def test_answers_of_two_datasets_to_one_picture_are_drawn_together(scores, mixtures):
    """As AdVQA and VQAv2 have pictures of COCO in common."""
    setting = next(s for s in settings_of(scores, mixtures, "id") if s.id_share == 0.5)
    per_picture = setting.answers.group_by("image_id").agg(pl.col("dataset").n_unique())
    assert (per_picture["dataset"] == 2).any()
    draws = draw_setting(setting, 3, 0)
    assert draws.counts.shape == (3, per_picture.height)
    drawn = setting.answers.select("image_id").with_columns(image=pl.Series(draws.image))
    assert (drawn.group_by("image_id").agg(pl.col("image").n_unique())["image"] == 1).all()


def test_calibrated_estimators_are_made_where_they_are_asked_for(scores, mixtures, tables):
    settings = {**SETTINGS, "estimators": ["maxprob", "maxprob+isotonic", "maxprob+temperature"]}
    table, _ = evaluate_variant(scores, mixtures, **given(EvaluationSettings, **settings))
    assert table["estimator"].unique(maintain_order=True).to_list() == settings["estimators"]
    assert value(table, "ece", estimator="maxprob+isotonic") < value(table, "ece")
    assert value(table, "aurc", estimator="maxprob+temperature") == pytest.approx(value(table, "aurc"))
    before = tables[0].filter(pl.col("estimator") == "maxprob")
    assert_frame_equal(table.filter(pl.col("estimator") == "maxprob"), before)


def test_a_missing_answer_is_named(scores, mixtures):
    lost = mixtures["shift"].filter(pl.col("dataset") == "shift")["question_id"][0]
    fewer = scores.filter((pl.col("dataset") != "shift") | (pl.col("question_id") != lost))
    with pytest.raises(QuantrustError, match=f"question {lost} of shift"):
        evaluate_variant(fewer, mixtures, **given(EvaluationSettings, **SETTINGS))


def test_missing_val_answers_are_named(scores, mixtures):
    with pytest.raises(QuantrustError, match="m/bf16: no answers of id in split val"):
        evaluate_variant(scores.filter(pl.col("split") == "test"), mixtures, **given(EvaluationSettings, **SETTINGS))


def test_an_unknown_estimator_is_named(scores, mixtures):
    with pytest.raises(QuantrustError, match="no estimator 'margin'"):
        evaluate_variant(scores, mixtures, **given(EvaluationSettings, **{**SETTINGS, "estimators": ["margin"]}))


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_an_unusable_confidence_is_named(scores, mixtures, bad):
    broken = scores.with_columns(
        maxprob=pl.when(pl.col("question_id") == "test-5").then(pl.lit(bad)).otherwise(pl.col("maxprob"))
    )
    with pytest.raises(QuantrustError, match="question test-5 of id: maxprob is"):
        evaluate_variant(broken, mixtures, **given(EvaluationSettings, **SETTINGS))


def test_what_was_evaluated_in_distribution_before_is_as_if_all_was_at_once(tmp_path, scores, mixtures, tables):
    """The scores in distribution alone give the rows in distribution, to which the rest is added."""
    write_table(scores.filter(pl.col("dataset") == "id"), tmp_path / "id.parquet")
    write_table(scores, tmp_path / "scores.parquet")
    write_table(mixtures["shift"], tmp_path / "shift.parquet")
    begun, whole = ([tmp_path / name / f"{kind}.parquet" for kind in ("metrics", "curves")] for name in ("id", "all"))
    write_from_scores(evaluate_variant, tmp_path / "id.parquet", {}, begun, **given(EvaluationSettings, **SETTINGS))
    shift = {"shift": tmp_path / "shift.parquet"}
    write_from_scores(
        evaluate_variant,
        tmp_path / "scores.parquet",
        shift,
        whole,
        begun,
        **given(EvaluationSettings, with_id_dataset=False, **SETTINGS),
    )
    for first, both, table in zip(begun, whole, tables, strict=True):
        assert_frame_equal(pl.read_parquet(first), table.filter(dataset="id"))
        assert_frame_equal(pl.read_parquet(both), table)


def test_files_hold_the_tables_and_are_the_same_bytes_twice(tmp_path, scores, mixtures, tables):
    write_table(scores, tmp_path / "scores.parquet")
    write_table(mixtures["shift"], tmp_path / "shift.parquet")
    for run in ("one", "two"):
        write_from_scores(
            evaluate_variant,
            tmp_path / "scores.parquet",
            {"shift": tmp_path / "shift.parquet"},
            [tmp_path / run / "metrics.parquet", tmp_path / run / "curves.parquet"],
            **given(EvaluationSettings, **SETTINGS),
        )
    for name, table in zip(("metrics.parquet", "curves.parquet"), tables, strict=True):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert_frame_equal(pl.read_parquet(tmp_path / "one" / name), table)
