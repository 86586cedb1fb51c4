"""Decisions over a grid of limits, what schemes keep, and the examples drawn by a threshold."""

import math

import numpy as np
import polars as pl
import pytest
from PIL import Image

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.certification import CertificationSettings, evaluate_certification
from quantrust.evaluation.decisions import SCHEMA, DecisionSettings, decide_variant
from quantrust.evaluation.examples import KINDS, LONGEST_SIDE, ExampleSettings, write_examples
from quantrust.evaluation.limits import fewest_to_judge, risk_limits
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.operating_points import (
    Certification,
    Conditions,
    Measured,
    OperatingPoint,
    OperatingPoints,
    Sought,
)
from quantrust.evaluation.shipping import ShippingSettings, verdict, write_shipping
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from resampled import resampled
from settings_given import given

VARIANT = {"model": "m", "scheme": "s", "id_dataset": "id", "estimators": ["maxprob", "blurred"], "seed": 3}
RISKS = [0.05, 0.1, 0.3]


def answers(seed: int, lost: float = 0.0) -> pl.DataFrame:
    """Answers to the same questions; of the right ones a share is lost."""
    parts = []
    for dataset, split, n in (("id", "val", 300), ("id", "test", 600), ("shift", "test", 240)):
        rng = np.random.default_rng(n)
        quality = rng.choice([0, 0.6, 1.0], p=[0.2, 0.1, 0.7], size=n)
        own = np.random.default_rng([seed, n])
        quality = np.where(own.random(n) < lost, 0.0, quality)
        confidence = np.clip(0.5 * quality + 0.5 * own.random(n), 0, 1)
        parts.append(
            pl.DataFrame(
                {
                    "dataset": dataset,
                    "split": split,
                    "question_id": [f"{split}-{index}" for index in range(n)],
                    "image_id": [f"{split}-{index // 2}" for index in range(n)],
                    "quality": quality,
                    "maxprob": confidence,
                    "blurred": 0.5 * confidence + 0.5 * own.random(n),
                }
            )
        )
    return pl.concat(parts)


@pytest.fixture(scope="module")
def scores() -> pl.DataFrame:
    return answers(1)


@pytest.fixture(scope="module")
def mixtures(scores) -> dict[str, pl.DataFrame]:
    id_rows, shift = (scores.filter(pl.col("dataset") == name) for name in ("id", "shift"))
    return {"shift": mixture_table(id_rows, shift, [1.0, 0.5, 0.0], seed=0)}


@pytest.fixture(scope="module")
def table(scores, mixtures) -> pl.DataFrame:
    return decide_variant(
        scores, mixtures, **given(DecisionSettings, risks=RISKS, delta=0.1, splits=20, resamples=30, **VARIANT)
    )


def test_there_is_a_row_for_each_estimator_dataset_and_limit(table) -> None:
    assert table.schema == SCHEMA
    assert table.height == 2 * 2 * len(RISKS)
    assert set(table.select("dataset", "n").iter_rows()) == {("id", 600), ("shift", 240)}


def test_figures_are_those_of_the_metrics(table, scores, mixtures) -> None:
    metrics, _ = evaluate_variant(
        scores, mixtures, **given(EvaluationSettings, risks=RISKS, costs=[], resamples=30, **VARIANT)
    )
    share = {"id": 1.0, "shift": 0.0}
    for row in table.iter_rows(named=True):
        here = metrics.filter(
            (pl.col("estimator") == row["estimator"])
            & (pl.col("dataset") == row["dataset"])
            & (pl.col("id_share") == share[row["dataset"]])
            & (pl.col("parameter") == row["risk_limit"])
        )
        found = {metric: figures for metric, *figures in here.select("metric", "value", "low", "high").iter_rows()}
        for metric, column in (
            ("coverage_at_risk", "coverage"),
            ("deployed_coverage", "deployed_coverage"),
            ("deployed_risk", "deployed_risk"),
        ):
            assert [row[column], row[f"{column}_low"], row[f"{column}_high"]] == found[metric]
        assert row["threshold"] == found["deployed_threshold"][0]


