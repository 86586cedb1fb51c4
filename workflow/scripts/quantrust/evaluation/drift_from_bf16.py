"""Drift from the unquantized model: what quantization does to single answers, also where accuracy hides it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from quantrust.artifacts.tables import read_table, scan_table, write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import read_scores
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.drift import OverImages
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.metrics import CORRECT, Floats
from quantrust.evaluation.variant import Setting, check_confidences, remembered_draws

SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "scheme": pl.String,
        "dataset": pl.String,
        "estimator": pl.String,
        "measure": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "n": pl.Int64,
        "images": pl.Int64,
    }
)
CHANGED, TO_WRONG, TO_RIGHT, DIVERGENCE = "answers_changed", "right_to_wrong", "wrong_to_right", "kl_divergence"
CONFIDENCE_CHANGE, CONFIDENCE_MOVED = "confidence_change", "confidence_moved"
FIRST_TOKEN = ("top_ids", "top_logits", "log_sum_exp")
"""Columns of features that hold the distribution of the first answer token."""
LEAST_MASS = 1e-6
"""Probability that the tokens outside both lists have at least: float32 logits do not tell less from none."""
TOKENS_AT_ONCE = 2_000_000
"""Logits of one side that are compared at a time, some 200 MB."""


@dataclass(frozen=True)
class DriftSettings:
    """How drift is measured.

    Attributes
    ----------
    reference : str
        The scheme that the others are held against.
    id_dataset : str
        The ID dataset, on whose val answers calibrators are fitted.
    datasets : sequence of str
        Those whose test answers are compared.
    estimators : sequence of str
        Whose confidences are compared; calibrated ones are made on the way.
    resamples : int
        Bootstrap resamples of images; all schemes see the same.
    seed : int
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    reference: str
    id_dataset: str
    datasets: Sequence[str]
    estimators: Sequence[str]
    resamples: int
    seed: int
    level: float = LEVEL


def write_drift(
    scores_paths: Mapping[tuple[str, str], str | Path],
    features_paths: Mapping[tuple[str, str, str], str | Path],
    out_path: str | Path,
    settings: DriftSettings,
) -> None:
    """Compare the test answers of every scheme with those of the reference, question by question.

    Parameters
    ----------
    scores_paths : mapping of (str, str) to str or Path
        Scores by model and scheme.
    features_paths : mapping of (str, str, str) to str or Path
        Features by model, scheme and dataset.
    out_path : str or Path
        Parquet file to write, with the columns of `SCHEMA`: for every scheme but the reference and every dataset
        ``answers_changed`` (the share of answers whose text differs), ``right_to_wrong`` and ``wrong_to_right`` (shares
        of all questions; right is a quality of at least `quantrust.evaluation.metrics.CORRECT`), ``kl_divergence``
        (the mean of `first_token_divergence` in nats, of answers that are written) and, for every estimator,
        ``confidence_change`` (the mean change of the confidence, in its own unit) and ``confidence_moved`` (the mean of
        the change without its sign). A model without the reference among its schemes has no rows.
    settings : DriftSettings

    Raises
    ------
    QuantrustError
        If two schemes do not answer the same questions, or a confidence is missing or not finite.
    """
    draw = remembered_draws(settings.resamples, settings.seed)
    rows: list[tuple[object, ...]] = []
    for model in dict.fromkeys(model for model, _ in scores_paths):
        others = [scheme for other, scheme in scores_paths if other == model and scheme != settings.reference]
        if not others or (model, settings.reference) not in scores_paths:
            continue
        scores = _scores(scores_paths[model, settings.reference], f"{model}/{settings.reference}", settings)
        reference = {}
        for dataset in settings.datasets:
            before = _answers(scores, features_paths[model, settings.reference, dataset], dataset)
            share = 1.0 if dataset == settings.id_dataset else None
            reference[dataset] = before, OverImages(draw(Setting(dataset, share, before)), settings.level)
        # By scheme, so that beside the reference one is in memory at a time.
        found = {
            scheme: _rows_of((model, scheme), scores_paths[model, scheme], features_paths, reference, settings)
            for scheme in others
        }
        rows += [row for dataset in settings.datasets for scheme in others for row in found[scheme][dataset]]
    write_table(pl.DataFrame(rows, schema=SCHEMA, orient="row"), out_path)


def _rows_of(
    variant: tuple[str, str],
    scores_path: str | Path,
    features_paths: Mapping[tuple[str, str, str], str | Path],
    reference: Mapping[str, tuple[pl.DataFrame, OverImages]],
    settings: DriftSettings,
) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of a variant by dataset, against the reference's answers to each."""
    model, scheme = variant
    scores = _scores(scores_path, f"{model}/{scheme}", settings)
    rows: dict[str, list[tuple[object, ...]]] = {}
    for dataset, (before, over) in reference.items():
        here = _answers(scores, features_paths[model, scheme, dataset], dataset)
        if not here["question_id"].equals(before["question_id"]):
            raise QuantrustError(
                f"drift of {model}/{scheme} on {dataset}: it does not answer the questions that "
                f"{settings.reference} answers; expected features of the same questions table"
            )
        counts = before.height, before["image_id"].n_unique()
        rows[dataset] = []
        for estimator, measure, values in _measures(before, here, settings.estimators):
            mean = over.mean(values, np.ones(values.size))
            rows[dataset].append((model, scheme, dataset, estimator, measure, mean.value, mean.low, mean.high, *counts))
    return rows


