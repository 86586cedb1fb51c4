"""Dividing a dataset into splits that share no image."""

import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.data.official import SPLITS
from quantrust.data.texts import identifier, shown
from quantrust.data.user_tables import FORMS, read_user_table, text_columns
from quantrust.errors import QuantrustError
from quantrust.files import read_json

SPLIT_SCHEMA = pl.Schema({"image_id": pl.String, "split": pl.String})


def split_by_image(image_ids: Iterable[str], shares: Mapping[str, float], seed: int) -> pl.DataFrame:
    """Draw each image's split at random, in given shares.

    The images are put in the order of their identifiers, shuffled, and cut where the cumulative shares fall, rounded to
    whole images. Neither the order of the questions nor how many an image has matters. The published division of VQAv2
    val2014 (Whitehead et al., ECCV 2022) is such a draw too, from another generator.

    Parameters
    ----------
    image_ids : iterable of str
        Repetitions do not matter.
    shares : mapping of str to float
        The share of every split, in [0, 1]; together 1.
    seed : int

    Returns
    -------
    polars.DataFrame
        Columns as in `SPLIT_SCHEMA`, a row per image, splits one after another, images in the order of their
        identifiers.

    Raises
    ------
    QuantrustError
        If a split with a share above 0 gets no image.
    """
    images = sorted(set(image_ids))
    shuffled = images.copy()
    random.Random(seed).shuffle(shuffled)
    split_of: dict[str, str] = {}
    start, reached = 0, 0.0
    for split, share in shares.items():
        reached += share
        end = math.floor(reached * len(images) + 0.5)
        if share > 0 and end == start:
            raise QuantrustError(f"{len(images)} images leave none for the split {split}, whose share is {share:g}")
        split_of |= dict.fromkeys(shuffled[start:end], split)
        start = end
    return _table(images, split_of, shares)


def read_split_file(path: str | Path, image_ids: Iterable[str], needed: Iterable[str]) -> pl.DataFrame:
    """Read which split each image is in.

    Parameters
    ----------
    path : str or Path
        A table (.csv or .parquet) with the columns ``image_id`` and ``split``, one row an image or one a question; or
        JSON, an object with a list of image identifiers for every split.
    image_ids : iterable of str
        The images of the dataset. The file may list more; those are left out.
    needed : iterable of str
        Splits that must have images.

    Returns
    -------
    polars.DataFrame
        As `split_by_image`.

    Raises
    ------
    QuantrustError
        If the file is missing or not of the form, names a split that no stage reads, an image is in two splits or one
        of `image_ids` in none, or a needed split has none of them.
    """
    split_of: dict[str, str] = {}
    for image_id, split in _pairs(path):
        if split not in SPLITS:
            allowed = ", ".join(SPLITS)
            raise QuantrustError(f"{path}: image {image_id}: is in the split {shown(split)}; expected {allowed}")
        if split_of.setdefault(image_id, split) != split:
            raise QuantrustError(
                f"{path}: image {image_id}: is in the splits {split_of[image_id]} and {split}; expected one"
            )
    images = sorted(set(image_ids))
    absent = [image_id for image_id in images if image_id not in split_of]
    if absent:
        raise QuantrustError(
            f"{path}: image {absent[0]}: is in no split (of {len(absent)} like it among {len(images)}); "
            "expected a split for every image of the dataset"
        )
    table = _table(images, split_of, SPLITS)
    for split in needed:
        if split not in table["split"]:
            raise QuantrustError(f"{path}: puts none of the {len(images)} images into the split {split}; expected some")
    return table


def _table(images: list[str], split_of: Mapping[str, str], splits: Iterable[str]) -> pl.DataFrame:
    rows = [(image_id, split) for split in splits for image_id in images if split_of[image_id] == split]
    return pl.DataFrame(rows, schema=SPLIT_SCHEMA, orient="row")


def _pairs(path: str | Path) -> list[tuple[str, str]]:
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        return _pairs_of_json(read_json(path), path)
    if suffix not in FORMS:
        raise QuantrustError(f"{path}: is not a split file; expected one that ends in .csv, .parquet or .json")
    expected = "image_id and split"
    table = text_columns(read_user_table(path, "a split file", expected), path, SPLIT_SCHEMA.names(), expected)
    empty = table.filter(pl.any_horizontal(pl.all().is_null()))
    if not empty.is_empty():
        raise QuantrustError(f"{path}: has a row without image_id or split: {shown(empty.row(0))}; expected both")
    return [(identifier(image_id, "image_id", str(path)), split) for image_id, split in table.iter_rows()]


def _pairs_of_json(value: Any, path: str | Path) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        raise QuantrustError(f"{path}: expected an object with a list of images for every split")
    pairs = []
    for split, images in value.items():
        identifier(split, "split", str(path))
        if not isinstance(images, list):
            raise QuantrustError(f"{path}: split {split}: expected a list of images, got {type(images).__name__}")
        for image_id in images:
            pairs.append((identifier(image_id, split, str(path)), split))
    return pairs
