"""Metrics are added by one record: whoever computes or writes them asks the records."""

import math

import numpy as np
import polars as pl
import pytest

from quantrust.commands.reliability import AT_COST, AT_RISK
from quantrust.evaluation import metric_records
from quantrust.evaluation.answers import corpus_of
from quantrust.evaluation.intervals import metric_interval
from quantrust.evaluation.metric_records import METRICS, OF_CORPUS, TENTHS, Metric, N, OfOrder, OfSums, metric_named
from quantrust.evaluation.metrics import mean_accuracy, rank
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.summary import deploy, summarise
from quantrust.tasks.task import load_task, task_names

ANSWERS = 40


def by_sums(needs_probability: bool = False) -> Metric:
    """The mean loss of answers, which is 1 less the quality."""
    return Metric(
        "loss",
        "Loss",
        lambda ranking, at: 1 - mean_accuracy(ranking),
        OfSums(lambda ranking, at: {}, lambda sums, at: 1 - sums[TENTHS] / (10 * sums[N])),
        higher_is_better=False,
        needs_probability=needs_probability,
        biased_upwards=True,
    )


def by_order() -> Metric:
    """The same, at each risk limit, from the blocks of a ranking."""
    return Metric(
        "loss_at_risk",
        "Loss at {}",
        lambda ranking, at: at.limit + 1 - mean_accuracy(ranking),
        OfOrder(lambda blocks, at: at.limit + blocks.risk_tenths.sum(axis=1) / (10 * blocks.total)),
        parameter="risk",
        higher_is_better=False,
    )


def test_a_metric_is_added_by_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_records, "METRICS", (*METRICS, by_sums(), by_order()))
    rng = np.random.default_rng(0)
    quality, confidence = rng.choice([0.0, 0.3, 1.0], ANSWERS), rng.random(ANSWERS)
    ranking = rank(quality, confidence)
    values = summarise(ranking, [0.1], [], deploy(ranking, [0.1], []), True)
    assert values["loss", None] == pytest.approx(1 - quality.mean())
    assert values["loss_at_risk", 0.1] == pytest.approx(1.1 - quality.mean())
    # It stands where the tables have metrics of its kind.
    keys = list(values)
    assert keys.index(("loss", None)) == keys.index(("brier", None)) + 1
    assert keys[-1] == ("loss_at_risk", 0.1)

    draws = draw_images(np.arange(ANSWERS), 30, 0)
    resampled = Resampler(quality, draws).evaluate(ranking, [0.1], [], None, True)
    expected = 1 - (draws.counts @ quality) / ANSWERS
    np.testing.assert_allclose(resampled["loss", None], expected)
    np.testing.assert_allclose(resampled["loss_at_risk", 0.1], 0.1 + expected)
    # Reflected, because the record says that it is biased.
    low, high = np.quantile(2 * values["loss", None] - expected, [0.025, 0.975])
    assert metric_interval("loss", values["loss", None], resampled["loss", None]) == pytest.approx((low, high))


def test_a_metric_of_probabilities_is_undefined_for_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_records, "METRICS", (*METRICS, by_sums(needs_probability=True)))
    ranking = rank(np.array([1.0, 0.0]), np.array([3.0, 2.0]))
    assert np.isnan(summarise(ranking, [], [], None, False)["loss", None])
    resampled = Resampler(np.array([1.0, 0.0]), draw_images([0, 1], 5, 0)).evaluate(ranking, [], [], None, False)
    assert np.isnan(resampled["loss", None]).all() and np.isnan(resampled["ece_mass", None]).all()
    assert not np.isnan(resampled["aurc", None]).any()


def test_names_and_labels_are_those_of_one_metric_each() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len({metric.label for metric in METRICS}) == len(names)
    for metric in METRICS:
        assert metric_named(metric.name) is metric
        assert (metric.parameter is not None) == ("{}" in metric.label)
        # A threshold has no interval, and neither a high nor a low one is better.
        assert (metric.resampled is None) == metric.name.endswith(("threshold", "threshold_at_risk"))
        assert (metric.resampled is None) == (metric.higher_is_better is None)


def test_the_command_line_writes_every_metric() -> None:
    groups = [fields.values() for fields in AT_RISK.values()]
    written = {name for fields in (*groups, AT_COST.values()) for name in fields}
    assert written == {metric.name for metric in METRICS if metric.parameter is not None}


def test_a_metric_of_all_answers_together_is_there_for_the_tasks_that_have_it() -> None:
    rng = np.random.default_rng(0)
    quality, confidence, added = rng.random(ANSWERS), rng.random(ANSWERS), 10 * rng.random(ANSWERS)
    without, own = rank(quality, confidence), rank(quality, confidence, {"cider_d": added})
    assert ("cider_d", None) not in summarise(without, [], [], None, True)
    assert summarise(own, [], [], None, True)["cider_d", None] == pytest.approx(added.mean())
    # Two answers an image; a resample counts what an answer adds as often as its image was drawn.
    draws = draw_images(np.repeat(np.arange(ANSWERS // 2), 2), 30, 0)
    resampled = Resampler(quality, draws).evaluate(own, [], [], None, True)["cider_d", None]
    np.testing.assert_allclose(resampled, draws.counts[:, draws.image] @ added / ANSWERS)
    assert ("cider_d", None) not in Resampler(quality, draws).evaluate(without, [], [], None, True)


def test_a_recall_is_of_the_queries_of_its_kind_alone() -> None:
    rng = np.random.default_rng(0)
    quality, confidence = rng.random(ANSWERS), rng.random(ANSWERS)
    hits = np.where(rng.random(ANSWERS) < 0.3, math.nan, (rng.random(ANSWERS) < 0.5).astype(float))
    ranking = rank(quality, confidence, {"text_to_image_r5": hits})
    key, own = ("text_to_image_r5", None), ~np.isnan(hits)
    assert summarise(ranking, [], [], None, False)[key] == pytest.approx(hits[own].mean())
    draws = draw_images(np.repeat(np.arange(ANSWERS // 2), 2), 30, 0)
    resampled = Resampler(quality, draws).evaluate(ranking, [], [], None, False)[key]
    counts = draws.counts[:, draws.image]
    np.testing.assert_allclose(resampled, counts[:, own] @ hits[own] / counts[:, own].sum(axis=1))


def test_every_metric_of_all_answers_together_has_a_record() -> None:
    names = {name for task in task_names() for name in load_task(task).further_metrics}
    assert names == set(OF_CORPUS)


def test_answers_of_a_task_without_the_metric_leave_it_undefined() -> None:
    answers = pl.DataFrame({"quality": [1.0, 0.0], "maxprob": [0.9, 0.1], "cider_d": [2.0, None]})
    ranking = rank(answers["quality"], answers["maxprob"], corpus_of(answers))
    assert np.isnan(summarise(ranking, [], [], None, True)["cider_d", None])
    resampled = Resampler(np.array([1.0, 0.0]), draw_images([0, 1], 5, 0)).evaluate(ranking, [], [], None, True)
    assert np.isnan(resampled["cider_d", None]).all() and not np.isnan(resampled["accuracy", None]).any()
