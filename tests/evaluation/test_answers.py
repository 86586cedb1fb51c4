"""What is read of scores."""

import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.evaluation.answers import OF_QUESTIONS, read_scores


@pytest.mark.parametrize(
    ("estimators", "confidences"),
    [
        (["maxprob"], ["maxprob"]),
        (["maxprob+platt"], ["maxprob", "maxprob+platt"]),
        # All members, not calibrated yet.
        (["selector+isotonic"], ["selector", "selector@2"]),
        (["unknown"], []),
    ],
)
def test_scores_are_read_with_the_columns_of_the_estimators_alone(tmp_path, estimators, confidences) -> None:
    names = ["question_kind", "entropy", "maxprob", "maxprob+platt", "selector", "selector@2", "selector-residual"]
    table = pl.DataFrame({name: [0.5] for name in (*OF_QUESTIONS, *names)})
    write_table(table, tmp_path / "scores.parquet")
    assert read_scores(tmp_path / "scores.parquet", estimators).equals(table.select(*OF_QUESTIONS, *confidences))
    further = read_scores(tmp_path / "scores.parquet", estimators, ["question_kind", "topic"])
    assert further.equals(table.select(*OF_QUESTIONS, "question_kind", *confidences))
