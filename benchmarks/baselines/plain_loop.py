"""C@R and Phi in O(n log n) with plain Python loops over lists; written for the benchmark, not used by the package."""


def coverage_at_risk(pairs, limit):
    """Return coverage and threshold at the last block end whose mean risk keeps the limit."""
    n, total = len(pairs), 0.0
    best = (0.0, None)
    for index, (confidence, quality) in enumerate(pairs):
        total += 1.0 - quality
        ends_block = index == n - 1 or pairs[index + 1][0] != confidence
        if ends_block and total <= limit * (index + 1):
            best = ((index + 1) / n, confidence)
    return best


def best_threshold(pairs, cost):
    """Return the lowest of the thresholds with the largest sum of gains."""
    n, total = len(pairs), 0.0
    best, threshold = 0.0, None
    for index, (confidence, quality) in enumerate(pairs):
        total += quality if quality > 0 else -cost
        if (index == n - 1 or pairs[index + 1][0] != confidence) and total >= best:
            best, threshold = total, confidence
    return threshold


def effective_reliability(pairs, cost, threshold):
    """Return Phi under a threshold."""
    if threshold is None:
        return 0.0
    total = 0.0
    for confidence, quality in pairs:
        if confidence < threshold:
            break
        total += quality if quality > 0 else -cost
    return total / len(pairs)


def evaluate(val, test, risks, costs):
    """Return C@R of the test answers at all risks and Phi at all costs with thresholds from val."""
    val, test = (sorted(zip(side[1], side[0], strict=True), reverse=True) for side in (val, test))
    at_risk = [coverage_at_risk(test, risk) for risk in risks]
    thresholds = [best_threshold(val, cost) for cost in costs]
    phi = [effective_reliability(test, cost, t) for cost, t in zip(costs, thresholds, strict=True)]
    return at_risk, thresholds, phi
