"""Geometric mean of the probabilities of the generated tokens."""

import polars as pl

IS_PROBABILITY = True


def confidence() -> pl.Expr:
    """Return values in [0, 1], float64."""
    return pl.col("token_log_probs").list.eval(pl.element().cast(pl.Float64)).list.mean().exp()