def test_shares_of_halves_are_those_of_the_certification(table, scores, mixtures) -> None:
    certified = evaluate_certification(
        scores, mixtures, **given(CertificationSettings, risks=RISKS, delta=0.1, splits=20, **VARIANT)
    )
    certified = certified.filter((pl.col("id_share") == 1) | (pl.col("id_share") == 0))
    assert certified["threshold"].is_not_null().any()
    for row in table.iter_rows(named=True):
        same = certified.row(
            by_predicate=(pl.col("estimator") == row["estimator"])
            & (pl.col("dataset") == row["dataset"])
            & (pl.col("id_share") == (1.0 if row["dataset"] == "id" else 0.0))
            & (pl.col("risk_limit") == row["risk_limit"]),
            named=True,
        )
        for column in ("median_coverage", "median_risk", "violation_rate"):
            assert row[f"certified_{column}"] == same[column]
        assert (row["splits"], row["certified_share"]) == (20, same["certified_share"])


def test_the_certified_threshold_is_the_one_that_ships(scores, mixtures) -> None:
    measured = (
        Measured("id", "test", 600, 300, 90, 0.15, 0.1, 0.2, 0.01, 0.0, 0.02, 0.95),
        Measured("shift", "test", 240, 240, 24, 0.1, 0.05, 0.15, 0.3, 0.2, 0.4, 0.95),
    )
    point = OperatingPoint("maxprob", 0.1, "certified", 1 - 3e-7, 0.2, "id", "test", 300, 300, measured)
    sought = (Sought("maxprob", 0.1, 0.05, 29, True), Sought("maxprob", 0.05, 0.05, 59, False))
    declared = Certification(0.2, 1, ("maxprob",), (0.1, 0.05), "id", "test", 300, 300, 0, "all certify", sought)
    shipped = OperatingPoints("m", "s", "", "id", Conditions("cpu", "float32", "none", "sdpa"), (point,), declared)
    settings = {"risks": RISKS, "delta": 0.1, "splits": 2, "resamples": 3, **VARIANT}

    table = decide_variant(scores, mixtures, shipped=shipped, **given(DecisionSettings, **settings))

    columns = [f"certified_{name}" for name in ("threshold", "delta", "images", "fewest", "coverage", "risk_high")]
    found = {row[:3]: row[3:] for row in table.select("estimator", "dataset", "risk_limit", *columns).rows()}
    assert found["maxprob", "id", 0.1] == (1 - 3e-7, 0.2, 300, 29, 0.15, 0.02)
    assert found["maxprob", "shift", 0.1] == (1 - 3e-7, 0.2, 300, 29, 0.1, 0.4)
    # Sought, and not found.
    assert found["maxprob", "id", 0.05] == (None, 0.2, 300, 59, None, None)
    # Not sought.
    assert found["maxprob", "id", 0.3] == found["blurred", "id", 0.1] == (None,) * 6


def test_images_are_counted_with_those_that_a_threshold_answers(table, scores) -> None:
    for row in table.iter_rows(named=True):
        asked = scores.filter((pl.col("dataset") == row["dataset"]) & (pl.col("split") == "test"))
        answered = asked.filter(pl.col(row["estimator"]) >= row["threshold"]) if row["threshold"] else asked.clear()
        assert (row["images"], row["val_images"]) == (asked["image_id"].n_unique(), 150)
        assert row["deployed_images"] == answered["image_id"].n_unique()
    assert table["threshold"].is_not_null().any()


def test_so_many_answers_tell_a_risk_limit_from_twice_the_limit() -> None:
    for limit in (0.005, 0.05, 0.2, 0.5):
        n = fewest_to_judge(limit, 0.95)
        # All right: of fewer, a risk of the limit would leave as many with a probability above 5 %.
        assert (1 - limit) ** n <= 0.05
        assert 1.96 * math.sqrt(limit * (1 - limit) / n) <= limit * 1.0001
        fewer = n - 1
        assert (1 - limit) ** fewer > 0.05 or 1.9599 * math.sqrt(limit * (1 - limit) / fewer) > limit
    assert [fewest_to_judge(0.05, level) for level in (0.9, 0.95, 0.99)] == [52, 73, 127]


