"""Smallest probability among the generated tokens."""

import polars as pl

IS_PROBABILITY = True


def confidence() -> pl.Expr:
    """Return values in [0, 1], float64."""
    return pl.col("token_log_probs").list.min().cast(pl.Float64).exp()
