import numpy as np
import polars as pl
import pytest

from quantrust.evaluation.simulation import SMOOTH, draw_answers, interval_coverage


def test_answers_of_one_image_are_alike():
    quality, confidence, image = draw_answers(4000, np.random.default_rng(0))
    assert set(quality.tolist()) == {0.0, 0.3, 0.6, 0.9, 1.0}
    assert 0 < confidence.min() < confidence.max() < 1
    questions = np.bincount(image)
    assert (questions.min(), questions.max()) == (1, 5)
    means = np.bincount(image, quality)[questions == 5] / 5
    assert means.var() > 1.5 * quality.var() / 5


def test_a_row_for_each_metric_and_shares_that_add_up():
    table = interval_coverage(
        images=40, data_sets=4, resamples=20, risks=[0.1], costs=[1.0], seed=0, population_images=2000
    )
    assert not table.select("metric", "parameter").is_duplicated().any()
    assert (table["coverage"] + table["below"] + table["above"]).to_list() == pytest.approx([1.0] * table.height)


@pytest.mark.slow
def test_intervals_of_smooth_metrics_keep_their_word():
    table = interval_coverage(images=400, data_sets=1000, resamples=400, risks=[0.05], costs=[10.0], seed=0)
    smooth = table.filter(pl.col("metric").is_in(SMOOTH))
    assert smooth.height == len(SMOOTH)
    assert smooth["coverage"].is_between(0.93, 0.97).all()
