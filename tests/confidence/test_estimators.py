"""Plain estimators, worked out by hand."""

import math

import polars as pl
import pytest

from quantrust.confidence.catalogue import SHIPPED, plain_estimators
from quantrust.confidence.columns import confidence_columns


def test_the_estimators_that_ship_are_listed_so_that_any_other_is_ones_own():
    assert sorted(SHIPPED) == sorted(plain_estimators())


def test_estimators_of_one_answer_by_hand():
    # Two tokens of probability 0.8 and 0.5; the first one's distribution is (0.8, 0.15, 0.05), logits shifted by 3.
    probabilities = [0.8, 0.15, 0.05]
    features = pl.DataFrame(
        {
            "token_log_probs": [[math.log(0.8), math.log(0.5)]],
            "joint_log_prob": [math.log(0.4)],
            "top_logits": [[math.log(p) + 3 for p in probabilities]],
            "log_sum_exp": [3.0],
            "entropy": [-sum(p * math.log(p) for p in probabilities)],
            "match_scores": [[2.5, 0.75, -1.0]],
        }
    )
    row = features.select(confidence_columns(plain_estimators())).row(0, named=True)
    assert row["maxprob"] == pytest.approx(0.4)
    assert row["length-normalised"] == pytest.approx(math.sqrt(0.4))
    assert row["min-token"] == pytest.approx(0.5)
    assert row["margin"] == pytest.approx(0.65)
    assert row["match-margin"] == pytest.approx(1.75)
    assert row["entropy"] == pytest.approx(sum(p * math.log(p) for p in probabilities))


def test_a_very_improbable_answer_keeps_its_rank():
    features = pl.DataFrame({"joint_log_prob": pl.Series([-90.0, -91.0], dtype=pl.Float32)})
    first, second = features.select(confidence_columns(["maxprob"]))["maxprob"]
    assert first > second > 0
