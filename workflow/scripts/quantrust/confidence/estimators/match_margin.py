"""How far the score of what ranks first for a query lies before that of the second."""

import polars as pl

IS_PROBABILITY = False
READS_MATCHES = True


def confidence() -> pl.Expr:
    """Return values of at least 0, float64."""

    def score(place: int) -> pl.Expr:
        return pl.col("match_scores").list.get(place).cast(pl.Float64)

    return score(0) - score(1)
