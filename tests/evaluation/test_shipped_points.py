"""What ships: thresholds of val, and certificates on every ID test image."""

import dataclasses
import json

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from quantrust.artifacts.row_groups import writing_row_groups
from quantrust.artifacts.tables import write_table
from quantrust.evaluation.certification import certify, fewest_faultless
from quantrust.evaluation.decisions import DecisionSettings, decide_variant
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.operating_points import CERTIFIED, VAL, Conditions, read_operating_points
from quantrust.evaluation.shared_delta import candidates_by_limit
from quantrust.evaluation.shipped_points import (
    PointSettings,
    one_question_of_each_image,
    shipped_points,
    write_shipped_points,
)

VARIANT = {"model": "m", "scheme": "s"}
SETTINGS = PointSettings("id", 2, True, ["maxprob", "noisy"], [0.2, 0.1, 0.001], 0.1, resamples=20, seed=3)


@pytest.fixture(scope="module")
def scores() -> pl.DataFrame:
    parts = []
    for dataset, split, images in (("id", "val", 200), ("id", "test", 500), ("shift", "test", 80)):
        rng = np.random.default_rng(images)
        image = np.repeat(np.arange(images), 3)
        ease = rng.normal(size=images)[image] + rng.normal(size=image.size) + (1.5 if dataset == "id" else 0.0)
        surely = 1 / (1 + np.exp(-2 * ease))
        parts.append(
            pl.DataFrame(
                {
                    "dataset": dataset,
                    "split": split,
                    "question_id": [f"{split}-{place}" for place in range(image.size)],
                    "image_id": [f"{split}-{one}" for one in image],
                    "quality": (rng.random(image.size) < surely).astype(float),
                    "maxprob": surely,
                    "noisy": surely * rng.random(image.size),
                }
            )
        )
    return pl.concat(parts)


@pytest.fixture(scope="module")
def mixtures(scores) -> dict[str, pl.DataFrame]:
    id_rows, shift = (scores.filter(pl.col("dataset") == name) for name in ("id", "shift"))
    return {"shift": mixture_table(id_rows, shift, [1.0, 0.0], seed=0)}


@pytest.fixture(scope="module")
def found(scores, mixtures):
    return shipped_points(scores, mixtures, **VARIANT, settings=SETTINGS)


def of_kind(points, kind):
    return {(one.estimator, one.risk_limit): one for one in points if one.kind == kind}


def test_every_id_test_image_certifies_with_one_question(scores, found) -> None:
    points, certification = found
    assert (certification.questions, certification.images) == (500, 500)
    for point in of_kind(points, CERTIFIED).values():
        assert (point.dataset, point.split, point.questions, point.images) == ("id", "test", 500, 500)
        assert point.delta == 0.1
    assert of_kind(points, CERTIFIED)


def test_certificates_are_those_of_walks_with_a_share_of_delta(scores, found) -> None:
    """The limit of 0.1 % is too low for 500 images and hands its third of a quarter of delta to the next, 20 %."""
    points, certification = found
    test = scores.filter((pl.col("dataset") == "id") & (pl.col("split") == "test"))
    chosen = one_question_of_each_image(test, SETTINGS.seed)
    val = scores.filter(pl.col("split") == "val")
    share = 0.1 / 4
    for estimator in SETTINGS.estimators:
        candidates = candidates_by_limit(rank(val["quality"], val[estimator]), 500, SETTINGS.risks, share)
        assert not candidates[0.001].size
        for risk, part in ((0.2, share * 2 / 3), (0.1, share / 3)):
            expected = certify(chosen["quality"].to_numpy(), chosen[estimator].to_numpy(), candidates[risk], risk, part)
            point = of_kind(points, CERTIFIED).get((estimator, risk))
            sought = next(one for one in certification.sought if (one.estimator, one.risk_limit) == (estimator, risk))
            if expected == candidates[risk][-1]:
                pytest.fail("a limit that is through hands its part on: take another population")
            assert (point and point.threshold) == expected
            assert (sought.part, sought.found) == (pytest.approx(part), expected is not None)
            assert sought.fewest == fewest_faultless(risk, sought.part)


