"""Probability of the first answer token less that of the runner-up."""

import polars as pl

IS_PROBABILITY = True


def confidence() -> pl.Expr:
    """Return values in [0, 1], float64."""

    def probability(rank: int) -> pl.Expr:
        logit = pl.col("top_logits").list.get(rank).cast(pl.Float64)
        return (logit - pl.col("log_sum_exp").cast(pl.Float64)).exp()

    return probability(0) - probability(1)