def first_token_divergence(before: pl.DataFrame, here: pl.DataFrame) -> Floats:
    """Return the Kullback-Leibler divergence of the first answer token, from the logits that both sides keep.

    Both distributions are looked at over the tokens in both lists of largest logits, each for itself, and all others
    together. Where the lists hold every token this is the whole divergence. Elsewhere it is a lower bound, because
    putting tokens together never raises a divergence (Cover and Thomas, "Elements of Information Theory", 2nd edition,
    section 2.7).

    Parameters
    ----------
    before, here : polars.DataFrame
        The columns `FIRST_TOKEN` of the same questions in the same order.

    Returns
    -------
    ndarray of float64, shape (n,)
        Sum of p log(p / q) in nats, p before and q here; at least 0.

    Examples
    --------
    >>> sides = [
    ...     pl.DataFrame({"top_ids": [[7, 3]], "top_logits": [np.log(p).tolist()], "log_sum_exp": [0.0]})
    ...     for p in ([0.5, 0.25], [0.25, 0.5])
    ... ]
    >>> round(float(first_token_divergence(*sides)[0]), 4)
    0.1733
    """
    longest = max(int(side["top_ids"].list.len().to_numpy().max(initial=1)) for side in (before, here))
    step = max(1, TOKENS_AT_ONCE // longest)
    slices = [slice(start, start + step) for start in range(0, before.height, step)]
    return np.concatenate([np.empty(0), *(_divergence(before[part], here[part]) for part in slices)])


def _divergence(before: pl.DataFrame, here: pl.DataFrame) -> Floats:
    both = _log_probabilities(before, "p").join(_log_probabilities(here, "q"), on=["place", "id"])
    p, q = pl.col("p"), pl.col("q")
    sums = both.group_by("place").agg(
        (p.exp() * (p - q)).sum().alias("together"), p.exp().sum().alias("p"), q.exp().sum().alias("q")
    )
    found = pl.DataFrame({"place": np.arange(len(before), dtype=np.uint32)}).join(sums, on="place", how="left")
    together, *masses = (found.sort("place")[name].fill_null(0.0).to_numpy() for name in ("together", "p", "q"))
    other_p, other_q = (np.maximum(1.0 - mass, LEAST_MASS) for mass in masses)
    # Rounding leaves the divergence of a distribution from itself a little beside 0.
    return np.maximum(together + other_p * np.log(other_p / other_q), 0.0)


def _log_probabilities(side: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return a row for each token in a list, with its place among the questions."""
    return (
        side.select(FIRST_TOKEN)
        .with_row_index("place")
        .explode("top_ids", "top_logits")
        .select(
            "place",
            pl.col("top_ids").alias("id"),
            (pl.col("top_logits").cast(pl.Float64) - pl.col("log_sum_exp").cast(pl.Float64)).alias(name),
        )
    )


def _measures(
    before: pl.DataFrame, here: pl.DataFrame, estimators: Sequence[str]
) -> Iterator[tuple[str | None, str, Floats]]:
    """Yield estimator, measure and the value of each question, for the same questions in the same order."""
    was, is_right = ((side["quality"] >= CORRECT).to_numpy() for side in (before, here))
    yield None, CHANGED, (before["answer"] != here["answer"]).to_numpy().astype(np.float64)
    yield None, TO_WRONG, (was & ~is_right).astype(np.float64)
    yield None, TO_RIGHT, (~was & is_right).astype(np.float64)
    if {*FIRST_TOKEN} <= {*before.columns}:
        yield None, DIVERGENCE, first_token_divergence(before, here)
    for estimator in estimators:
        change = here[estimator].to_numpy() - before[estimator].to_numpy()
        yield estimator, CONFIDENCE_CHANGE, change
        yield estimator, CONFIDENCE_MOVED, np.abs(change)


def _scores(path: str | Path, variant: str, settings: DriftSettings) -> pl.DataFrame:
    scores = add_calibrated(read_scores(path, settings.estimators), settings.estimators, settings.id_dataset)
    check_confidences(scores, settings.estimators, variant)
    columns = ["dataset", "question_id", "image_id", "quality", *settings.estimators]
    return scores.filter(pl.col("split") == "test").select(list(dict.fromkeys(columns)))


def _answers(scores: pl.DataFrame, features_path: str | Path, dataset: str) -> pl.DataFrame:
    """Return the test answers to a dataset by question, with the distribution of their first tokens."""
    there = scan_table(features_path).collect_schema().names()
    given = read_table(
        features_path, columns=["question_id", "split", "answer", *(name for name in FIRST_TOKEN if name in there)]
    )
    given = given.filter(pl.col("split") == "test").drop("split")
    scored = scores.filter(pl.col("dataset") == dataset)
    answers = scored.join(given, on="question_id", validate="1:1").sort("question_id")
    if not answers.height == scored.height == given.height:
        raise QuantrustError(
            f"{features_path}: has {given.height} test answers and the scores {scored.height}, with "
            f"{answers.height} in common; expected scores made from these features"
        )
    return answers
