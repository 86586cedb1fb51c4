"""What calibrating takes in memory and in files, estimated from shapes before any weight is read.

Everything is computed in float32, a part of the model at a time, so that its depth does not count. Of what runs:

* a batch of pictures through a block of the vision tower: the block's weights, its activations (`Stack.activations`),
  and the pixels;
* a micro-batch through a block of the language model: the block's weights and its activations.

Between blocks the activations of all samples lie in host memory up to an eighth of the model
(`quantrust.quantization.quantizing_memory.ACTIVATION_SHARE`), and beyond it in files that are deleted at the end. Those
are pictures, then prompts as well, and the larger of what is stored between blocks of the vision tower and between
blocks of the language model; with them sines and cosines of positions. The modules of
`quantrust.quantization.walks` say what each kind of method adds.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import polars as pl
from torch import nn

from quantrust.models.block_shapes import Stack, language_stack, vision_stack
from quantrust.models.family import Family, Role
from quantrust.models.pictures import patches_of
from quantrust.quantization.calibration_samples import BATCH_PIXELS, BATCH_SIZE, BATCH_STATES, vision_batches
from quantrust.quantization.method import CalibrationMemory, Method, Samples
from quantrust.quantization.quantizing_memory import ITEMSIZE
from quantrust.quantization.scale_search import stored_channels
from quantrust.quantization.scheme import Scheme

ANSWER_TOKENS = 256
"""Of a calibration sample's caption."""


@dataclass(frozen=True)
class Pass:
    """A batch on its way through a stack of blocks.

    Attributes
    ----------
    stack : Stack
    searched : int
        Numbers that searching the scales of a block stores of a token (`stored_channels`).
    samples : Samples
    batch : int
        Samples in it.
    tokens : int
        Tokens in it; in the vision tower patches.
    forward : int
        Bytes that a block takes while it runs on it.
    """

    stack: Stack
    searched: int
    samples: Samples
    batch: int
    tokens: int
    forward: int


@dataclass(frozen=True, kw_only=True)
class CalibratedMethod(Method):
    """The record of a method that reads calibration samples."""

    @abstractmethod
    def vision_steps(self, seeing: Pass) -> list[int]:
        """Return the bytes that the steps of quantizing a block of the vision tower take."""

    @abstractmethod
    def language_steps(self, reading: Pass, head: int) -> list[int]:
        """Return the bytes that the steps of quantizing a block of the language model take.

        Parameters
        ----------
        reading : Pass
        head : int
            Weights of the head.
        """

    @abstractmethod
    def language_stored(self, reading: Pass, budget: int) -> int:
        """Return the bytes that are stored between blocks of the language model, beside the prompts."""

    def vision_channels(self, seeing: Pass) -> int:
        """Return the numbers that are stored of a patch between blocks of a vision tower that is quantized.

        What the vision tower yields, what enters the connector and what leaves it.
        """
        return 3 * seeing.stack.hidden

    def calibration_memory(
        self, family: Family, model: nn.Module, scheme: Scheme, samples: Samples, budget: int
    ) -> CalibrationMemory:
        """Estimate what calibration takes; `budget` is how many bytes of activations stay in memory."""
        seeing, reading = (
            _seeing(vision_stack(family, model), _searched(family, model, "vision"), samples),
            _reading(language_stack(family, model), _searched(family, model, family.reader), samples),
        )
        vision, language = seeing.stack, reading.stack
        steps = [
            seeing.forward,
            reading.forward,
            *self.language_steps(
                reading, 0 if family.head is None else model.get_submodule(family.head).weight.numel()
            ),
        ]
        # features of earlier vision blocks are stored with the prompts, and once more as what decoder blocks read
        states = language.hidden * (1 + 2 * family.deepstack_levels(model))
        prompts = samples.count * samples.tokens * ITEMSIZE * (states + _position_channels(language))
        if not family.has_language_model:
            # what its cross-attention reads is stored with a prompt
            prompts += samples.count * samples.patches * ITEMSIZE * vision.hidden
        channels = 3 * vision.hidden
        if "vision" in scheme.components:
            steps += self.vision_steps(seeing)
            channels = self.vision_channels(seeing)
        seen = samples.count * samples.patches * ITEMSIZE * (channels + _position_channels(vision))
        read = prompts + self.language_stored(reading, budget)
        return CalibrationMemory(steps, samples.count * samples.pixel_bytes + max(seen, read))


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
        If that picture cannot be read.
    """
    largest = table["roles"].list.count_matches(int(Role.IMAGE)).arg_max()
    (inputs,) = vision_batches(family, processor, table[largest : largest + 1])
    return Samples(
        count=len(table),
        tokens=int(table["token_ids"].list.len().max()),
        patches=patches_of(family, model, inputs),
        pixel_bytes=sum(tensor.nbytes for tensor in inputs.tensors.values()),
    )


def _searched(family: Family, model: nn.Module, component: str) -> int:
    return max(stored_channels(model, family.scale_groups(model, block)) for block in family.blocks(model, component))


def _seeing(vision: Stack, searched: int, samples: Samples) -> Pass:
    numbers = max(1, samples.pixel_bytes // ITEMSIZE)
    pictures = min(BATCH_SIZE, samples.count, max(1, BATCH_PIXELS // numbers))
    patches = pictures * samples.patches
    forward = ITEMSIZE * vision.weights + vision.activations(patches, ITEMSIZE) + pictures * samples.pixel_bytes
    return Pass(vision, searched, samples, pictures, patches, forward)


def _reading(language: Stack, searched: int, samples: Samples) -> Pass:
    together = min(BATCH_SIZE, samples.count, max(1, BATCH_STATES // (samples.tokens * language.hidden)))
    tokens = together * samples.tokens
    forward = ITEMSIZE * language.weights + language.activations(tokens, ITEMSIZE)
    return Pass(language, searched, samples, together, tokens, forward)


def _position_channels(stack: Stack) -> int:
    """Return the numbers that are stored of a token's position: of time, height and width, as wide as a head."""
    return 6 * stack.hidden // stack.heads
