"""Functional analysis of variance of a full grid: which factor, and which factors together, move a value.

A value on a grid is the sum of its mean, of one main effect for each factor, and of one interaction for each group of
factors. The variance of the value over the grid is the sum of their variances: Sobol', "Sensitivity Estimates for
Nonlinear Mathematical Models" (1993). The Shapley share of a factor is its main effect and an equal part of every
interaction that it takes part in: Owen, "Sobol' Indices and Shapley Value" (2014).
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from quantrust.evaluation.metrics import Floats

Term = tuple[int, ...]
"""Factors, as increasing indices: one for a main effect, several for their interaction."""


def terms(factors: int) -> Iterator[Term]:
    """Return all main effects and interactions of some factors, the smaller ones first.

    Examples
    --------
    >>> list(terms(2))
    [(0,), (1,), (0, 1)]
    """
    for size in range(1, factors + 1):
        yield from combinations(range(factors), size)


def effects(values: Floats, factors: int) -> dict[Term, Floats]:
    """Return the main effects and interactions of values on a grid, or of many grids at once.

    Parameters
    ----------
    values : ndarray of float64, shape (..., levels of factor 0, levels of factor 1, ...)
        All levels of a factor weigh the same.
    factors : int
        How many of the last axes are factors.

    Returns
    -------
    dict
        For each term an array in which the axes of all other factors have length 1. Together with the mean they add up
        to the values. Each of them has the mean 0 along every factor of its own.
    """
    axes = {factor: factor - factors for factor in range(factors)}
    found: dict[Term, Floats] = {(): values.mean(axis=tuple(axes.values()), keepdims=True)}
    for term in terms(factors):
        others = tuple(axis for factor, axis in axes.items() if factor not in term)
        within = values.mean(axis=others, keepdims=True)
        for part, effect in found.items():
            if set(part) < set(term):
                within = within - effect
        found[term] = within
    del found[()]
    return found


def products(first: Floats, second: Floats, factors: int) -> dict[Term, Floats]:
    """Return for each term the mean product of its effects in two sets of values.

    Of values with themselves these are the variances of the terms. Of two independent measurements they are unbiased
    estimates of the variances, because the noise of one is independent of the noise of the other; a variance of noisy
    values is too large, by the variance of the noise.

    Parameters
    ----------
    first, second : ndarray of float64, shape (..., levels of factor 0, levels of factor 1, ...)
    factors : int
        How many of the last axes are factors.

    Returns
    -------
    dict
        For each term an array of shape (...).
    """
    axes = tuple(range(-factors, 0))
    others = effects(second, factors)
    return {term: (effect * others[term]).mean(axis=axes) for term, effect in effects(first, factors).items()}


def shapley(parts: Mapping[Term, Floats], factors: int) -> Floats:
    """Divide the terms among the factors: to each its main effect and an equal part of each of its interactions.

    Parameters
    ----------
    parts : mapping
        What `products` returns.
    factors : int

    Returns
    -------
    ndarray of float64, shape (factors, ...)
        Their sum over the factors is the variance of the values.
    """
    return np.stack(
        [
            sum((part / len(term) for term, part in parts.items() if factor in term), np.zeros(()))
            for factor in range(factors)
        ]
    )
