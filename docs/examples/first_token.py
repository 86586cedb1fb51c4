"""Probability of the first answer token alone."""

import polars as pl

IS_PROBABILITY = True


def confidence() -> pl.Expr:
    """Return values in [0, 1], float64."""
    return pl.col("token_log_probs").list.first().cast(pl.Float64).exp()
