"""The answers in a variant's scores on which thresholds are fixed, and the writing of an evaluation's tables."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.artifacts.tables import read_table, scan_table, write_tables
from quantrust.confidence.catalogue import member_columns
from quantrust.errors import QuantrustError
from quantrust.evaluation.metric_records import OF_CORPUS

Tables = pl.DataFrame | tuple[pl.DataFrame, ...]

OF_QUESTIONS = ("dataset", "split", "question_id", "image_id", "quality")
"""Columns of scores that every reader of them needs."""


def read_scores(path: str | Path, estimators: Sequence[str], further: Collection[str] = ()) -> pl.DataFrame:
    """Read the scores of a variant with the confidences of some estimators alone.

    Parameters
    ----------
    path : str or Path
        The Parquet file of scores.
    estimators : sequence of str
        Those that are columns, and calibrated ones whose estimator is a column.
    further : collection of str
        Further columns to read.

    Returns
    -------
    polars.DataFrame
        Of the scores the columns `OF_QUESTIONS`, those of all members of each estimator, and the further ones, as far
        as they are there.

    Raises
    ------
    QuantrustError
        If the file is missing, cannot be read or is damaged.
    """
    there = scan_table(path).collect_schema().names()
    named = [name for estimator in estimators for name in (estimator, estimator.rsplit("+", 1)[0])]
    wanted = {*OF_QUESTIONS, *further, *(column for name in named for column in member_columns(there, name))}
    return read_table(path, [column for column in there if column in wanted])


def val_answers(scores: pl.DataFrame, id_dataset: str, where: str, purpose: str) -> pl.DataFrame:
    """Return the answers on which thresholds and calibrations are fixed: those of the ID dataset in split val.

    Parameters
    ----------
    scores : polars.DataFrame
        The scores table of a variant.
    id_dataset : str
        The ID dataset.
    where, purpose : str
        For the message: whose scores they are, and what the answers are for.

    Raises
    ------
    QuantrustError
        If there are none.
    """
    val = scores.filter((pl.col("dataset") == id_dataset) & (pl.col("split") == "val"))
    if val.is_empty():
        raise QuantrustError(f"{where}: no answers of {id_dataset} in split val, which {purpose}")
    return val


def corpus_of(answers: pl.DataFrame) -> dict[str, pl.Series]:
    """Return what answers add to the metrics of all answers together, by their names; NaN where a task has no such.

    Parameters
    ----------
    answers : polars.DataFrame
        Rows of the scores table of a variant.
    """
    return {name: answers[name].fill_null(math.nan) for name in OF_CORPUS if name in answers.columns}


def write_from_scores(
    evaluate: Callable[..., Tables],
    scores_path: str | Path,
    mixture_paths: Mapping[str, str | Path],
    out_paths: Sequence[str | Path],
    begun_paths: Sequence[str | Path] = (),
    **settings: Any,
) -> None:
    """Evaluate a variant from its files and write the resulting tables.

    Parameters
    ----------
    evaluate : callable
        Takes the scores table, the mixtures by shifted dataset and `settings`; returns a table, or a tuple of them.
    scores_path : str or Path
        Parquet file with the scores table.
    mixture_paths : mapping of str to str or Path
        For each shifted dataset the Parquet file of its mixtures.
    out_paths : sequence of str or Path
        Parquet files to write, as many as there are tables. None is written where `evaluate` raises.
    begun_paths : sequence of str or Path
        For each table its first rows, which are there already and which `evaluate` leaves out; none where it makes all.
    **settings
        The keyword arguments of `evaluate`.
    """
    mixtures = {dataset: read_table(path) for dataset, path in mixture_paths.items()}
    found = evaluate(read_table(scores_path), mixtures, **settings)
    tables = (found,) if isinstance(found, pl.DataFrame) else found
    if begun_paths:
        tables = tuple(pl.concat([read_table(path), rest]) for path, rest in zip(begun_paths, tables, strict=True))
    write_tables(dict(zip(out_paths, tables, strict=True)))
