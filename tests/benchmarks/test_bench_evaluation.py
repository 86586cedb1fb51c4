"""The benchmark of the evaluation at a tiny size; it checks by itself that its implementations agree."""

import bench_evaluation as bench


def test_three_implementations_agree():
    assert all(seconds > 0 for seconds in bench.compare(300))


def test_point_metrics_and_resamples_run(capsys):
    seconds, gib = bench._all_point_metrics(3000)
    assert seconds > 0 and gib > 0.01
    assert bench.all_resamples(600, 4) > 0
