"""The grid of risk limits that decisions are tabulated for."""


def risk_limits(lowest: float, highest: float, step: float) -> list[float]:
    """Return the risk limits from `lowest` in steps, as decimal fractions of six places.

    Parameters
    ----------
    lowest, highest : float
        In (0, 1); the last limit is the largest one that does not exceed `highest`.
    step : float
        Above 0.

    Returns
    -------
    list of float
        Ascending; empty where `highest` is below `lowest`.

    Examples
    --------
    >>> risk_limits(0.1, 0.35, 0.1)
    [0.1, 0.2, 0.3]
    """
    # In whole millionths, so that 0.3 is 0.3 and not what three times 0.1 is in floating point.
    first, last, width = (round(value * 1_000_000) for value in (lowest, highest, step))
    return [limit / 1_000_000 for limit in range(first, last + 1, max(1, width))]
