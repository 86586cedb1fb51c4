"""Speed of the evaluation against two plain implementations in the same run, on the same data, and at size.

Usage: PYTHONPATH=workflow/scripts python benchmarks/bench_evaluation.py [--quick]
"""

import argparse
import multiprocessing
import statistics
import time

import numpy as np
from tqdm import tqdm

from baselines import by_definition, plain_loop
from measuring import peak_memory
from quantrust.evaluation import metrics
from quantrust.evaluation.intervals import metric_interval
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.summary import deploy, summarise

RISKS = [0.005, 0.01, 0.05, 0.1, 0.2]
COSTS = [1.0, 10.0, 100.0]


def draw(n, seed):
    """Draw n answers with distinct confidences, soft accuracies and three questions an image."""
    rng = np.random.default_rng(seed)
    confidence = rng.permutation(n) / n + 0.5 / n
    right = rng.random(n) < confidence**0.25
    quality = np.where(right, rng.choice([0.3, 0.6, 0.9, 1.0], p=[0.02, 0.03, 0.05, 0.9], size=n), 0.0)
    return quality, confidence, np.arange(n) // 3


def vectorised(val, test):
    """Compute what the plain implementations do."""
    val, test = rank(*val), rank(*test)
    at_risk = [metrics.coverage_at_risk(test, risk) for risk in RISKS]
    thresholds = [metrics.effective_reliability_threshold(val, cost) for cost in COSTS]
    phi = [metrics.effective_reliability(test, cost, t) for cost, t in zip(COSTS, thresholds, strict=True)]
    return [(point.coverage, point.threshold) for point in at_risk], thresholds, phi


def timed(function, *arguments):
    """Return the result and the seconds it took."""
    started = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - started


def assert_same(one, other):
    """Check that two implementations found the same numbers, but for rounding."""
    for left, right in zip(one, other, strict=True):
        for a, b in zip(np.ravel(left), np.ravel(right), strict=True):
            assert (a is None and b is None) or abs(a - b) < 1e-9, (one, other)


def compare(n):
    """Time the three implementations of C@R and Phi with threshold selection."""
    val, test = draw(n, 0)[:2], draw(n, 1)[:2]
    vectorised(val, test)
    runs = [timed(vectorised, val, test) for _ in range(15)]
    fast, fast_s = runs[0][0], statistics.median(seconds for _, seconds in runs)
    lists = [tuple(column.tolist() for column in side) for side in (val, test)]
    loops = [timed(plain_loop.evaluate, *lists, RISKS, COSTS) for _ in range(3)]
    loop_s = statistics.median(seconds for _, seconds in loops)
    slow, slow_s = timed(by_definition.evaluate, *lists, RISKS, COSTS)
    assert_same(fast, loops[0][0])
    assert_same(fast, slow)
    return fast_s, loop_s, slow_s


def all_point_metrics(n):
    """Rank n answers and compute every point metric, in a process of its own so that its peak memory can be read."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_all_point_metrics, (n,))


def _all_point_metrics(n):
    quality, confidence, _ = draw(n, 2)
    val = rank(*draw(20_000, 3)[:2])

    def run():
        ranking = rank(quality, confidence)
        return summarise(ranking, RISKS, COSTS, deploy(val, RISKS, COSTS), is_probability=True)

    values, seconds = timed(run)
    assert len(values) == 8 + 5 * 5 + 3 * 6
    return seconds, peak_memory() / 2**30


def all_resamples(n, resamples):
    """Resample the images of n answers and compute every metric with its interval."""
    quality, confidence, image = draw(n, 4)

    def run():
        ranking = rank(quality, confidence)
        resampler = Resampler(quality, draw_images(image, resamples, 0))
        deployment = deploy(ranking, RISKS, COSTS)
        with tqdm(total=resamples, unit="resample") as bar:
            values = resampler.evaluate(ranking, RISKS, COSTS, deployment, is_probability=True, progress=bar.update)
        points = summarise(ranking, RISKS, COSTS, deployment, is_probability=True)
        return {key: metric_interval(key[0], points[key], resampled) for key, resampled in values.items()}

    return timed(run)[1]


def main():
    """Run everything and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of every size, to see that it runs")
    scale = 10 if parser.parse_args().quick else 1
    n = 40_000 // scale
    fast, loop, slow = compare(n)
    large = 10_000_000 // scale
    point_s, point_gib = all_point_metrics(large)
    many, resamples = 100_000 // scale, 2000 // scale
    resample_s = all_resamples(many, resamples)
    rows = [
        (f"C@R at 5 risks and Phi at 3 costs, {n:,} answers: quantrust", f"{fast * 1e3:.1f} ms", ""),
        ("- by definition, quadratic threshold search", f"{slow:.1f} s", f"{slow / fast:,.0f} times (1,000)"),
        ("- plain Python loop, O(n log n)", f"{loop * 1e3:.0f} ms", f"{loop / fast:,.0f} times (20)"),
        (f"all point metrics, {large:,} answers", f"{point_s:.1f} s, peak {point_gib:.2f} GiB", "(10 s, 4 GB)"),
        (f"{resamples:,} resamples of all metrics, {many:,} answers", f"{resample_s:.1f} s", "(60 s)"),
    ]
    print("| what | measured | ratio (target) |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
