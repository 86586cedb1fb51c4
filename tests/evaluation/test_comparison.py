import math
import weakref

import numpy as np
import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation import comparison
from quantrust.evaluation.comparison import (
    SCHEMA,
    ComparisonSettings,
    compare,
    holm,
    two_sided_p_value,
    write_comparisons,
)
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.results import Estimates
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from resampled import resampled
from settings_given import given

METRICS = [("accuracy", None), ("aurc", None), ("coverage_at_risk", 0.2), ("effective_reliability", 10.0)]
SETTINGS = {"id_dataset": "id", "resamples": 99, "seed": 0}


def variant(noise, flips, seed):
    """Answers to the same questions; `noise` blurs the confidence, `flips` of the right answers are lost."""
    rng = np.random.default_rng(0)
    parts = []
    for dataset, split, n in (("id", "val", 200), ("id", "test", 600), ("shift", "test", 300)):
        quality = rng.choice([0, 0.6, 1.0], p=[0.3, 0.1, 0.6], size=n)
        own = np.random.default_rng([seed, n])
        quality = np.where(own.random(n) < flips, 0.0, quality)
        confidence = np.clip((1 - noise) * quality + noise * own.random(n), 0, 1)
        parts.append(
            pl.DataFrame(
                {
                    "dataset": [dataset] * n,
                    "split": [split] * n,
                    "question_id": [f"{split}-{index}" for index in range(n)],
                    "image_id": [f"{split}-{index // 2}" for index in range(n)],
                    "quality": quality,
                    "maxprob": confidence,
                    "blurred": 0.3 * confidence + 0.7 * own.random(n),
                }
            )
        )
    return pl.concat(parts)


@pytest.fixture(scope="module")
def good():
    return variant(0.6, 0.0, 1)


@pytest.fixture(scope="module")
def mixtures(good):
    id_rows, shift = good.filter(pl.col("dataset") == "id"), good.filter(pl.col("dataset") == "shift")
    return {"shift": mixture_table(id_rows, shift, [0.5, 0.0], seed=0)}


def test_a_variant_does_not_differ_from_itself(good, mixtures):
    same = Estimates(good, "maxprob")
    table = compare(same, same, mixtures, metrics=METRICS, **SETTINGS)
    assert table.height == 3 * len(METRICS)
    assert table.select("difference", "low", "high").unique().rows() == [(0.0, 0.0, 0.0)]
    assert table["p_value"].unique().to_list() == [1.0]


def test_a_worse_variant_is_found_out(good, mixtures):
    bad = variant(0.6, 0.3, 2)
    table = compare(Estimates(good, "maxprob"), Estimates(bad, "maxprob"), mixtures, metrics=METRICS, **SETTINGS)
    accuracy = table.filter(pl.col("metric") == "accuracy")
    assert (accuracy["difference"] > 0.1).all()
    assert (accuracy["low"] > 0).all()
    assert accuracy["p_value"].to_list() == [0.02] * 3
    assert (table["p_holm"] >= table["p_value"]).all()


def test_differences_are_those_of_the_metrics_table(good, mixtures):
    bad = variant(0.6, 0.3, 2)
    table = compare(Estimates(good, "maxprob"), Estimates(bad, "blurred"), mixtures, metrics=METRICS, **SETTINGS)
    settings = {"model": "m", "scheme": "s", "risks": [0.2], "costs": [10.0], **SETTINGS}
    one, _ = evaluate_variant(good, mixtures, **given(EvaluationSettings, estimators=["maxprob"], **settings))
    other, _ = evaluate_variant(bad, mixtures, **given(EvaluationSettings, estimators=["blurred"], **settings))
    keys = ["dataset", "id_share", "metric", "parameter"]
    joined = table.join(one, on=keys, nulls_equal=True).join(other, on=keys, nulls_equal=True, suffix="_other")
    assert joined.height == table.height
    expected = joined["value"] - joined["value_other"]
    assert joined["difference"].to_list() == pytest.approx(expected.to_list())


def test_pairing_makes_the_interval_of_a_difference_narrower(good, mixtures):
    blurred = compare(Estimates(good, "maxprob"), Estimates(good, "blurred"), mixtures, metrics=METRICS, **SETTINGS)
    row = blurred.filter((pl.col("metric") == "aurc") & (pl.col("dataset") == "id")).row(0, named=True)
    settings = {"model": "m", "scheme": "s", "risks": [0.2], "costs": [10.0], **SETTINGS}
    table, _ = evaluate_variant(
        good, mixtures, **given(EvaluationSettings, estimators=["maxprob", "blurred"], **settings)
    )
    single = table.filter((pl.col("metric") == "aurc") & (pl.col("dataset") == "id"))
    widths = (single["high"] - single["low"]).to_list()
    assert row["high"] - row["low"] < 0.9 * math.hypot(*widths)
    assert row["difference"] < 0


