"""Mixtures of test questions of the ID dataset and of a shifted one in stated ratios."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from quantrust.artifacts.tables import read_table, write_table
from quantrust.errors import QuantrustError

SCHEMA = pl.Schema({"id_share": pl.Float64, "dataset": pl.String, "question_id": pl.String})


def mixture_table(
    id_questions: pl.DataFrame, shift_questions: pl.DataFrame, id_shares: Sequence[float], seed: int
) -> pl.DataFrame:
    """Draw the test questions of every ratio of the ID dataset and a shifted one.

    Every ratio has N questions, N being the size of the smaller test set. Each test set is shuffled once; a ratio takes
    the first round(share * N) ID questions and the first N minus that many shifted questions. So nothing is drawn
    twice, and of two ratios the one with the larger share of a dataset holds all questions of that dataset that the
    other holds.

    Parameters
    ----------
    id_questions, shift_questions : polars.DataFrame
        With the columns ``dataset`` (one value), ``question_id`` and ``split``; only the split ``test`` is used. The
        order of rows does not matter.
    id_shares : sequence of float
        Shares of ID questions, in [0, 1].
    seed : int
        Seed of the two shuffles. The one of the ID questions does not depend on the shifted dataset.

    Returns
    -------
    polars.DataFrame
        Columns ``id_share``, ``dataset``, ``question_id``; N rows for each share, in the order given.

    Raises
    ------
    QuantrustError
        If a share lies outside [0, 1] or is given twice, or a dataset has no test question.
    """
    for share in id_shares:
        if not 0.0 <= share <= 1.0:
            raise QuantrustError(f"mixtures: id_share {share} is outside [0, 1]; expected the share of ID questions")
    if len(set(id_shares)) != len(id_shares):
        raise QuantrustError(f"mixtures: id_shares {list(id_shares)} repeat a value; expected each share once")
    id_name, id_ids = _shuffled_test(id_questions, [seed, 0])
    shift_name, shift_ids = _shuffled_test(shift_questions, [seed, 1])
    size = min(len(id_ids), len(shift_ids))
    parts = [pl.DataFrame(schema=SCHEMA)]
    for share in id_shares:
        id_count = math.floor(share * size + 0.5)
        for name, ids in ((id_name, id_ids[:id_count]), (shift_name, shift_ids[: size - id_count])):
            parts.append(
                pl.DataFrame(
                    {"id_share": [float(share)] * len(ids), "dataset": [name] * len(ids), "question_id": ids},
                    schema=SCHEMA,
                )
            )
    return pl.concat(parts)


def write_mixtures(
    id_path: str | Path, shift_path: str | Path, out_path: str | Path, *, id_shares: Sequence[float], seed: int
) -> None:
    """Draw the mixtures of two questions tables and write them.

    Parameters
    ----------
    id_path, shift_path : str or Path
        Parquet files of the questions in distribution and out of it.
    out_path : str or Path
        Parquet file with the columns of `mixture_table`.
    id_shares, seed
        As in `mixture_table`.

    Raises
    ------
    QuantrustError
        As `mixture_table`.
    """
    columns = ["dataset", "split", "question_id"]
    id_questions, shift_questions = (read_table(path, columns) for path in (id_path, shift_path))
    write_table(mixture_table(id_questions, shift_questions, id_shares, seed), out_path)


def _shuffled_test(questions: pl.DataFrame, seed: list[int]) -> tuple[str, list[str]]:
    names = questions["dataset"].unique().to_list()
    if len(names) != 1:
        raise QuantrustError(f"mixtures: expected the questions of one dataset, got {sorted(names)}")
    ids = questions.filter(pl.col("split") == "test")["question_id"].sort().to_list()
    if not ids:
        raise QuantrustError(f"{names[0]}: has no questions in the split test, which mixtures are drawn from")
    order = np.random.default_rng(seed).permutation(len(ids))
    return names[0], [ids[i] for i in order]
