"""Drift from bf16: single answers that change, and the divergence of the first answer token."""

import math
import weakref
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation import drift_from_bf16
from quantrust.evaluation.drift_from_bf16 import SCHEMA, DriftSettings, first_token_divergence, write_drift

ANSWERS = {
    "bf16": (["a", "b", "c", "d"], [1.0, 0.6, 0.3, 0.0], [0.9, 0.8, 0.4, 0.2]),
    "rtn-w3g64": (["a", "x", "y", "d"], [1.0, 0.0, 1.0, 0.0], [0.9, 0.3, 0.7, 0.2]),
}
SETTINGS = {"reference": "bf16", "id_dataset": "id", "datasets": ["id"], "estimators": ["maxprob"], "seed": 0}
SETTINGS |= {"resamples": 20}


def side(probabilities: list[list[float]], ids: list[list[int]] | None = None) -> pl.DataFrame:
    """The first tokens of answers, as features keep them: logits that are shifted by the logarithm of their sum."""
    ids = [list(range(len(row))) for row in probabilities] if ids is None else ids
    logits = [[math.log(p) + 3.0 for p in row] for row in probabilities]
    schema = {"top_ids": pl.List(pl.Int32), "top_logits": pl.List(pl.Float32), "log_sum_exp": pl.Float32}
    return pl.DataFrame({"top_ids": ids, "top_logits": logits, "log_sum_exp": [3.0] * len(ids)}, schema=schema)


@pytest.fixture
def files(tmp_path: Path) -> tuple[dict, dict]:
    """Scores and features of four questions about two images in test, and of one in val."""
    scores, features = {}, {}
    for scheme, (answers, quality, confidence) in ANSWERS.items():
        names = {"question_id": ["q1", "q2", "q3", "q4", "v"], "split": ["test"] * 4 + ["val"]}
        scored = pl.DataFrame(
            {"dataset": ["id"] * 5, **names, "image_id": ["i", "i", "j", "j", "k"]}
            | {"quality": [*quality, 1.0], "maxprob": [*confidence, 0.5]}
        )
        sure = [[0.5, 0.25, 0.125]] * 5 if scheme == "bf16" else [[0.25, 0.5, 0.125]] * 5
        first = side(sure)
        given_answers = pl.DataFrame({**names, "answer": [*answers, "v"]}).hstack(first)
        scores["m", scheme], features["m", scheme, "id"] = (tmp_path / f"{scheme}-{kind}" for kind in ("s", "f"))
        write_table(scored, scores["m", scheme])
        # The order of the rows does not matter.
        write_table(given_answers.reverse(), features["m", scheme, "id"])
    return scores, features


def measured(files: tuple[dict, dict], tmp_path: Path) -> pl.DataFrame:
    write_drift(*files, tmp_path / "out.parquet", DriftSettings(**SETTINGS))
    return pl.read_parquet(tmp_path / "out.parquet")


def test_changes_are_those_of_counting_by_hand(files, tmp_path) -> None:
    table = measured(files, tmp_path)
    assert table.schema == SCHEMA
    assert table.select("model", "scheme", "dataset", "n", "images").unique().rows() == [("m", "rtn-w3g64", "id", 4, 2)]
    found = {(row["estimator"], row["measure"]): row["value"] for row in table.iter_rows(named=True)}
    assert found == {
        (None, "answers_changed"): 0.5,
        (None, "right_to_wrong"): 0.25,
        (None, "wrong_to_right"): 0.25,
        (None, "kl_divergence"): pytest.approx(0.25 * math.log(2), rel=1e-5),
        ("maxprob", "confidence_change"): pytest.approx((-0.5 + 0.3) / 4),
        ("maxprob", "confidence_moved"): pytest.approx(0.2),
    }
    assert (table["low"] <= table["value"] + 1e-12).all() and (table["value"] <= table["high"] + 1e-12).all()
    # Both images have one answer that changed and one that did not; the changes of confidence differ.
    changed, moved = (
        table.filter(measure=name).row(0, named=True) for name in ("answers_changed", "confidence_change")
    )
    assert changed["low"] == changed["high"] == 0.5 and moved["low"] < moved["high"]


def test_a_study_without_bf16_or_with_nothing_else_has_no_drift(files, tmp_path) -> None:
    for kept in ("bf16", "rtn-w3g64"):
        part = [{key: path for key, path in paths.items() if key[1] == kept} for paths in files]
        assert measured(part, tmp_path).is_empty()


