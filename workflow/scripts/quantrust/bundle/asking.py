"""Asking a bundle the items of a user's table, and judging its answers."""

from collections.abc import Sequence

import polars as pl

from quantrust.bundle.items import Failure, Item
from quantrust.bundle.load import Bundle
from quantrust.data.labelled import LabelledItem
from quantrust.errors import QuantrustError
from quantrust.progress import progress
from quantrust.tasks.task import load_task


def check_references(items: Sequence[LabelledItem], task: str) -> None:
    """Raise a `QuantrustError` if a task cannot judge an answer by the reference answers of an item."""
    known = load_task(task)
    for item in items:
        known.check_references(item.answers, f"item {item.item_id}")


def ask(bundle: Bundle, items: Sequence[LabelledItem], task: str, what: str = "answering") -> pl.DataFrame:
    """Return a bundle's answers to all items, whether or not it would abstain.

    Parameters
    ----------
    bundle : Bundle
    items : sequence of LabelledItem
    task : str
        By which answers are judged.
    what : str
        The work, for the progress bar.

    Returns
    -------
    polars.DataFrame
        Columns ``question_id``, ``image_id``, ``answer``, ``confidence`` and, if all items have reference answers,
        ``quality``; in the order of the items.

    Raises
    ------
    QuantrustError
        If an item cannot be answered. What holds of the rest would not hold of the whole.
    """
    asked = (Item(item.image, item.question, item.item_id) for item in items)
    rows = []
    with progress(what, len(items), bundle.record.words.items) as bar:
        for item, found in zip(items, bundle.answer_many(asked), strict=True):
            if isinstance(found, Failure):
                raise QuantrustError(f"item {item.item_id}: {found.error}; mend it, or leave it out of the table")
            rows.append((found.answer, found.confidence))
            bar.update()
    return judged(items, rows, task)


def judged(items: Sequence[LabelledItem], answers: Sequence[tuple[str, float]], task: str) -> pl.DataFrame:
    """Return answers and confidences to items as a table, judged where all items have reference answers."""
    given = [(item.item_id, item.group, *answer) for item, answer in zip(items, answers, strict=True)]
    schema = {"question_id": pl.String, "image_id": pl.String, "answer": pl.String, "confidence": pl.Float64}
    table = pl.DataFrame(given, schema=schema, orient="row")
    if not all(item.answers for item in items):
        return table
    quality = load_task(task).judge([item.answers for item in items])
    values = [quality(answer, item.answers) for (answer, _), item in zip(answers, items, strict=True)]
    return table.with_columns(quality=pl.Series(values, dtype=pl.Float64))