def test_a_limit_outside_zero_and_one_is_refused(scores, mixtures) -> None:
    with pytest.raises(QuantrustError, match="outside"):
        decide_variant(
            scores, mixtures, **given(DecisionSettings, risks=[1.0], delta=0.1, splits=1, resamples=5, **VARIANT)
        )


def test_limits_are_decimal_fractions_and_include_the_ends() -> None:
    assert risk_limits(0.005, 0.02, 0.005) == [0.005, 0.01, 0.015, 0.02]
    assert risk_limits(0.1, 0.35, 0.1) == [0.1, 0.2, 0.3]
    assert risk_limits(0.2, 0.1, 0.1) == []
    assert len(risk_limits(0.005, 0.2, 0.005)) == 40


# What schemes keep.

DRAWS = {"id_dataset": "id", "resamples": 60, "seed": 0}


def judged_by(risks: list[float]) -> list[tuple[str, float | None]]:
    return [("accuracy", None), *(("coverage_at_risk", risk) for risk in risks)]


@pytest.fixture
def shipped(scores, mixtures, tmp_path):
    worse = answers(1, lost=0.3)
    for name, one in (("bf16", scores), ("same", scores), ("worse", worse)):
        write_table(one, tmp_path / f"{name}.parquet")
    write_table(mixtures["shift"], tmp_path / "mixture.parquet")

    def write(names=("bf16", "same", "worse"), **changes) -> pl.DataFrame:
        settings = {"reference": "bf16", "estimators": ["maxprob"], "risks": [0.1], "keeps": 0.95} | changes
        files = resampled(
            {("m", name): tmp_path / f"{name}.parquet" for name in names},
            {"shift": tmp_path / "mixture.parquet"},
            tmp_path,
            estimators=settings["estimators"],
            metrics=judged_by(settings["risks"]),
            **DRAWS,
        )
        write_shipping(files, tmp_path / "shipping.parquet", ShippingSettings(**settings))
        return pl.read_parquet(tmp_path / "shipping.parquet")

    return write


def test_a_scheme_that_answers_alike_keeps_everything(shipped) -> None:
    same = shipped().filter(pl.col("scheme") == "same")
    assert same.select("kept", "kept_low", "kept_high").unique().rows() == [(1.0, 1.0, 1.0)]
    assert same.filter(pl.col("metric") == "coverage_at_risk")["verdict"].to_list() == ["meets", "meets"]
    assert same.filter(pl.col("metric") == "accuracy")["verdict"].to_list() == [None, None]


def test_a_worse_scheme_keeps_the_ratio_of_the_metrics_and_fails(shipped, scores, mixtures) -> None:
    worse = shipped().filter(pl.col("scheme") == "worse")
    settings = VARIANT | {"estimators": ["maxprob"], "risks": [0.1], "costs": [], "resamples": 2}
    metrics = [
        evaluate_variant(one, mixtures, **given(EvaluationSettings, **settings))[0]
        for one in (answers(1, lost=0.3), scores)
    ]
    for dataset, share in (("id", 1.0), ("shift", 0.0)):
        for metric in ("accuracy", "coverage_at_risk"):
            own, base = (
                table.row(
                    by_predicate=(pl.col("dataset") == dataset)
                    & (pl.col("id_share") == share)
                    & (pl.col("metric") == metric),
                    named=True,
                )["value"]
                for table in metrics
            )
            row = worse.row(by_predicate=(pl.col("dataset") == dataset) & (pl.col("metric") == metric), named=True)
            assert row["kept"] == pytest.approx(own / base)
            assert row["kept_low"] <= row["kept"] <= row["kept_high"]
    id_rows = worse.filter((pl.col("dataset") == "id") & (pl.col("metric") == "coverage_at_risk"))
    assert id_rows["verdict"].to_list() == ["fails"]


