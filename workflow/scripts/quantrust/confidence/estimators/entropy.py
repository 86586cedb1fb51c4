"""Minus the entropy of the distribution of the first answer token."""

import polars as pl

IS_PROBABILITY = False


def confidence() -> pl.Expr:
    """Return values of at most 0, in nats, float64."""
    return -pl.col("entropy").cast(pl.Float64)
