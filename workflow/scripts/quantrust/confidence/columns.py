"""The confidence of estimators that need no training, as expressions over a features file."""

from collections.abc import Sequence

import polars as pl

from quantrust.confidence.catalogue import load_estimator


def confidence_columns(names: Sequence[str]) -> list[pl.Expr]:
    """Return an expression over the columns of a features file for every named estimator.

    Parameters
    ----------
    names : sequence of str
        Of `quantrust.confidence.catalogue.plain_estimators`.

    Returns
    -------
    list of polars.Expr
        Named after the estimators, float64.
    """
    return [load_estimator(name).confidence().cast(pl.Float64).alias(name) for name in names]
