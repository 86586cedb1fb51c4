"""A learning curve sets each number of labels against MaxProb on the same answers."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantrust.artifacts.tables import write_table
from quantrust.evaluation.comparison import compare
from quantrust.evaluation.learning import SCHEMA, LearningSettings, write_learning_curve
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.results import Estimates
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from settings_given import given

METRICS = [("aurc", None), ("coverage_at_risk", 0.2)]
DRAWS = {"id_dataset": "id", "resamples": 24, "seed": 1}


def scores(noise: float) -> pl.DataFrame:
    """Two networks, which know of the quality what the noise leaves; MaxProb is always the same."""
    parts = []
    for dataset, split, n in (("id", "val", 90), ("id", "test", 240), ("shift", "test", 120)):
        rng = np.random.default_rng([len(dataset), n])
        quality = rng.choice([0.0, 1.0], p=[0.3, 0.7], size=n)
        blurred = [share * rng.random(n) + (1 - share) * quality for share in (0.8, noise, noise)]
        names = {"dataset": [dataset] * n, "split": [split] * n, "quality": quality}
        names |= {
            "question_id": [f"{split}-{k}" for k in range(n)],
            "image_id": [f"{split}-{k // 2}" for k in range(n)],
        }
        columns = dict(zip(("maxprob", "selector", "selector@2"), blurred, strict=True))
        parts.append(pl.DataFrame(names | columns))
    return pl.concat(parts)


def test_a_row_is_the_difference_from_maxprob_of_the_selectors_of_so_many_labels(tmp_path) -> None:
    noises = {100: 0.95, 400: 0.6}
    id_rows, shift = (scores(0.5).filter(dataset=name) for name in ("id", "shift"))
    mixtures = {"shift": mixture_table(id_rows, shift, [0.0], seed=0)}
    write_table(mixtures["shift"], tmp_path / "mixture.parquet")
    paths = {labels: tmp_path / f"{labels}.parquet" for labels in noises}
    for labels, noise in noises.items():
        write_table(scores(noise), paths[labels])
    write_learning_curve(
        paths,
        {"shift": tmp_path / "mixture.parquet"},
        tmp_path / "curve.parquet",
        **given(LearningSettings, model="m", scheme="s", estimators=["selector"], metrics=METRICS, **DRAWS),
    )
    table = pl.read_parquet(tmp_path / "curve.parquet")
    assert table.schema == SCHEMA
    assert table.height == 2 * 2 * len(METRICS)
    for labels, noise in noises.items():
        one = scores(noise)
        expected = compare(Estimates(one, "selector"), Estimates(one, "maxprob"), mixtures, metrics=METRICS, **DRAWS)
        here = table.filter(labels=labels)
        columns = [name for name in expected.columns if name != "p_holm"]
        assert_frame_equal(here.select(columns), expected.select(columns))
        values, _ = evaluate_variant(
            one,
            mixtures,
            **given(
                EvaluationSettings,
                model="m",
                scheme="s",
                estimators=["maxprob", "selector"],
                risks=[0.2],
                costs=[],
                **DRAWS,
            ),
        )
        for row in here.iter_rows(named=True):
            same = values.filter(
                pl.col("dataset") == row["dataset"],
                pl.col("metric") == row["metric"],
                pl.col("parameter").eq_missing(row["parameter"]),
            )
            base, own = (
                same.row(by_predicate=pl.col("estimator") == name, named=True) for name in ("maxprob", "selector")
            )
            assert row["reference"] == base["value"]
            assert row["members"] == pytest.approx([value - base["value"] for value in own["members"]])
            assert row["members"][0] == row["difference"]
    aurc = table.filter(metric="aurc", dataset="id").sort("labels")["difference"]
    assert aurc[1] < 0 < aurc[0]