def test_every_estimator_judges_on_its_own(shipped) -> None:
    both = shipped(estimators=["blurred", "maxprob"])
    for estimator in ("maxprob", "blurred"):
        alone = shipped(estimators=[estimator])
        assert both.filter(pl.col("estimator") == estimator).equals(alone)
        assert alone.height == 2 * 2 * 2


def test_every_limit_has_the_verdicts_that_it_has_alone(shipped) -> None:
    limits = [0.05, 0.1, 0.2]
    together = shipped(risks=limits)
    accuracy = together.filter(pl.col("metric") == "accuracy")
    assert accuracy.height == 2 * 2
    for limit in limits:
        alone = shipped(risks=[limit])
        coverage = alone.filter(pl.col("metric") == "coverage_at_risk")
        assert coverage["parameter"].to_list() == [limit] * 4
        assert together.filter(pl.col("parameter") == limit).equals(coverage)
        assert alone.filter(pl.col("metric") == "accuracy").equals(accuracy)


def test_a_study_without_the_reference_has_no_rows(shipped) -> None:
    assert shipped(names=("same", "worse")).is_empty()


def test_a_reference_that_keeps_nothing_leaves_it_open(shipped, scores, tmp_path) -> None:
    write_table(scores.with_columns(maxprob=1 - pl.col("quality")), tmp_path / "bf16.parquet")
    rows = shipped(names=("bf16", "same")).filter(pl.col("metric") == "coverage_at_risk")
    assert rows["reference"].unique().to_list() == [0.0]
    assert rows.select("kept", "kept_low", "kept_high", "verdict").unique().rows() == [(None, None, None, "open")]


def test_schemes_that_answer_other_questions_are_refused(shipped, scores, tmp_path) -> None:
    shipped()
    other = scores.with_columns(pl.col("question_id") + "x")
    write_table(other, tmp_path / "same.parquet")
    with pytest.raises(QuantrustError, match=r"question .* is in a mixture|do not answer the same questions"):
        shipped()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.95, 1.0, "meets"),
        (0.949, 1.0, "open"),
        (0.9, 0.95, "open"),
        (0.9, 0.949, "fails"),
        (math.nan,) * 2 + ("open",),
    ],
)
def test_the_whole_interval_decides(low, high, expected) -> None:
    assert verdict(low, high, 0.95, 750) == expected


@pytest.mark.parametrize(("images", "expected"), [(10, "open"), (72, "open"), (73, "meets")])
def test_few_images_settle_nothing_whatever_the_interval(images, expected) -> None:
    # On ten images that a scheme answers alike, nothing is ever lost, in no resample.
    assert verdict(1.0, 1.0, 0.95, images) == expected
    assert verdict(0.2, 0.4, 0.95, images) == {"open": "open", "meets": "fails"}[expected]
    assert verdict(1.0, 1.0, 1.0, images) == "meets"


def test_the_verdicts_of_a_small_study_are_open(scores, tmp_path) -> None:
    few = scores.filter(
        pl.col("image_id").is_in([f"test-{index}" for index in range(10)]) | (pl.col("split") != "test"),
        pl.col("dataset") == "id",
    )
    write_table(few, tmp_path / "few.parquet")
    paths = {("m", name): tmp_path / "few.parquet" for name in ("bf16", "same")}
    files = resampled(paths, {}, tmp_path, estimators=["maxprob"], metrics=judged_by([0.3]), **DRAWS)
    settings = ShippingSettings(reference="bf16", estimators=["maxprob"], risks=[0.3], keeps=0.95)
    write_shipping(files, tmp_path / "shipping.parquet", settings)
    row = pl.read_parquet(tmp_path / "shipping.parquet").filter(pl.col("metric") == "coverage_at_risk")
    assert row.select("kept_low", "kept_high", "verdict", "n", "images").rows() == [(1.0, 1.0, "open", 20, 10)]


# Examples.


