"""Scores: every answer of a variant with its quality and one confidence column per estimator."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from quantrust.artifacts.row_groups import read_schema
from quantrust.artifacts.tables import read_table, write_table
from quantrust.confidence.catalogue import LEARNED, member_columns
from quantrust.confidence.columns import confidence_columns
from quantrust.confidence.selector import INPUTS, load_selector, selector_confidence
from quantrust.inference.features_file import corpus_metrics_of, read_slices

KEYS = ("dataset", "split", "question_id", "image_id", "answer_type", "question_kind", "quality")
Learned = Callable[[pl.DataFrame], dict[str, np.ndarray]]


def write_scores(
    feature_paths: Sequence[str | Path],
    selector_dir: str | Path | None,
    out_path: str | Path,
    estimators: list[str],
    begun_path: str | Path | None = None,
) -> None:
    """Gather the answers of one variant to some datasets and score them.

    Parameters
    ----------
    feature_paths : sequence of str or Path
        One features file per dataset; rows keep their order.
    selector_dir : str or Path or None
        As `train_selector` wrote it; None where no estimator is learned.
    out_path : str or Path
        Parquet with `KEYS` and a float64 column per estimator; of a learned one also a column for each further member
        (`quantrust.confidence.catalogue.member_name`), which is not an estimator of its own. Last come columns of the
        metrics of all answers together that the tasks have, with what each answer adds to them; null in datasets whose
        task has another.
    estimators : list of str
        Names that `quantrust.confidence.catalogue` knows, without calibration.
    begun_path : str or Path, optional
        Scores of the variant on other datasets under the same estimators; those written here begin with them.
    """
    learned_inputs, learned_confidence = ((), _none_learned) if selector_dir is None else _learned(selector_dir)
    plain = confidence_columns([name for name in estimators if name not in LEARNED])
    read = (*KEYS, *learned_inputs, *(name for column in plain for name in column.meta.root_names()))
    columns = list(dict.fromkeys(read))
    tables = [] if begun_path is None else [read_table(begun_path)]
    for path in feature_paths:
        corpus_metrics = corpus_metrics_of(read_schema(path))
        for features in read_slices(path, [*columns, *corpus_metrics]):
            learned = learned_confidence(features)
            table = features.select(*KEYS, *plain).with_columns(
                **{name: pl.Series(values) for name, values in learned.items()}
            )
            members = [name for estimator in estimators for name in member_columns(learned, estimator)[1:]]
            tables.append(table.select(*KEYS, *estimators, *members).hstack(features.select(corpus_metrics)))
    write_table(pl.concat(tables, how="diagonal"), out_path)


def _learned(selector_dir: str | Path) -> tuple[tuple[str, ...], Learned]:
    """Return the columns that Selectors read, and what they say of features."""
    return INPUTS, partial(selector_confidence, load_selector(selector_dir))


def _none_learned(features: pl.DataFrame) -> dict[str, np.ndarray]:
    return {}
