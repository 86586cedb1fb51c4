"""Importance by the recipe of the published component study (MMQ, arXiv 2601.15287), to compare with.

It is the mean of three importances of a random forest. It depends on which levels the grid has, and it gives shares
also where nothing but noise varies. `quantrust.evaluation.importance` has what to use instead.
"""

from itertools import combinations
from math import factorial

import numpy as np

from quantrust.evaluation.importance import Grid
from quantrust.evaluation.metrics import Floats

TREES, SEED, REPEATS = 100, 42, 10
"""As published."""


def consensus(grid: Grid) -> dict[str, float]:
    """Return the published kind of importance of every factor, as fractions that add up to 1.

    The mean of the forest's impurity importance, of its permutation importance on the rows that it was fitted to, and
    of the mean absolute interventional Shapley value of its predictions, each divided by its sum. Features are the
    bits as they are.

    Parameters
    ----------
    grid : Grid
        With the metric of the schemes.

    Returns
    -------
    dict
        By factor; NaN if the metric is the same for all schemes.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    features = np.stack(np.meshgrid(*grid.levels, indexing="ij"), axis=-1).reshape(-1, len(grid.factors))
    values = grid.values.ravel()
    forest = RandomForestRegressor(n_estimators=TREES, random_state=SEED).fit(features, values)
    permuted = permutation_importance(forest, features, values, n_repeats=REPEATS, random_state=SEED)
    predicted = forest.predict(features).reshape(grid.values.shape)
    kinds = [forest.feature_importances_, permuted.importances_mean, np.abs(shapley_values(predicted)).mean(axis=1)]
    with np.errstate(invalid="ignore"):
        shares = np.mean([kind / kind.sum() for kind in kinds], axis=0)
    return dict(zip(grid.factors, map(float, shares), strict=True))


def shapley_values(values: Floats) -> Floats:
    """Return the interventional Shapley values of every cell of a grid, with all cells as the background.

    What a group of factors is worth at a cell is the mean over the cells that agree with it in these factors, because
    every combination of the others is in the background once. The Shapley value averages what a factor adds to a group
    over all orders in which factors may join: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions"
    (2017).

    Parameters
    ----------
    values : ndarray of float64, shape (levels of factor 0, levels of factor 1, ...)

    Returns
    -------
    ndarray of float64, shape (factors, cells)
        For each cell they add up to its value less the mean of all.
    """
    k = values.ndim
    groups = [frozenset(group) for size in range(k + 1) for group in combinations(range(k), size)]
    worth = {
        group: values.mean(axis=tuple(axis for axis in range(k) if axis not in group), keepdims=True)
        for group in groups
    }
    found = np.zeros((k, *values.shape))
    for factor in range(k):
        for group in groups:
            if factor not in group:
                orders = factorial(len(group)) * factorial(k - len(group) - 1) / factorial(k)
                found[factor] += orders * (worth[group | {factor}] - worth[group])
    return found.reshape(k, -1)