@pytest.fixture
def examples(scores, mixtures, tmp_path):
    paths = {}
    for name, one in (("good", scores), ("bad", answers(2, lost=0.3))):
        paths[name] = {kind: tmp_path / f"{name}-{kind}.parquet" for kind in ("scores", "decisions", "id", "shift")}
        write_table(one, paths[name]["scores"])
        write_table(mixtures["shift"], tmp_path / "mixture.parquet")
        write_from_scores(
            decide_variant,
            paths[name]["scores"],
            {"shift": tmp_path / "mixture.parquet"},
            [paths[name]["decisions"]],
            **given(DecisionSettings, risks=RISKS, delta=0.1, splits=1, resamples=5, **VARIANT),
        )
        for dataset in ("id", "shift"):
            of_dataset = one.filter(pl.col("dataset") == dataset)
            answered = of_dataset.select("question_id", "split", answer=pl.lit(name))
            write_table(answered, paths[name][dataset])
    questions = {}
    for dataset, size in (("id", (64, 64)), ("shift", (1000, 500))):
        Image.new("RGB", size, "green").save(tmp_path / f"{dataset}.png")
        questions[dataset] = tmp_path / f"{dataset}-questions.parquet"
        asked = scores.filter(pl.col("dataset") == dataset).select(
            "question_id",
            "split",
            image=pl.lit(str(tmp_path / f"{dataset}.png")),
            question=pl.lit("what?"),
            answers=pl.lit(["a", "b"]),
        )
        write_table(asked, questions[dataset])

    def write(**changes) -> pl.DataFrame:
        settings = {"id_dataset": "id", "estimator": "maxprob", "risk": 0.1, "each": 3, "seed": 0}
        write_examples(
            questions,
            {("m", name): paths[name]["scores"] for name in paths},
            {("m", name, dataset): paths[name][dataset] for name in paths for dataset in ("id", "shift")},
            {("m", name): paths[name]["decisions"] for name in paths},
            tmp_path / "examples.parquet",
            **given(ExampleSettings, **settings | changes),
        )
        return pl.read_parquet(tmp_path / "examples.parquet")

    return write


def test_examples_are_of_the_kind_that_threshold_and_quality_say(examples, table) -> None:
    found = examples()
    threshold = table.row(
        by_predicate=(pl.col("estimator") == "maxprob") & (pl.col("dataset") == "id") & (pl.col("risk_limit") == 0.1),
        named=True,
    )["threshold"]
    assert set(found.filter(pl.col("scheme") == "good")["threshold"]) == {threshold}
    for row in found.iter_rows(named=True):
        right, kept = row["quality"] >= 0.5, row["confidence"] >= row["threshold"]
        assert row["kind"] == f"{'right' if right else 'wrong'} and {'kept' if kept else 'abstained'}"
        assert row["answer"] == row["scheme"]
    assert set(found["kind"]) == set(KINDS)
    assert found.group_by("scheme", "dataset", "kind").len()["len"].max() == 3


def test_variants_show_the_same_questions_where_they_agree(examples) -> None:
    found = examples(each=600).filter(pl.col("dataset") == "id")
    places = {}
    for scheme, kind, question in found.select("scheme", "kind", "question_id").iter_rows():
        places.setdefault((scheme, kind), []).append(question)
    for kind in KINDS:
        good, bad = places["good", kind], places["bad", kind]
        assert [name for name in good if name in bad] == [name for name in bad if name in good]


def test_large_pictures_are_made_small_and_small_ones_kept(examples, tmp_path) -> None:
    sizes = {}
    for dataset, picture in examples().select("dataset", "picture").iter_rows():
        (tmp_path / "picture.webp").write_bytes(picture)
        sizes[dataset] = Image.open(tmp_path / "picture.webp").size
    assert sizes == {"id": (64, 64), "shift": (LONGEST_SIDE, LONGEST_SIDE // 2)}


def test_another_seed_draws_others(examples) -> None:
    assert examples()["question_id"].to_list() == examples()["question_id"].to_list()
    assert examples()["question_id"].to_list() != examples(seed=1)["question_id"].to_list()


def test_a_limit_that_was_not_decided_is_refused(examples) -> None:
    with pytest.raises(QuantrustError, match=r"no threshold of maxprob for a risk limit of 0\.07"):
        examples(risk=0.07)
