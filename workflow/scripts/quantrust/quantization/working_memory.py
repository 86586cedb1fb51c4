"""What quantizing takes in device and host memory and in files, estimated from shapes before any weight is read.

Everything is computed in float32, a part of the model at a time, so that its depth does not count. The largest step is
the peak:

* loading a part (a block, the embedding, the head) and writing it: the part, and of its largest tensor a copy as it is
  stored, or in place of that what quantizing takes: `WORKING` bytes a weight of the largest layer that is quantized;
* a batch of pictures through a block of the vision tower: the block's weights, its activations
  (`Stack.activations`), and the pixels; where scales are searched there, what the search reads of the batch as well;
* a micro-batch through a block of the language model: the same, and the weights of the largest group of linears once
  more, which a search tries out;
* for MBQ the same micro-batch backward: `SAVED` times the activations, and at the head, whose weights are held then,
  three copies of the logits of a caption;
* for GPTQ the Hessians of a block; while one of them is factored, in its place `FACTORING` bytes a number.

Between blocks the activations of all samples lie in host memory up to an eighth of the model (`ACTIVATION_SHARE`), and
beyond it in files that are deleted at the end. Those are pictures, then prompts as well, and the most of

* what a vision tower that is not searched yields, what enters the connector and what leaves it;
* for a search twice what enters a block, and what those of its groups read and yield that are not searched yet, or of
  the last one twice that (`_searched_channels`);
* for MBQ what enters every block of the language model and leaves the last, of the micro-batches that go together
  (`batches_together`);
* for GPTQ twice what enters a block;

and with them sines and cosines of positions.

Beside a GPU host memory also holds a tensor on its way from and to the files.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl
from torch import nn

from quantrust.models.block_shapes import Stack, language_stack, vision_stack
from quantrust.models.components import STACKS
from quantrust.models.family import Family, Role
from quantrust.models.footprint import CUDA_LIBRARIES, LIBRARIES, SLACK, Footprint
from quantrust.models.pictures import patches_of
from quantrust.quantization.calibration_samples import BATCH_PIXELS, BATCH_SIZE, BATCH_STATES, vision_batches
from quantrust.quantization.methods.mbq import batches_together, kept_bytes
from quantrust.quantization.scheme import Scheme

ACTIVATION_SHARE = 8
"""Activations between blocks take one part in so many of the model's size in bfloat16 before they go to files."""

LEAST_ACTIVATION_BYTES = 1 << 26

ITEMSIZE = 4

WORKING = 13
"""Bytes a weight: itself, what it is divided by its scale, its code, and the dequantized weight with its error."""

COPY = 2
"""Bytes a weight: as it is read from a file in bfloat16, and as it is written."""

FACTORING = 12
"""Bytes a number of a Hessian: in double precision, and before that as summed, after that its inverse's root."""

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


