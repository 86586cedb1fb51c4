"""Files of items to answer: tables, and the official questions of datasets. No torch."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantrust.bundle.items import Item
from quantrust.data.format import load_format, read_official, recognised
from quantrust.data.labelled import questions_or
from quantrust.data.official import COCO_IMAGE_NAME, Files, by_id, image_path, list_under, place_of, some_questions
from quantrust.data.records import MISSING, read_records
from quantrust.data.records import SUFFIXES as TABLES
from quantrust.data.texts import identifier, text
from quantrust.errors import QuantrustError
from quantrust.files import read_json


def read_items(
    path: str | Path, images: str | Path | None = None, format_name: str | None = None, asked: str | None = None
) -> list[Item]:
    """Read items from a file.

    Parameters
    ----------
    path : str or Path
        A JSONL, CSV or Parquet table with the columns ``image``, ``question`` and, if need be, ``id``. Or ``.json``:
        the official questions of a dataset, or its annotations where they have the questions.
    images : str or Path, optional
        The folder that images are named from. By default it is that of the file; official files need it.
    format_name : str, optional
        The format of official files; by default the one that they look like.
    asked : str, optional
        What a bundle asks about every image: the question of items that have none. A table then needs no column
        ``question``.

    Returns
    -------
    list of Item
        Each with an identifier of its own: that of the file, or the number of its row, from 1 on.

    Raises
    ------
    QuantrustError
        If the file cannot be read, is of none of these forms, holds no item, lacks a column, or has an identifier
        twice, or there is no such folder. Whether an image is there, or a question can be asked, is not looked at.
    """
    path = Path(path)
    if images is not None and not Path(images).is_dir():
        raise QuantrustError(f"--images {images}: no such folder; expected the folder of the items' images")
    if path.suffix in TABLES:
        items = _table(path, path.parent if images is None else Path(images), asked)
    elif path.suffix == ".json":
        if images is None:
            raise QuantrustError(f"{path}: official questions name images without their folder; give it with --images")
        items = _official(path, images, format_name)
        if asked is not None:
            items = [replace(item, question=item.question or asked) for item in items]
    else:
        raise QuantrustError(f"{path}: expected a file whose name ends in {', '.join(TABLES)} or .json")
    seen: set[str | None] = set()
    for item in items:
        if item.item_id in seen:
            raise QuantrustError(f"{path}: the id {item.item_id!r} occurs twice; expected each once")
        seen.add(item.item_id)
    return items


def _table(path: Path, folder: Path, asked: str | None) -> list[Item]:
    records = read_records(path)
    images = records.column("image")
    questions = records.column("question") if asked is None else questions_or(asked, records)
    ids = records.columns.get("id", [MISSING] * records.size)
    rows = zip(images, questions, ids, strict=True)
    return [_item(*row, number, folder, records.where(number - 1)) for number, row in enumerate(rows, start=1)]


def _item(image: Any, question: Any, given: Any, number: int, folder: Path, where: str) -> Item:
    name, asked = text(image, "image", where), text(question, "question", where)
    item_id = str(number) if given is MISSING or given in (None, "") else identifier(given, "id", where)
    return Item(str(folder / name), asked, item_id)


def _official(path: Path, images: str | Path, format_name: str | None) -> list[Item]:
    content = read_json(path)
    if isinstance(content, dict) and "questions" in content and format_name in (None, "vqav2"):
        asked = by_id(list_under(content, "questions", path), path)
        some_questions(asked, path)
        return list(_questions_alone(path, asked, images))
    name = recognised(Files(path)) if format_name is None else format_name
    load_format(name)
    return [Item(one.image, one.question, one.question_id) for one in read_official(name, Files(path, images=images))]


def _questions_alone(path: Path, asked: Mapping[str, dict[str, Any]], images: str | Path) -> Iterable[Item]:
    """Yield the items of a VQAv2 file of questions, which needs no annotations to be answered."""
    files = Files(path, images=images)
    for question_id, record in asked.items():
        where = place_of(path, question_id)
        image_id = identifier(record.get("image_id"), "image_id", where)
        name = image_path(record, image_id, files, COCO_IMAGE_NAME, where)
        yield Item(name, text(record.get("question"), "question", where), question_id)