def test_thresholds_of_val_and_what_they_do_are_those_of_the_decisions(scores, mixtures, found) -> None:
    settings = DecisionSettings("id", ["maxprob", "noisy"], [0.2, 0.1], 0.1, splits=2, resamples=20, seed=3)
    table = decide_variant(scores, mixtures, **VARIANT, settings=settings)
    points = of_kind(found[0], VAL)
    for row in table.iter_rows(named=True):
        point = points[row["estimator"], row["risk_limit"]]
        assert point.threshold == row["threshold"]
        assert (point.split, point.images, point.delta) == ("val", 200, None)
        (measured,) = (one for one in point.measured if one.dataset == row["dataset"])
        for column in ("coverage", "coverage_low", "coverage_high", "risk", "risk_low", "risk_high"):
            assert getattr(measured, column) == row[f"deployed_{column}"]
        assert (measured.questions, measured.images) == (row["n"], row["images"])


def test_certified_thresholds_are_measured_on_every_question(scores, found) -> None:
    for point in of_kind(found[0], CERTIFIED).values():
        assert [one.dataset for one in point.measured] == ["id", "shift"]
        for measured in point.measured:
            asked = scores.filter((pl.col("dataset") == measured.dataset) & (pl.col("split") == "test"))
            answered = asked.filter(pl.col(point.estimator) >= point.threshold)
            assert (measured.questions, measured.answered) == (asked.height, answered.height)
            assert measured.coverage == answered.height / asked.height
            assert measured.risk == pytest.approx(1 - answered["quality"].mean())
            assert measured.coverage_low <= measured.coverage <= measured.coverage_high


def test_a_scheme_that_was_not_declared_has_thresholds_and_no_certificate(scores, mixtures, found) -> None:
    undeclared = dataclasses.replace(SETTINGS, ships=False)
    points, certification = shipped_points(scores, mixtures, **VARIANT, settings=undeclared)
    assert certification is None
    assert points == tuple(one for one in found[0] if one.kind == VAL)


def test_the_order_of_rows_does_not_matter(scores, mixtures, found) -> None:
    shuffled = scores.sample(fraction=1, shuffle=True, seed=4)
    assert shipped_points(shuffled, mixtures, **VARIANT, settings=SETTINGS) == found


def test_another_scheme_with_the_same_questions_is_certified_on_the_same_ones(scores) -> None:
    test = scores.filter((pl.col("dataset") == "id") & (pl.col("split") == "test"))
    one, other = (one_question_of_each_image(rows, seed=0) for rows in (test, test.with_columns(maxprob=0.5).reverse()))
    assert one["question_id"].equals(other["question_id"])
    assert one["image_id"].n_unique() == one.height == 500


def test_the_file_says_on_what_the_variant_answered(tmp_path, scores, mixtures, found) -> None:
    write_table(scores, tmp_path / "scores.parquet")
    write_table(mixtures["shift"], tmp_path / "shift.parquet")
    notes = {
        "settings": json.dumps({"dtype": "bfloat16"}),
        "device": "cpu",
        "attention": "eager",
        "kernels": json.dumps({"reference": 3}),
        "weights_sha256": "ab" * 32,
    }
    schema = pa.schema([("question_id", pa.string())])
    with writing_row_groups(tmp_path / "features.parquet", schema, ()) as writer:
        writer.describe(notes)

    write_shipped_points(
        *(tmp_path / "scores.parquet", {"shift": tmp_path / "shift.parquet"}, tmp_path / "features.parquet"),
        tmp_path / "points.json",
        **VARIANT,
        settings=SETTINGS,
    )

    read = read_operating_points(tmp_path / "points.json")
    assert read.conditions == Conditions("cpu", "bfloat16", "reference", "eager")
    assert read.weights_sha256 == "ab" * 32
    assert (read.points, read.certification) == found
