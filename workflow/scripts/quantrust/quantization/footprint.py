"""What quantizing takes in device and host memory and in files, estimated from shapes before any weight is read.

Everything is computed in float32, a part of the model at a time, so that its depth does not count. The largest step is
the peak:

* quantizing a layer: `WORKING` bytes a weight of the largest one that is quantized;
* a batch of pictures through a block of the vision tower: the block's weights, its activations
  (`Stack.activations`), and the pixels; where scales are searched there, what the search reads of the batch as well;
* a micro-batch through a block of the language model: the same, and the weights of the largest group of linears once
  more, which a search tries out;
* for MBQ the same micro-batch backward: `SAVED` times the activations, and at the head, whose weights are held then,
  three copies of the logits of a caption;
* for GPTQ the Hessians of a block, and of the largest one a float64 copy and its factor.

Between blocks the activations of all samples lie in host memory up to an eighth of the model (`ACTIVATION_SHARE`), and
beyond it in files that are deleted at the end:

* for a search twice what enters a block, what its groups read and yield, and the largest of these once more;
* for MBQ what enters every block of the language model;
* for GPTQ twice what enters a block.

Host memory also holds a tensor on its way from and to the files.
"""

from dataclasses import dataclass

import polars as pl
from torch import nn

from quantrust.models.family import Family
from quantrust.models.footprint import (
    CUDA_LIBRARIES,
    LIBRARIES,
    SLACK,
    Footprint,
    Stack,
    language_stack,
    vision_stack,
)
from quantrust.quantization.calibration import BATCH_PIXELS, BATCH_SIZE, BATCH_STATES
from quantrust.quantization.scheme import Scheme

ACTIVATION_SHARE = 8
"""Activations between blocks take one part in so many of the model's size in bfloat16 before they go to files."""

LEAST_ACTIVATION_BYTES = 1 << 26

ITEMSIZE = 4

WORKING = 13
"""Bytes a weight: itself, what it is divided by its scale, its code, and the dequantized weight with its error."""

SOLVER = 1 << 23
"""Bytes that a method takes for the weights that it looks at together."""

SAVED = 2
"""Activations of a block that the backward pass needs and makes, by those of its forward pass."""

ANSWER_TOKENS = 256
"""Of a calibration sample's caption."""


@dataclass(frozen=True)
class Samples:
    """What a scheme is calibrated on.

    Attributes
    ----------
    count : int
    tokens : int
        Of the longest: prompt, picture and caption.
    patches : int
        Of the largest picture, as the vision tower reads it.
    pixel_bytes : int
        Of that picture, preprocessed.
    """

    count: int
    tokens: int
    patches: int
    pixel_bytes: int


def activation_budget(sizes: dict[str, int | float | None]) -> int:
    """Return how many bytes activations between blocks take in host memory before they go to files.

    Parameters
    ----------
    sizes : dict
        The checkpoint's `bytes`.
    """
    return max(LEAST_ACTIVATION_BYTES, sizes["bfloat16"] // ACTIVATION_SHARE)


def quantize_footprint(
    family: Family,
    model: nn.Module,
    layers: pl.DataFrame,
    sizes: dict[str, int | float | None],
    scheme: Scheme,
    samples: Samples | None,
    device: str,
) -> Footprint:
    """Estimate the memory and the files that quantizing takes.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Unquantized; its weights may be on the meta device.
    layers : polars.DataFrame
        The plan of the checkpoint.
    sizes : dict
        The checkpoint's `bytes`.
    scheme : Scheme
    samples : Samples or None
        None where the scheme reads no data.
    device : {"cpu", "cuda"}

    Returns
    -------
    Footprint
    """
    chosen = layers.filter(pl.col("bits").is_not_null())
    steps = [WORKING * int((chosen["rows"] * chosen["columns"]).max()) + SOLVER] if len(chosen) else [0]
    stored = 0
    if samples is not None:
        vision, language = vision_stack(family, model), language_stack(family, model)
        steps += [
            _seeing(vision, samples, "vision" in scheme.components),
            *_reading(language, samples, scheme, model.lm_head.weight.numel()),
        ]
        stored = samples.count * samples.tokens * ITEMSIZE * _stored_channels(language, scheme)
        stored += samples.count * samples.pixel_bytes
        if "vision" in scheme.components:
            stored = max(stored, samples.count * samples.patches * ITEMSIZE * _searched_channels(vision))
    computing = int(SLACK * max(steps))
    budget = activation_budget(sizes)
    tensor = ITEMSIZE * max(parameter.numel() for parameter in model.parameters())
    held = min(stored, budget) + tensor
    scratch = max(0, stored - budget)
    if device == "cpu":
        return Footprint(0, 0, LIBRARIES + computing + held, scratch)
    return Footprint(computing, computing, CUDA_LIBRARIES + held, scratch)


def _seeing(vision: Stack, samples: Samples, searched: bool) -> int:
    numbers = max(1, samples.pixel_bytes // ITEMSIZE)
    pictures = min(BATCH_SIZE, samples.count, max(1, BATCH_PIXELS // numbers))
    patches = pictures * samples.patches
    taken = ITEMSIZE * vision.weights + vision.activations(patches, ITEMSIZE) + pictures * samples.pixel_bytes
    if searched:
        taken += ITEMSIZE * (patches * _searched_channels(vision) + vision.weights)
    return taken


def _reading(language: Stack, samples: Samples, scheme: Scheme, head: int) -> list[int]:
    together = min(BATCH_SIZE, samples.count, max(1, BATCH_STATES // (samples.tokens * language.hidden)))
    tokens = together * samples.tokens
    forward = ITEMSIZE * language.weights + language.activations(tokens, ITEMSIZE)
    steps = [forward]
    if scheme.searches_scales:
        group = 2 * language.widest * language.hidden
        steps.append(forward + ITEMSIZE * (tokens * _searched_channels(language) + group))
    if scheme.method == "mbq":
        steps.append(forward + SAVED * language.activations(tokens, ITEMSIZE))
        logits = min(tokens, together * ANSWER_TOKENS) * head // language.hidden
        steps.append(ITEMSIZE * (head + 2 * tokens * language.hidden + 3 * logits))
    if scheme.method == "gptq":
        hessians = 3 * language.hidden**2 + language.widest**2
        steps.append(forward + ITEMSIZE * hessians)
        steps.append(ITEMSIZE * (language.weights + hessians) + 12 * max(language.widest, language.hidden) ** 2)
    return steps


def _searched_channels(stack: Stack) -> int:
    """Return the numbers that a search keeps of a token: what its groups read and yield, and the block itself."""
    return 8 * stack.hidden + 2 * stack.widest


def _stored_channels(stack: Stack, scheme: Scheme) -> int:
    """Return the numbers that are stored of a token between blocks."""
    if scheme.method == "gptq":
        return 2 * stack.hidden
    entering = (stack.depth + 2) * stack.hidden if scheme.method == "mbq" else 0
    return max(entering, _searched_channels(stack))
