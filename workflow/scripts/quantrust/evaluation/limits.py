"""Risk limits: how they are written, the grid of the decision table, and how many answers it takes to judge a limit."""

import math
from collections.abc import Iterable
from statistics import NormalDist


def as_given(value: float) -> str:
    """Return a limit or a cost as one types it: the shortest text that reads back to the same float.

    Examples
    --------
    >>> as_given(10.0), as_given(0.05), as_given(0.0123456789)
    ('10', '0.05', '0.0123456789')
    """
    return str(int(value)) if value == int(value) else str(value)


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


def fewest_to_judge(limit: float, level: float) -> int:
    """Return the least number of independent answers that can tell whether a risk limit is kept.

    Fewer answers tell nothing, for two reasons. If all of them were right, a true risk of R could still have produced
    them with a probability above 1 - level; this needs ln(1 - level) / ln(1 - R) answers. And at a risk of R their
    interval would reach from 0 to 2 R, so that R could not be told from 2 R. Half its width is z sqrt(R (1 - R) / n),
    which is at most R from z^2 (1 - R) / R answers on.

    Parameters
    ----------
    limit : float
        The limit R, in (0, 1).
    level : float
        Confidence level, in (0, 1).

    Examples
    --------
    >>> fewest_to_judge(0.05, 0.95), fewest_to_judge(0.01, 0.95), fewest_to_judge(0.2, 0.95)
    (73, 381, 16)
    """
    faultless = math.log(1.0 - level) / math.log1p(-limit)
    deviations = NormalDist().inv_cdf((1.0 + level) / 2.0)
    return math.ceil(max(faultless, deviations**2 * (1.0 - limit) / limit))


def too_low_to_judge(limits: Iterable[float], images: int, level: float) -> dict[float, int]:
    """Return the risk limits that answers about so many images cannot judge, with the number of images each needs.

    Parameters
    ----------
    limits : iterable of float
        In [0, 1]. 0 and 1 are passed over: no number of answers can judge 0, and any can judge 1.
    images : int
        Images that the answers are about; answers about one image are not independent.
    level : float
        As in `fewest_to_judge`.

    Examples
    --------
    >>> too_low_to_judge([0.01, 0.05, 0.2], 60, 0.95)
    {0.01: 381, 0.05: 73}
    """
    needed = {limit: fewest_to_judge(limit, level) for limit in limits if 0.0 < limit < 1.0}
    return {limit: fewest for limit, fewest in needed.items() if images < fewest}
