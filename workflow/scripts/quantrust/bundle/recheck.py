"""Rechecking a bundle: the same questions under the conditions of its operating points and under others."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from quantrust.bundle.asking import ask, judged
from quantrust.bundle.load import Bundle
from quantrust.data.labelled import LabelledItem
from quantrust.data.records import read_records
from quantrust.errors import QuantrustError
from quantrust.evaluation.drift import Drift, measure_drift


def recheck(
    folder: str | Path,
    items: Sequence[LabelledItem],
    task: str,
    how: Mapping[str, str | None],
    reference: pl.DataFrame | None,
    seed: int,
) -> tuple[Drift, Bundle, list[str]]:
    """Ask a bundle the same questions twice, and measure what changes.

    Parameters
    ----------
    folder : str or Path
        The bundle.
    items : sequence of LabelledItem
    task : str
        By which answers are judged, where all items have reference answers.
    how : mapping of str to str or None
        ``device``, ``kernel``, ``dtype`` and ``attention`` to check; None for those of the bundle.
    reference : polars.DataFrame or None
        The answers under the bundle's own conditions, as `read_reference` reads them. None asks the bundle here.
    seed : int
        Of the resamples.

    Returns
    -------
    drift : Drift
    bundle : Bundle
        As it was checked.
    differences : list of str
        In what its conditions differ from those of its operating points.

    Raises
    ------
    QuantrustError
        If an item cannot be answered, or the bundle's own conditions are to be run and are not to be had here.
    """
    bundle = Bundle.load(folder, **how)
    recorded = bundle.record.operating_points.conditions
    if reference is None:
        before = Bundle.load(folder, device="cpu" if recorded.device == "cpu" else "cuda")
        if differences := recorded.differences(before.conditions):
            raise QuantrustError(
                f"{folder}: was measured under other conditions than those that it runs under here "
                f"({', '.join(differences)}); answer the questions where it was measured, with `quantrust answer --out "
                "answers.jsonl`, and give that file as --reference"
            )
        reference = ask(before, items, task, "answering as measured")
        del before
    here = ask(bundle, items, task, "answering as asked")
    drift = measure_drift(reference, here, bundle.record.points, seed=seed)
    return drift, bundle, recorded.differences(bundle.conditions)


def read_reference(path: str | Path, items: Sequence[LabelledItem], task: str) -> pl.DataFrame:
    """Read the answers of a bundle to some items, as `quantrust answer` wrote them.

    Parameters
    ----------
    path : str or Path
        JSONL, CSV or Parquet with the columns ``id``, ``answer`` and ``confidence``.
    items : sequence of LabelledItem
    task : str

    Raises
    ------
    QuantrustError
        If it cannot be read, lacks an item, has an id twice, or a confidence is no finite number.
    """
    records = read_records(path)
    names, answers, confidences = (records.column(name) for name in ("id", "answer", "confidence"))
    found: dict[str, tuple[str, float]] = {}
    for row, (name, answer, confidence) in enumerate(zip(names, answers, confidences, strict=True)):
        number = _number(confidence)
        if not math.isfinite(number) or not isinstance(answer, str):
            raise QuantrustError(
                f"{records.where(row)}: has the answer {answer!r:.100} and the confidence {confidence!r:.100}; "
                "expected a text and a finite number"
            )
        if str(name) in found:
            raise QuantrustError(f"{records.where(row)}: has the id {name!r:.100} again; expected every id once")
        found[str(name)] = answer, number
    for item in items:
        if item.item_id not in found:
            raise QuantrustError(f"{path}: has no answer to item {item.item_id}; expected one to every item")
    return judged(items, [found[item.item_id] for item in items], task)


def _number(value: object) -> float:
    """Return a number, also of a text, because CSV has no others; NaN where it is none."""
    try:
        return math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        return math.nan