def samples_of(family: Family, model: nn.Module, processor: Any, table: pl.DataFrame) -> Samples:
    """Return what a calibration table holds; of its pictures only the one with the most tokens is read.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Only shapes are read.
    processor : object
    table : polars.DataFrame
        As `build_calibration_table` returns it.

    Returns
    -------
    Samples

    Raises
    ------
    QuantrustError
        If that picture can not be read.
    """
    largest = table["roles"].list.count_matches(int(Role.IMAGE)).arg_max()
    (inputs,) = vision_batches(family, processor, table[largest : largest + 1])
    return Samples(
        count=len(table),
        tokens=int(table["token_ids"].list.len().max()),
        patches=patches_of(family, model, inputs),
        pixel_bytes=sum(tensor.nbytes for tensor in inputs.tensors.values()),
    )


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
    activation_bytes: int | None = None,
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
    activation_bytes : int or None
        As in `quantrust.quantization.quantize.quantize_model`.

    Returns
    -------
    Footprint
    """
    budget = activation_budget(sizes) if activation_bytes is None else activation_bytes
    chosen = layers.filter(pl.col("bits").is_not_null())
    steps = _loading(family, model, dict(chosen.select("layer", pl.col("rows") * pl.col("columns")).iter_rows()))
    stored = 0
    if samples is not None:
        vision, language = vision_stack(family, model), language_stack(family, model)
        steps += [
            *_seeing(vision, samples, scheme),
            *_reading(language, samples, scheme, model.get_submodule(family.head).weight.numel()),
        ]
        searched = scheme.searches_scales and "vision" in scheme.components
        channels = _searched_channels(vision) if searched else 3 * vision.hidden
        seen = samples.count * samples.patches * ITEMSIZE * (channels + _position_channels(vision))
        prompts = samples.count * samples.tokens * ITEMSIZE * (language.hidden + _position_channels(language))
        # the vision tower is searched last, with the prompts still there
        seen += prompts if searched else 0
        read = prompts + _read(language, samples, scheme, budget)
        stored = samples.count * samples.pixel_bytes + max(seen, read)
    computing = int(SLACK * max(steps))
    held = min(stored, budget)
    scratch = max(0, stored - budget)
    if device == "cpu":
        return Footprint(0, 0, LIBRARIES + computing + held, scratch)
    tensor = ITEMSIZE * max(parameter.numel() for parameter in model.parameters())
    return Footprint(computing, computing, CUDA_LIBRARIES + held + tensor, scratch)


def _loading(family: Family, model: nn.Module, chosen: dict[str, int]) -> list[int]:
    """Return what each part takes that is loaded, quantized in as far as it is `chosen`, and written."""
    parts = [block for component in STACKS for block in family.blocks(model, component)]
    parts += [layer.name for layer in family.layers(model) if layer.component in ("embedding", "head")]
    steps = []
    for part in parts:
        weights = [parameter.numel() for parameter in model.get_submodule(part).parameters()]
        quantized = [size for name, size in chosen.items() if f"{name}.".startswith(f"{part}.")]
        taken = max((size * (WORKING - ITEMSIZE) + SOLVER for size in quantized), default=0)
        steps.append(ITEMSIZE * sum(weights) + max(COPY * max(weights), taken))
    return steps


def _seeing(vision: Stack, samples: Samples, scheme: Scheme) -> list[int]:
    numbers = max(1, samples.pixel_bytes // ITEMSIZE)
    pictures = min(BATCH_SIZE, samples.count, max(1, BATCH_PIXELS // numbers))
    patches = pictures * samples.patches
    forward = ITEMSIZE * vision.weights + vision.activations(patches, ITEMSIZE) + pictures * samples.pixel_bytes
    if "vision" not in scheme.components:
        return [forward]
    if scheme.method == "gptq":
        return _solving(vision, forward)
    return [forward + ITEMSIZE * (patches * _recorded_channels(vision) + vision.weights)]


def _reading(language: Stack, samples: Samples, scheme: Scheme, head: int) -> list[int]:
    together = _together(language, samples)
    tokens = together * samples.tokens
    forward = ITEMSIZE * language.weights + language.activations(tokens, ITEMSIZE)
    steps = [forward]
    if scheme.searches_scales:
        group = 2 * language.widest * language.hidden
        steps.append(forward + ITEMSIZE * (tokens * _recorded_channels(language) + group))
    if scheme.method == "mbq":
        steps.append(forward + SAVED * language.activations(tokens, ITEMSIZE))
        logits = min(tokens, together * ANSWER_TOKENS) * head // language.hidden
        steps.append(ITEMSIZE * (head + 2 * tokens * language.hidden + 3 * logits))
    if scheme.method == "gptq":
        steps += _solving(language, forward)
    return steps


def _together(language: Stack, samples: Samples) -> int:
    """Return the samples of a micro-batch."""
    return min(BATCH_SIZE, samples.count, max(1, BATCH_STATES // (samples.tokens * language.hidden)))


def _solving(stack: Stack, forward: int) -> list[int]:
    """Return what GPTQ takes in a block: summing its Hessians, factoring them one by one, and quantizing with them."""
    narrow, wide, weights = stack.hidden**2, stack.widest**2, ITEMSIZE * stack.weights
    summed = ITEMSIZE * (3 * narrow + wide)
    layer = (WORKING - ITEMSIZE) * stack.hidden * stack.widest
    return [
        forward + summed,
        # the widest comes last
        weights + max(summed + (FACTORING - ITEMSIZE) * narrow, FACTORING * wide),
        weights + summed + layer + SOLVER,
    ]


def _read(language: Stack, samples: Samples, scheme: Scheme, budget: int) -> int:
    """Return the bytes that are stored between blocks of the language model."""
    states = samples.tokens * ITEMSIZE * language.hidden
    if scheme.method == "gptq":
        return 2 * samples.count * states
    searched = samples.count * samples.tokens * ITEMSIZE * _searched_channels(language)
    if scheme.method != "mbq":
        return searched
    size = _together(language, samples)
    # no micro-batch takes samples of two batches
    whole, rest = divmod(samples.count, BATCH_SIZE)
    batches = whole * -(-BATCH_SIZE // size) + -(-rest // size)
    together = batches_together(batches, size * states, language.depth, budget)
    return max(searched, kept_bytes(min(samples.count, together * size) * states, language.depth))


def _recorded_channels(stack: Stack) -> int:
    """Return the numbers that a search records of a token while a block runs: what its groups read and yield.

    That of the widest group is there once more while it is stored.
    """
    return 8 * stack.hidden + 2 * stack.widest


def _searched_channels(stack: Stack) -> int:
    """Return the numbers that a search stores of a token between blocks.

    Twice what enters the block, and what those groups read and yield that are not searched yet: all of them, or of the
    last, which reads the output of the widest linear, a copy in another order as well.
    """
    return max(9 * stack.hidden + stack.widest, 4 * stack.hidden + 2 * stack.widest)


def _position_channels(stack: Stack) -> int:
    """Return the numbers that are stored of a token's position: of time, height and width, as wide as a head."""
    return 6 * stack.hidden // stack.heads