def test_answers_to_other_questions_are_refused(files, tmp_path) -> None:
    scores, features = files
    for path in (scores["m", "rtn-w3g64"], features["m", "rtn-w3g64", "id"]):
        table = pl.read_parquet(path)
        write_table(table.with_columns(pl.col("question_id").replace("q1", "other")), path)
    with pytest.raises(QuantrustError, match="drift of m/rtn-w3g64 on id: it does not answer the questions that bf16"):
        measured(files, tmp_path)


def test_scores_of_other_features_are_refused(files, tmp_path) -> None:
    path = files[1]["m", "rtn-w3g64", "id"]
    write_table(pl.read_parquet(path).filter(pl.col("question_id") != "q1"), path)
    with pytest.raises(QuantrustError, match="has 3 test answers and the scores 4, with 3 in common"):
        measured(files, tmp_path)


def test_beside_the_reference_the_scores_of_one_scheme_are_in_memory_at_a_time(files, tmp_path, monkeypatch) -> None:
    scores, features = files
    others = ("rtn-w3g64", "copy", "another")
    scores = {("m", "bf16"): scores["m", "bf16"]} | {("m", name): scores["m", "rtn-w3g64"] for name in others}
    features = {("m", name, "id"): features["m", "bf16" if name == "bf16" else others[0], "id"] for _, name in scores}
    read, held, most = drift_from_bf16._scores, [], []

    def watched(*arguments):
        found = read(*arguments)
        held.append(weakref.ref(found))
        most.append(sum(one() is not None for one in held))
        return found

    monkeypatch.setattr(drift_from_bf16, "_scores", watched)
    assert measured((scores, features), tmp_path)["scheme"].unique(maintain_order=True).to_list() == list(others)
    assert max(most) == 2


def test_rows_are_by_dataset_and_then_by_scheme(files, tmp_path) -> None:
    scores, features = files
    for scheme in ANSWERS:
        other = pl.read_parquet(scores["m", scheme]).with_columns(dataset=pl.lit("shift"))
        write_table(pl.concat([pl.read_parquet(scores["m", scheme]), other]), scores["m", scheme])
        features["m", scheme, "shift"] = features["m", scheme, "id"]
    scores["m", "copy"] = scores["m", "rtn-w3g64"]
    features |= {("m", "copy", dataset): features["m", "rtn-w3g64", dataset] for dataset in ("id", "shift")}
    write_drift(scores, features, tmp_path / "out.parquet", DriftSettings(**SETTINGS | {"datasets": ["id", "shift"]}))
    found = pl.read_parquet(tmp_path / "out.parquet").select("dataset", "scheme").unique(maintain_order=True).rows()
    assert found == [(dataset, scheme) for dataset in ("id", "shift") for scheme in ("rtn-w3g64", "copy")]


def test_the_divergence_of_whole_distributions_is_the_sum_over_tokens() -> None:
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.ones(6), size=5) for _ in range(2))
    expected = (p * np.log(p / q)).sum(axis=1)
    np.testing.assert_allclose(first_token_divergence(side(p.tolist()), side(q.tolist())), expected, atol=2e-5)
    np.testing.assert_allclose(first_token_divergence(side(p.tolist()), side(p.tolist())), 0.0, atol=1e-6)


def test_tokens_that_are_not_in_both_lists_count_as_one_and_the_divergence_is_a_lower_bound() -> None:
    p, q = np.array([0.5, 0.3, 0.1, 0.06, 0.04]), np.array([0.2, 0.1, 0.4, 0.25, 0.05])
    whole = float((p * np.log(p / q)).sum())
    # The three largest of each: tokens 0, 1, 2 and 2, 3, 0; 0 and 2 are in both.
    before, here = side([[0.5, 0.3, 0.1]], [[0, 1, 2]]), side([[0.4, 0.25, 0.2]], [[2, 3, 0]])
    expected = 0.5 * math.log(0.5 / 0.2) + 0.1 * math.log(0.1 / 0.4) + 0.4 * math.log(0.4 / 0.4)
    (found,) = first_token_divergence(before, here)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found < whole


def test_lists_without_a_common_token_have_a_finite_divergence_of_at_least_0() -> None:
    found = first_token_divergence(side([[0.6, 0.4]], [[0, 1]]), side([[0.7, 0.3]], [[2, 3]]))
    assert found.tolist() == [0.0]


def test_the_divergence_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    sides = [side(rng.dirichlet(np.ones(4), size=7)[:, :3].tolist()) for _ in range(2)]
    whole = first_token_divergence(*sides)
    monkeypatch.setattr(drift_from_bf16, "TOKENS_AT_ONCE", 6)
    np.testing.assert_array_equal(first_token_divergence(*sides), whole)