def test_an_undefined_difference_is_null_and_no_test(good, mixtures):
    shifted = good.with_columns(entropy=-pl.col("maxprob"))
    pair = Estimates(shifted, "maxprob"), Estimates(shifted, "entropy")
    table = compare(*pair, mixtures, metrics=[("ece", None), ("aurc", None)], **SETTINGS)
    ece = table.filter(pl.col("metric") == "ece")
    assert ece.select("difference", "low", "high", "p_value", "p_holm").unique().rows() == [(None,) * 5]
    # Three tests remain, so that the smallest p-value is multiplied by three.
    assert table["p_holm"].min() == pytest.approx(3 * table["p_value"].min())


def test_an_undefined_metric_stays_undefined_in_a_file(tmp_path, good):
    write_table(good.with_columns(entropy=-pl.col("maxprob")), tmp_path / "scores.parquet")
    metrics = [("ece", None), ("aurc", None)]
    paths = {("m", "bf16"): tmp_path / "scores.parquet"}
    files = resampled(paths, {}, tmp_path, estimators=["maxprob", "entropy"], metrics=metrics, **SETTINGS)
    pairs = [(("m", "bf16", "entropy"), ("m", "bf16", "maxprob"))]
    write_comparisons(files, tmp_path / "out.parquet", ComparisonSettings(pairs, metrics))
    found = pl.read_parquet(tmp_path / "out.parquet").select("metric", "difference", "p_holm").rows()
    assert found[0] == ("ece", None, None)
    assert found[1][0] == "aurc" and found[1][1] > 0


def test_other_questions_are_refused(good, mixtures):
    renamed = good.with_columns(question_id="x" + pl.col("question_id"))
    tables = {"shift": mixtures["shift"].filter(pl.col("id_share") == 2)}
    with pytest.raises(QuantrustError, match="comparison on id: the two sides do not answer the same questions"):
        compare(Estimates(good, "maxprob"), Estimates(renamed, "maxprob"), tables, metrics=METRICS, **SETTINGS)


@pytest.mark.parametrize("metric", [("f1", None), ("deployed_threshold", 0.2)])
def test_what_is_not_resampled_is_refused(good, mixtures, metric):
    same = Estimates(good, "maxprob")
    with pytest.raises(QuantrustError, match=f"no metric .*{metric[0]}"):
        compare(same, same, mixtures, metrics=[metric], **SETTINGS)


def test_a_file_of_comparisons_is_corrected_as_a_whole(tmp_path, good, mixtures):
    bad = variant(0.6, 0.3, 2)
    paths = {("m", "bf16"): tmp_path / "good.parquet", ("m", "rtn-w2c"): tmp_path / "bad.parquet"}
    write_table(good, paths["m", "bf16"])
    write_table(bad, paths["m", "rtn-w2c"])
    write_table(mixtures["shift"], tmp_path / "shift.parquet")
    pairs = [
        (("m", "bf16", "maxprob"), ("m", "rtn-w2c", "maxprob")),
        (("m", "bf16", "maxprob+isotonic"), ("m", "bf16", "blurred")),
        (("m", "bf16", "blurred"), ("m", "rtn-w2c", "blurred")),
    ]
    settings = {"estimators": ["maxprob", "maxprob+isotonic", "blurred"], "metrics": METRICS, **SETTINGS}
    files = resampled(paths, {"shift": tmp_path / "shift.parquet"}, tmp_path, **settings)
    write_comparisons(files, tmp_path / "out.parquet", ComparisonSettings(pairs, METRICS))
    table = pl.read_parquet(tmp_path / "out.parquet")
    names = [f"{place}_{name}" for place in ("first", "second") for name in ("model", "scheme", "estimator")]
    assert table.columns == [*names, *SCHEMA.names()]
    assert table.select(names).unique(maintain_order=True).rows() == [(*one, *other) for one, other in pairs]
    single = compare(Estimates(good, "maxprob"), Estimates(bad, "maxprob"), mixtures, metrics=METRICS, **SETTINGS)
    whole = single.filter(pl.col("id_share").is_in([0.0, 1.0]))
    assert whole.height == 8
    assert table.head(8).select(SCHEMA.names()).drop("p_holm").equals(whole.drop("p_holm"))
    # Accuracy is that of answers, which do not depend on the estimator: it differs between variants, and once.
    metrics = [name for name, _ in METRICS]
    assert table["metric"].to_list() == 2 * metrics + 4 * metrics[1:]
    assert table["p_holm"].min() == pytest.approx(20 * table["p_value"].min())


