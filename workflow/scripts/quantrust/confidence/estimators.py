"""Confidence estimators that need no training: functions of an answer's log-probabilities and of its first logits."""

import polars as pl

# Estimators whose values are probabilities; calibration errors exist for these only.
PROBABILITIES = frozenset({"maxprob", "length-normalised", "min-token", "margin", "selector", "selector-ensemble"})


def maxprob() -> pl.Expr:
    """Product of the probabilities of all generated tokens, the end token included; in [0, 1]."""
    return pl.col("joint_log_prob").cast(pl.Float64).exp()


def length_normalised() -> pl.Expr:
    """Geometric mean of the probabilities of the generated tokens; in [0, 1]."""
    return pl.col("token_log_probs").list.eval(pl.element().cast(pl.Float64)).list.mean().exp()


def min_token() -> pl.Expr:
    """Smallest probability among the generated tokens; in [0, 1]."""
    return pl.col("token_log_probs").list.min().cast(pl.Float64).exp()


def entropy() -> pl.Expr:
    """Minus the entropy, in nats, of the distribution of the first answer token; at most 0, no probability."""
    return -pl.col("entropy").cast(pl.Float64)


def margin() -> pl.Expr:
    """Probability of the first answer token less that of the runner-up; in [0, 1]."""

    def probability(rank: int) -> pl.Expr:
        logit = pl.col("top_logits").list.get(rank).cast(pl.Float64)
        return (logit - pl.col("log_sum_exp").cast(pl.Float64)).exp()

    return probability(0) - probability(1)


ESTIMATORS = {
    "maxprob": maxprob,
    "length-normalised": length_normalised,
    "min-token": min_token,
    "entropy": entropy,
    "margin": margin,
}


def confidence_columns(names: list[str]) -> list[pl.Expr]:
    """Return an expression over the columns of a features file for every named estimator.

    Parameters
    ----------
    names : list of str
        Keys of `ESTIMATORS`.

    Returns
    -------
    list of polars.Expr
        Named after the estimators, float64.
    """
    return [ESTIMATORS[name]().alias(name) for name in names]
