"""The device and host memory of a match dump, estimated from shapes before any weight is read.

Held all the while are the weights, as in a feature dump (`quantrust.inference.working_memory`), what the vision tower
made of all images of a split, up to `HELD`, and the embeddings of all images. Beside them comes the largest of

* a vision step, with what it makes of the pictures;
* a judging step: what the pairs of a batch look at, stacked; keys and values of it in one block; and the block
  activations of queries and captions, each caption as long as it may be;
* the similarities of embeddings that are compared at once, and the same in order.
"""

from dataclasses import replace

import polars as pl
import torch
from torch import nn

from quantrust.data.queries import MOST_TOKENS
from quantrust.inference.matching import COMPARED_AT_ONCE, HELD
from quantrust.inference.settings import MatchSettings
from quantrust.inference.working_memory import preprocessed_ahead, scores, vision_step, weights_held
from quantrust.models.block_shapes import language_stack, vision_stack
from quantrust.models.family import Family
from quantrust.models.footprint import CUDA_LIBRARIES, LIBRARIES, SLACK, Footprint
from quantrust.models.pictures import PictureCost


def match_footprint(
    family: Family,
    model: nn.Module,
    layers: pl.DataFrame,
    sizes: dict[str, int | float | None],
    picture: PictureCost,
    images: int,
    settings: MatchSettings,
    workers: int,
) -> Footprint:
    """Estimate the memory of a match dump.

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
        Of the largest pictures.
    images : int
        Of the largest split.
    settings : MatchSettings
    workers : int
        Processes that preprocess pictures.

    Returns
    -------
    Footprint
        `scratch` has the features of images that memory does not hold.
    """
    itemsize = getattr(torch, settings.dtype).itemsize
    features = _features(family, model, picture, itemsize)
    kept = min(HELD, images * features)
    # the channels of embeddings are no more than those of the states that they are made from
    embeddings = images * picture.tokens * language_stack(family, model).hidden * 4
    compared = 2 * COMPARED_AT_ONCE * 4
    on_host = kept + embeddings + preprocessed_ahead(picture, settings.images_per_batch, workers)
    scratch = images * features - kept
    held = weights_held(layers, sizes, settings.kernel, itemsize)
    step = _step(family, model, picture, settings, itemsize)
    if settings.device == "cpu":
        return Footprint(0, 0, int(LIBRARIES + SLACK * (held + max(step, compared)) + on_host), scratch)
    least = _step(family, model, picture, replace(settings, batch_size=1, images_per_batch=1), itemsize)
    largest = max(parameter.numel() for parameter in model.parameters())
    return Footprint(
        int(SLACK * (held + step)),
        int(SLACK * (held + least)),
        CUDA_LIBRARIES + on_host + compared + 2 * largest * itemsize,
        scratch,
    )


def _features(family: Family, model: nn.Module, picture: PictureCost, itemsize: int) -> int:
    """Return the bytes of what queries look at in a picture: its patches, and a token of the whole for every tile."""
    return (picture.patches + picture.tiles) * vision_stack(family, model).hidden * itemsize


def _step(family: Family, model: nn.Module, picture: PictureCost, settings: MatchSettings, itemsize: int) -> int:
    features, reader = _features(family, model, picture, itemsize), language_stack(family, model)
    seeing = vision_step(vision_stack(family, model), picture, settings, itemsize)
    seeing += settings.images_per_batch * features
    length = picture.tokens + MOST_TOKENS
    looked_at = settings.batch_size * (picture.patches + picture.tiles)
    # fetched, and stacked
    judging = 2 * settings.batch_size * features + looked_at * reader.cached * itemsize
    judging += reader.activations(settings.batch_size * length, itemsize)
    if settings.attention == "eager":
        judging += scores(reader, settings.batch_size, max(length, picture.patches + picture.tiles), itemsize)
    return max(seeing, judging)