@pytest.mark.parametrize(("resamples", "too_few"), [(318, True), (319, False)])
def test_resamples_that_are_too_few_for_the_correction_are_named_in_the_log(
    tmp_path, good, mixtures, caplog, resamples, too_few
):
    """Of eight differences none has a corrected p-value below 16 / (resamples + 1), which is 5 % at 319."""
    for name, scores in (("bf16", good), ("rtn-w2c", variant(0.6, 0.3, 2))):
        write_table(scores, tmp_path / f"{name}.parquet")
    write_table(mixtures["shift"], tmp_path / "shift.parquet")
    paths = {("m", name): tmp_path / f"{name}.parquet" for name in ("bf16", "rtn-w2c")}
    pairs = [(("m", "bf16", "maxprob"), ("m", "rtn-w2c", "maxprob"))]
    settings = SETTINGS | {"estimators": ["maxprob"], "metrics": METRICS, "resamples": resamples}
    files = resampled(paths, {"shift": tmp_path / "shift.parquet"}, tmp_path, **settings)
    write_comparisons(files, tmp_path / "out.parquet", ComparisonSettings(pairs, METRICS))
    assert ("comparison.resamples is 318, and 8 differences" in caplog.text) == too_few
    lowest = pl.read_parquet(tmp_path / "out.parquet")["p_holm"].min()
    assert lowest == pytest.approx(16 / (resamples + 1))
    assert (lowest > 0.05) == too_few


def test_beside_the_reference_one_variant_is_in_memory_at_a_time(tmp_path, good, monkeypatch):
    write_table(good, tmp_path / "scores.parquet")
    of_one = {("m", "bf16"): tmp_path / "scores.parquet"}
    metrics = [("aurc", None)]
    (file,) = resampled(of_one, {}, tmp_path, estimators=["blurred", "maxprob"], metrics=metrics, **SETTINGS).values()
    schemes = ["bf16", "a", "b", "c"]
    pairs = [(("m", scheme, "maxprob"), ("m", "bf16", "maxprob")) for scheme in schemes[1:]]
    pairs += [(("m", scheme, "blurred"), ("m", scheme, "maxprob")) for scheme in schemes]
    read, held, most = comparison.read_resampled, [], []

    def watched(path):
        found = read(path)
        held.append(weakref.ref(found["maxprob"][0]))
        most.append(sum(one() is not None for one in held))
        return found

    monkeypatch.setattr(comparison, "read_resampled", watched)
    settings = ComparisonSettings(pairs, metrics)
    write_comparisons({("m", scheme): file for scheme in schemes}, tmp_path / "out.parquet", settings)
    assert max(most) == 2
    table = pl.read_parquet(tmp_path / "out.parquet")
    # The rows are in the order of the pairs all the same.
    assert table.select("first_scheme", "first_estimator").rows() == [first[1:] for first, _ in pairs]


def test_nothing_to_compare_is_an_empty_table(tmp_path):
    write_comparisons({}, tmp_path / "out.parquet", ComparisonSettings([], METRICS))
    assert pl.read_parquet(tmp_path / "out.parquet").height == 0


def test_a_shift_of_which_a_mixture_holds_a_part_is_compared_as_a_whole(tmp_path, good, mixtures):
    write_table(good, tmp_path / "scores.parquet")
    part = mixtures["shift"].filter((pl.col("id_share") > 0) | pl.col("question_id").str.ends_with("1"))
    write_table(part, tmp_path / "shift.parquet")
    pairs = [(("m", "bf16", "blurred"), ("m", "bf16", "maxprob"))]
    paths = {("m", "bf16"): tmp_path / "scores.parquet"}, {"shift": tmp_path / "shift.parquet"}
    metrics = [("aurc", None)]
    files = resampled(*paths, tmp_path, estimators=["blurred", "maxprob"], metrics=metrics, **SETTINGS)
    write_comparisons(files, tmp_path / "out.parquet", ComparisonSettings(pairs, metrics))
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert table.select("dataset", "id_share", "n").rows() == [("id", 1.0, 600), ("shift", None, 300)]


def test_p_values_count_both_sides_of_zero():
    assert two_sided_p_value(np.full(99, 1.0)) == 0.02
    assert two_sided_p_value(-np.full(99, 1.0)) == 0.02
    assert two_sided_p_value(np.array([-1.0] * 9 + [1.0] * 90)) == pytest.approx(0.2)
    assert two_sided_p_value(np.array([1.0] * 9 + [np.nan] * 90)) == pytest.approx(0.2)
    assert math.isnan(two_sided_p_value(np.array([np.nan])))


def test_p_values_of_no_difference_are_uniform():
    # Means of images drawn from one population: a level of 10 % rejects about 10 % of the time.
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        sample = rng.normal(size=60)
        means = sample[rng.integers(60, size=(199, 60))].mean(axis=1)
        p_values.append(two_sided_p_value(means))
    assert 0.06 < np.mean(np.array(p_values) <= 0.1) < 0.15


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, the last raised to the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    found = holm([math.nan, 0.01])
    assert math.isnan(found[0])
    assert found[1] == 0.01
