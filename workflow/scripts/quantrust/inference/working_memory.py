"""The device and host memory of a feature dump, estimated from shapes before any weight is read.

The largest prompts count: a batch of `batch_size` questions of `QUESTION_TOKENS`, each about a picture of the size
that is given. Held all the while are

* the weights: of quantized layers codes, scales and zeros as stored (or as packed kernels hold them), everything else
  in the dtype of the computation;
* with the reference kernel what dequantizing the largest quantized linear needs: codes (1 byte), float32 (4) and the
  dtype of the computation, a weight.

Beside them comes the larger of

* a vision step: pixels and block activations (`Stack.activations`) of `images_per_batch` pictures, and the features
  of a chunk of pictures;
* a decoding step: those features, keys and values of the images of up to two batches, which are read before their
  questions, prompts as embeddings and their copy with the features in place, keys and values of all blocks for prompt
  and answer, of one block twice, and the largest of: the block activations of the prompts, what pooling their last
  states takes (two float32 copies), and logits (in the dtype of the computation, and three float32 copies). Where a
  decoder reads features of earlier vision blocks, they count as often as there are such blocks.

Eager attention adds a matrix of tokens by tokens for each head, in the dtype of the computation and in float32;
`sdpa` the mask, as truth values and in the dtype of the computation.

A job on the CPU has all this in host memory, beside the libraries. A job on a GPU has there the pictures that are
preprocessed ahead, a tensor of the checkpoint on its way, and the rows of a chunk.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from quantrust.inference.settings import DumpSettings, MatchSettings
from quantrust.models.block_shapes import Stack, language_stack, vision_stack
from quantrust.models.device_memory import require_device_memory
from quantrust.models.family import Family
from quantrust.models.footprint import CUDA_LIBRARIES, LIBRARIES, SLACK, Footprint
from quantrust.models.pictures import PictureCost, picture_cost
from quantrust.models.skeleton import build_skeleton

QUESTION_TOKENS = 64
"""Of the longest questions."""

QUESTIONS_PER_IMAGE = 8
"""Of which the rows of a chunk are held."""

WORKER = 150_000_000
"""Of a process that preprocesses pictures, beyond what it shares."""

BATCHES_AHEAD = 2
"""Batches of pictures that each of them has ready."""


def dump_footprint(
    family: Family,
    model: nn.Module,
    layers: pl.DataFrame,
    sizes: dict[str, int | float | None],
    picture: PictureCost,
    settings: DumpSettings,
    workers: int,
) -> Footprint:
    """Estimate the memory of a feature dump.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Unquantized; its weights may be on the meta device.
    layers : polars.DataFrame
        The layer plan of the checkpoint.
    sizes : dict
        The checkpoint's `bytes`.
    picture : PictureCost
        Of the largest pictures, with the prompt of the settings.
    settings : DumpSettings
    workers : int
        Processes that preprocess pictures.

    Returns
    -------
    Footprint
    """
    itemsize = getattr(torch, settings.dtype).itemsize
    largest = max(parameter.numel() for parameter in model.parameters())
    computing = _computing(family, model, layers, sizes, picture, settings, itemsize)
    rows = settings.images_per_chunk * QUESTIONS_PER_IMAGE * 3 * language_stack(family, model).hidden * 8
    preprocessed = preprocessed_ahead(picture, settings.images_per_batch, workers)
    if settings.device == "cpu":
        return Footprint(0, 0, LIBRARIES + computing + preprocessed + rows)
    alone = replace(settings, batch_size=1, images_per_batch=1)
    least = _computing(family, model, layers, sizes, picture, alone, itemsize)
    return Footprint(computing, least, CUDA_LIBRARIES + preprocessed + rows + 2 * largest * itemsize)


def require_device(
    checkpoint_folder: str | Path,
    record: dict[str, Any],
    picture: tuple[int, int],
    settings: DumpSettings,
    memory: tuple[int, int] | None = None,
) -> None:
    """Raise when a GPU has too little free memory for one question about one picture beside a chunk's features.

    Larger batches are not refused, because a batch that does not fit is halved. A chunk is not halved.

    Parameters
    ----------
    checkpoint_folder : str or Path
    record : dict
        The content of its `quantization.json`.
    picture : tuple of int
        Width and height of one that is asked about.
    settings : DumpSettings
    memory : tuple of int, optional
        Bytes of the GPU that no process holds, and all of them; asked of the driver by default.

    Raises
    ------
    QuantrustError
    """
    with torch.device("meta"):
        family, model = build_skeleton(checkpoint_folder)
    processor = family.load_processor(str(checkpoint_folder))
    cost = picture_cost(family, model, processor, settings.prompt, *picture)
    layers = pl.DataFrame(record["layers"], infer_schema_length=None)
    needed = dump_footprint(family, model, layers, record["bytes"], cost, settings, workers=0).least
    require_device_memory(
        f"answering with {checkpoint_folder}",
        needed,
        settings.device,
        "take a larger GPU, a scheme with fewer bits, features.kernel: packed, or a smaller features.images_per_chunk; "
        "more shards do not help",
        memory,
    )


def _computing(
    family: Family,
    model: nn.Module,
    layers: pl.DataFrame,
    sizes: dict[str, int | float | None],
    picture: PictureCost,
    settings: DumpSettings,
    itemsize: int,
) -> int:
    vision, language = vision_stack(family, model), language_stack(family, model)
    held = weights_held(layers, sizes, settings.kernel, itemsize)
    levels = family.deepstack_levels(model)
    features = settings.images_per_chunk * picture.tokens * language.hidden * itemsize * (1 + levels)
    seeing = vision_step(vision, picture, settings, itemsize)
    length = picture.prompt_tokens + QUESTION_TOKENS
    tokens = settings.batch_size * length
    cached = settings.batch_size * (length + settings.max_new_tokens) * language.cached * itemsize
    block = language.activations(tokens, itemsize)
    if settings.attention == "eager":
        block += scores(language, settings.batch_size, length, itemsize)
    elif settings.attention == "sdpa":
        block += settings.batch_size * length**2 * (1 + itemsize)
    pooling = tokens * language.hidden * (itemsize + 2 * 4)
    logits = settings.batch_size * model.get_submodule(family.head).out_features * (itemsize + 3 * 4)
    images = min(settings.images_per_chunk, 2 * settings.batch_size) if family.reads_in_parts else 0
    read = images * picture.prompt_tokens * language.cached
    states = (2 + levels) * tokens * language.hidden * itemsize
    decoding = states + (cached + read * itemsize) * language.depth + cached + max(block, pooling, logits)
    return int(SLACK * (held + features + max(seeing, decoding)))


def _largest_linear(layers: pl.DataFrame) -> int:
    """Return the weights of the largest quantized layer that multiplies, 0 where there is none."""
    multiplied = layers.filter(pl.col("bits").is_not_null() & (pl.col("component") != "embedding"))
    return int((multiplied["rows"] * multiplied["columns"]).max() or 0)


def weights_held(layers: pl.DataFrame, sizes: dict[str, int | float | None], kernel: str, itemsize: int) -> int:
    """Return the bytes of the weights, and of what dequantizing the largest quantized linear takes.

    Parameters
    ----------
    layers : polars.DataFrame
        The layer plan of the checkpoint.
    sizes : dict
        The checkpoint's `bytes`.
    kernel : {"reference", "packed"}
    itemsize : int
        Bytes of a number in the dtype of the computation.
    """
    held = sizes["resident_packed" if kernel == "packed" else "resident"]
    # weights that are not quantized are stored in two bytes
    held += sizes["unquantized"] * (itemsize - 2) // 2
    return int(held) + (_largest_linear(layers) * (1 + 4 + itemsize) if kernel == "reference" else 0)


def vision_step(vision: Stack, picture: PictureCost, settings: DumpSettings | MatchSettings, itemsize: int) -> int:
    """Return the bytes of pixels and block activations while a batch of pictures passes the vision tower."""
    count = settings.images_per_batch
    seeing = vision.activations(count * picture.patches, itemsize) + count * picture.pixel_bytes
    if settings.attention == "eager":
        seeing += scores(vision, count * picture.tiles, picture.patches // picture.tiles, itemsize)
    return seeing


def preprocessed_ahead(picture: PictureCost, images_per_batch: int, workers: int) -> int:
    """Return the bytes of host memory of the pictures that are preprocessed ahead, and of who does it."""
    return max(1, workers * BATCHES_AHEAD) * images_per_batch * picture.pixel_bytes + workers * WORKER


def scores(stack: Stack, sequences: int, length: int, itemsize: int) -> int:
    """Return the bytes that eager attention adds: a matrix of tokens by tokens for each head, twice."""
    return sequences * stack.heads * length**2 * (itemsize + 4)
