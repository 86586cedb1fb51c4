"""C@R and Phi as their definitions read, row by row; written for the benchmark, not used by the package.

The threshold search adds up the gains of the first k answers anew for every k, over a NumPy array, as the released
evaluator of selective VQA does: n^2 / 2 additions for each cost.
"""

import numpy as np


def ranked(quality, confidence):
    """Return (confidence, quality) pairs, most confident first."""
    return sorted(zip(confidence, quality, strict=True), key=lambda pair: -pair[0])


def coverage_at_risk(pairs, limit):
    """Return coverage and threshold: walk back from the last answer until the mean risk keeps the limit."""
    n = len(pairs)
    risks, total = [], 0.0
    for count, (_, quality) in enumerate(pairs, start=1):
        total += 1.0 - quality
        risks.append(total / count)
    index = n - 1
    while index >= 0 and risks[index] > limit:
        index -= 1
    while 0 <= index < n - 1 and (pairs[index][0] == pairs[index + 1][0] or risks[index] > limit):
        index -= 1
    return ((index + 1) / n, pairs[index][0]) if index >= 0 else (0.0, None)


def gain(quality, cost):
    """Return what an answer adds to Phi."""
    return quality if quality > 0 else -cost


def best_threshold(pairs, cost):
    """Return the lowest of the thresholds with the largest sum of gains."""
    gains = np.array([gain(quality, cost) for _, quality in pairs])
    sums = np.array([sum(gains[: count + 1]) for count in range(len(gains))])
    last = np.where(sums == sums.max())[0][-1]
    return pairs[last][0] if sums[last] >= 0 else None


def effective_reliability(pairs, cost, threshold):
    """Return Phi under a threshold."""
    total = 0.0
    for confidence, quality in pairs:
        if threshold is not None and confidence >= threshold:
            total += gain(quality, cost)
    return total / len(pairs)


def evaluate(val, test, risks, costs):
    """Return C@R of the test answers at all risks and Phi at all costs with thresholds from val."""
    val, test = ranked(*val), ranked(*test)
    at_risk = [coverage_at_risk(test, risk) for risk in risks]
    thresholds = [best_threshold(val, cost) for cost in costs]
    phi = [effective_reliability(test, cost, t) for cost, t in zip(costs, thresholds, strict=True)]
    return at_risk, thresholds, phi
