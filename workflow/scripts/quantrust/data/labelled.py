"""Items of a user's own table: questions about images, with or without reference answers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.data.images import read_image
from quantrust.data.records import MISSING, Records, read_records
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError
from quantrust.files import parse_json
from quantrust.progress import progress


@dataclass(frozen=True)
class LabelledItem:
    """A question about an image.

    Attributes
    ----------
    item_id : str
    image : Path
    question : str
        Empty where a bundle is shown the image alone.
    answers : tuple of str
        Reference answers; empty where the table has none.
    group : str
        What tells images apart: the table's own `image_id`, or the SHA-256 of the image file.
    """

    item_id: str
    image: Path
    question: str
    answers: tuple[str, ...]
    group: str


def read_labelled(path: str | Path, *, with_answers: bool = True, asked: str | None = None) -> list[LabelledItem]:
    """Read items, and every image once.

    Parameters
    ----------
    path : str or Path
        A JSONL, CSV or Parquet file with the columns ``image`` (a path, from the folder of the table on), ``question``
        and ``answers`` (a text, or a list of texts; in CSV a list in JSON), or ``answer``. ``id`` and ``image_id`` are
        optional. Rows with one image_id, and without it rows whose image files have the same bytes, are about one
        image.
    with_answers : bool
        Whether every row needs reference answers. Otherwise either all rows have some, or they are passed over.
    asked : str, optional
        What a bundle asks about every image: the question of rows that have none.

    Raises
    ------
    QuantrustError
        If the table cannot be read, a column is missing, an entry is not what it must be, an id stands twice, or an
        image cannot be used. The message names file and line.
    """
    records = read_records(path)
    names = [shown_id(value, records.where(row)) for row, value in enumerate(_ids(records))]
    if len(set(names)) < len(names):
        place = next(place for place, name in enumerate(names) if name in names[:place])
        raise QuantrustError(f"{records.where(place)}: has the id {shown(names[place])} again; expected every id once")
    folder = records.path.parent
    images = [folder / _text(value, records, row, "image") for row, value in enumerate(_column(records, "image"))]
    given = _column(records, "question") if asked is None else questions_or(asked, records)
    questions = [value if value == asked else _text(value, records, row, "question") for row, value in enumerate(given)]
    answers = _answers(records, with_answers)
    digests = _digests(images, records)
    groups = digests
    if records.has("image_id"):
        groups = [shown_id(value, records.where(row)) for row, value in enumerate(_column(records, "image_id"))]
    return [LabelledItem(*item) for item in zip(names, images, questions, answers, groups, strict=True)]


def questions_or(asked: str, records: Records) -> list[Any]:
    """Return the questions of a table, in the place of absent and empty ones what is asked about every image."""
    given = records.columns.get("question", [MISSING] * records.size)
    return [asked if question is MISSING or question in (None, "") else question for question in given]


def shown_id(value: Any, where: str) -> str:
    """Return an identifier as a text; raises a `QuantrustError` if it is neither a text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise QuantrustError(f"{where}: has the id {shown(value)}; expected a text or a whole number")
    return str(value)


def _ids(records: Records) -> Sequence[Any]:
    return records.column("id") if records.has("id") else records.places


def _column(records: Records, name: str) -> Sequence[Any]:
    if name not in records.columns:
        raise QuantrustError(
            f"{records.path}: has no column {name}; expected the columns image, question and answers, as in "
            '{"image": "cat.png", "question": "what animal is it?", "answers": ["cat"]}'
        )
    return records.column(name)


def _text(value: Any, records: Records, row: int, name: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\x00" in value:
        raise QuantrustError(f"{records.where(row)}: {name} is {shown(value)}; expected a text")
    return value


def _answers(records: Records, needed: bool) -> list[tuple[str, ...]]:
    name = next((name for name in ("answers", "answer") if name in records.columns), None)
    if name is None:
        if needed:
            _column(records, "answers")
        return [()] * records.size
    values = records.columns[name]
    if not needed and any(_is_empty(value) for value in values):
        return [()] * records.size
    return [_references(value, records, row, name) for row, value in enumerate(values)]


def _is_empty(value: Any) -> bool:
    return value is MISSING or value is None or value in ("", [])


def _references(value: Any, records: Records, row: int, name: str) -> tuple[str, ...]:
    if isinstance(value, str) and records.is_text and value.lstrip().startswith("["):
        value = parse_json(value, f"{records.where(row)}: {name}")
    references = [value] if isinstance(value, str) else value
    if not isinstance(references, list) or not references or not all(isinstance(one, str) for one in references):
        raise QuantrustError(
            f"{records.where(row)}: {name} is {'missing' if value is MISSING else shown(value)}; expected a text or a "
            "list of texts"
        )
    return tuple(references)


def _digests(images: Sequence[Path], records: Records) -> list[str]:
    """Return the SHA-256 of every image file, each of which is opened once."""
    rows = {path: row for row, path in reversed([*enumerate(images)])}
    found: dict[Path, str] = {}
    for path, row in rows.items():
        if not path.exists():
            raise QuantrustError(f"{records.where(row)}: image {path}: no such file")
    with progress("reading images", len(rows), "images") as bar:
        for path, row in sorted(rows.items(), key=lambda pair: pair[1]):
            try:
                read_image(path)
            except QuantrustError as error:
                raise QuantrustError(f"{records.where(row)}: image {path}: {error}") from None
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            bar.update()
    return [found[path] for path in images]
