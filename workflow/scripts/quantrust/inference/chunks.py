"""Grouping questions to answer them together: chunks of images, cut once for a dataset, and shards of whole chunks.

A chunk is answered by itself: its images pass the vision tower in batches of their own, and its questions are decoded
in batches of similar lengths. No chunk depends on another one, so it does not matter how many jobs share them.
"""

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl

from quantrust.files import sha256


def cut_into_chunks(questions: pl.DataFrame, images_per_chunk: int) -> list[pl.DataFrame]:
    """Cut a questions table into chunks of a given number of images; all questions of an image are in one chunk.

    A chunk is of one split, so that a split by itself is answered in the same batches as within its dataset.

    Parameters
    ----------
    questions : polars.DataFrame
        With the columns `image` and `split`. No image is in two splits.
    images_per_chunk : int

    Returns
    -------
    list of polars.DataFrame
        Images in the order in which they first occur, the questions of a chunk in that of the table.
    """
    place = pl.int_range(pl.len()).over("split")
    order = questions.select("split", "image").unique(maintain_order=True)
    chunk = pl.concat_str("split", place // images_per_chunk, separator=" ").alias("_chunk")
    placed = questions.join(order.select("image", chunk), on="image", how="left", maintain_order="left")
    return placed.partition_by("_chunk", maintain_order=True, include_key=False) if len(questions) else []


def shard_chunks(sizes: Sequence[int], shard: int, shards: int) -> range:
    """Return the chunks of a shard: contiguous ones, with about as many questions in every shard.

    Parameters
    ----------
    sizes : sequence of int
        Questions of every chunk.
    shard, shards : int
        The first shard is 1 of `shards`. Where there are more shards than chunks, some have none.

    Returns
    -------
    range
        A chunk belongs to the shard that its middle question falls into.
    """
    total = sum(sizes)
    middles = [end - size / 2 for size, end in zip(sizes, accumulate(sizes), strict=True)]
    owners = [int(shards * middle / total) for middle in middles]
    return range(*(sum(owner < bound for owner in owners) for bound in (shard - 1, shard)))


def chunks_digest(questions_path: str | Path, images_per_chunk: int) -> str:
    """Return the SHA-256 of what chunks and their order depend on: the questions table and the images of a chunk."""
    return hashlib.sha256(f"{sha256(questions_path)} {images_per_chunk}".encode()).hexdigest()


def batch_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batch prompts of similar lengths, so that a batch holds little padding.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each prompt.
    batch_size : int

    Returns
    -------
    list of list of int
        Places in `lengths`, the longest first, so that what does not fit the memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
