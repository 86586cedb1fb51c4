"""Product of the probabilities of all generated tokens, the end token included."""

import polars as pl

IS_PROBABILITY = True


def confidence() -> pl.Expr:
    """Return values in [0, 1], float64."""
    return pl.col("joint_log_prob").cast(pl.Float64).exp()
