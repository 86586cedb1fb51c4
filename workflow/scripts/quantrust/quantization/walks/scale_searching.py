"""Methods that search scales of input channels, and round what is scaled by a method that reads no data.

Every search reads activations of the unquantized model, which equivalent scaling leaves unchanged. So the component
that runs last in the forward pass comes first, and within a component the blocks before have passed on what they yield
unquantized. A block is searched, folded, quantized and written before the next is looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor, nn

from quantrust.models.block_shapes import Stack
from quantrust.models.components import STACKS
from quantrust.models.family import Family, LanguageInputs, LayerRef, ScaleGroup
from quantrust.quantization.activation_store import fetch
from quantrust.quantization.calibration_memory import CalibratedMethod, Pass
from quantrust.quantization.calibration_runs import CalibratedWalk, CalibrationRuns, real_tokens
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.kernels.onednn import FastLinears
from quantrust.quantization.method import CalibrationMemory, Job, Rounding, Samples, Walk
from quantrust.quantization.method_traits import Reads
from quantrust.quantization.quantizing_memory import ITEMSIZE
from quantrust.quantization.scale_search import Batch, ScaleChoice, search_stack
from quantrust.quantization.scheme import Scheme
from quantrust.quantization.walks.data_free import DataFree

POWERS = {"mae": 1, "mse": 2}
KINDS = ("attention", "mlp")
"""The kinds of groups of linears in a block of the language model."""

NOTHING_ABSORBS = "unscaled grid: no operation before it can absorb a scale"
IN_NO_GROUP = "unscaled grid: no scale is searched for it"

TokenWeights = list[dict[str, list[Tensor]]]
"""For each micro-batch, kind of group and block of the language model what the error of each token counts.

Each is float32, shape (tokens,).
"""


class TokenWeighing:
    """How a method tells what the error of each token of the language model counts."""

    def weigh(self, runs: CalibrationRuns, prompts: Sequence[LanguageInputs]) -> tuple[TokenWeights, list[Any]]:
        """Return the weights of tokens, and the modality ratios that they rest on if there are any.

        Parameters
        ----------
        runs : CalibrationRuns
            With the unquantized model.
        prompts : sequence of LanguageInputs
            Micro-batches, with tensors stored.

        Returns
        -------
        weights : list of dict of str to list of Tensor
            See `TokenWeights`.
        ratios : list of dict
            What the checkpoint's record says under `modality_ratios`.
        """
        raise NotImplementedError

    def steps(self, reading: Pass, head: int) -> list[int]:
        """Return the bytes that its steps take: of a micro-batch in a block, and at the head with so many weights."""
        return []

    def stored(self, reading: Pass, budget: int) -> int:
        """Return the bytes that it stores between blocks of the language model, beside the prompts."""
        return 0


@dataclass(frozen=True)
class ByRole(TokenWeighing):
    """What a token counts depends on its role alone.

    Attributes
    ----------
    token_weights : callable
        Maps roles, int8 (tokens,), values of `quantrust.models.family.Role`, to weights, float32 (tokens,).
    """

    token_weights: Callable[[Tensor], Tensor]

    def weigh(self, runs: CalibrationRuns, prompts: Sequence[LanguageInputs]) -> tuple[TokenWeights, list[Any]]:
        """Return the same weights for every block."""
        blocks = len(runs.family.blocks(runs.model, "language"))
        weights = [self.token_weights(fetch(inputs.roles).flatten()) for inputs in prompts]
        return [dict.fromkeys(KINDS, [each] * blocks) for each in weights], []


class ScaleSearchingWalk(CalibratedWalk):
    """The walk of a method that searches scales."""

    def __init__(self, method: "ScaleSearching", scheme: Scheme, calibration: str | Path | pl.DataFrame | None) -> None:
        super().__init__(scheme, calibration)
        self._method = method

    def calibrate(self, job: Job, runs: CalibrationRuns) -> dict[str, list[dict[str, Any]]]:
        """Search the scales of the selected components, fold them, and quantize their blocks."""
        ratios: list[dict[str, Any]] = []
        found: dict[str, list[ScaleChoice]] = {}
        for component in reversed([name for name in STACKS if name in job.scheme.components]):
            if component == job.family.reader:
                batches, ratios = self._prompt_batches(runs)
                found[component] = self._search(job, runs, job.family.blocks(job.model, component), batches)
            else:
                found[component] = self._search_images(job, runs, component)
        choices = [choice for component in STACKS for choice in found.get(component, [])]
        return {"modality_ratios": ratios, "scales": [_describe(choice) for choice in choices]}

    def _prompt_batches(self, runs: CalibrationRuns) -> tuple[list[Batch], list[dict[str, Any]]]:
        prompts = runs.prompts(runs.run_vision({}), runs.unquantized_embedding())
        if not runs.family.has_language_model:
            # nothing is answered, so that all tokens count the same
            return [Batch(run) for run in runs.prompt_runs(prompts)], []
        weights, ratios = self._method.weighing.weigh(runs, prompts)
        batches = [
            Batch(run, real_tokens(inputs), weighed)
            for run, inputs, weighed in zip(runs.prompt_runs(prompts), prompts, weights, strict=True)
        ]
        return batches, ratios

    def _search_images(self, job: Job, runs: CalibrationRuns, component: str) -> list[ScaleChoice]:
        with FastLinears():
            known = runs.run_vision({}, ("vision",) if component == "connector" else ())
        stages = job.family.stages(job.model, component)
        found: list[ScaleChoice] = []
        for number, blocks in enumerate(stages, start=1):
            each = runs.image_runs(known)
            if number < len(stages):
                # what later stages read is what this one yields before it is quantized
                with FastLinears():
                    for batch, states in zip(known, runs.run_stack(blocks, each), strict=True):
                        batch[tuple(blocks)] = states
            # no token of vision tower or connector is an answer: all count the same
            found += self._search(job, runs, blocks, [Batch(run) for run in each])
        return found

    def _search(self, job: Job, runs: CalibrationRuns, blocks: list[str], batches: list[Batch]) -> list[ScaleChoice]:
        groups = {block: job.family.scale_groups(job.model, block) for block in blocks}
        power = POWERS[job.scheme.error or self._method.error]
        found = []
        searches = search_stack(job.model, blocks, groups, batches, job.layers.quantizers, power, runs.hold, runs.store)
        for block, choices in zip(blocks, searches, strict=True):
            for choice in choices:
                fold_scale(job.model, choice.group, choice.scale)
            job.layers.finish_block(block)
            found += choices
        return found


@dataclass(frozen=True, kw_only=True)
class ScaleSearching(CalibratedMethod):
    """The record of a method that searches scales of input channels.

    Beside what `quantrust.quantization.calibration_memory` counts, the search takes what it reads of a batch, and the
    weights of the linears that it tries out once more. It stores what a block yields, which takes the place of what
    entered it, and for one group at a time what it reads and yields (`stored_channels`).

    Attributes
    ----------
    error : {"mae", "mse"}
        What the search minimises unless the config says otherwise.
    weighing : TokenWeighing
        What the error of each token counts.
    rounding : DataFree
        The method that quantizes the scaled weights, and those that have no scale.
    """

    weighing: TokenWeighing
    rounding: DataFree
    reads: Reads = field(default=Reads.SCALED_ACTIVATIONS, init=False)

    def layer_method(self, layer: LayerRef, group: ScaleGroup | None) -> tuple[str, list[str]]:
        """Layers that no scale is searched for go through the rounding alone."""
        if group is None:
            return self.rounding.name, [IN_NO_GROUP]
        if group.previous is None:
            return self.rounding.name, [NOTHING_ABSORBS]
        return self.name, []

    def scaled_by(self, group: ScaleGroup | None) -> str | None:
        """Return the operation before the group."""
        return None if group is None else group.previous

    def rounding_of(self, name: str) -> Rounding:
        """Return the rounding, which every layer goes through."""
        return self.rounding.quantize

    def walk(self, scheme: Scheme, calibration: str | Path | pl.DataFrame | None) -> Walk:
        """Return the walk."""
        return ScaleSearchingWalk(self, scheme, calibration)

    def vision_steps(self, seeing: Pass) -> list[int]:
        """Return what searching a block of the vision tower takes."""
        return [seeing.forward + ITEMSIZE * (seeing.tokens * _recorded_channels(seeing.stack) + seeing.stack.weights)]

    def language_steps(self, reading: Pass, head: int) -> list[int]:
        """Return what searching a block of the language model takes, and weighing its tokens."""
        stack = reading.stack
        group = 2 * stack.widest * stack.hidden
        searching = reading.forward + ITEMSIZE * (reading.tokens * _recorded_channels(stack) + group)
        return [searching + self._summed(reading), *self.weighing.steps(reading, head)]

    def _summed(self, reading: Pass) -> int:
        """Return the bytes of the sum of x x^T over what the widest linear reads, where squared errors rest on it."""
        many = reading.samples.count * reading.samples.tokens > reading.stack.widest
        return ITEMSIZE * reading.stack.widest**2 if POWERS[self.error] == 2 and many else 0

    def calibration_memory(
        self, family: Family, model: nn.Module, scheme: Scheme, samples: Samples, budget: int
    ) -> CalibrationMemory:
        """Estimate what calibration takes, by the error that the scheme says."""
        if scheme.error in (None, self.error):
            return super().calibration_memory(family, model, scheme, samples, budget)
        return replace(self, error=scheme.error).calibration_memory(family, model, scheme, samples, budget)

    def vision_channels(self, seeing: Pass) -> int:
        """Return the numbers that a search stores of a patch."""
        return seeing.stack.hidden + seeing.searched + _replaced(seeing)

    def language_stored(self, reading: Pass, budget: int) -> int:
        """Return the bytes that a search stores between blocks, or weighing the tokens before it.

        What a block yields takes the place of the prompts, which are gone once they have entered the first.
        """
        samples = reading.samples
        searched = samples.count * samples.tokens * ITEMSIZE * (reading.searched + _replaced(reading))
        return max(searched, self.weighing.stored(reading, budget))


def _recorded_channels(stack: Stack) -> int:
    """Return the numbers that a search records of a token while a block runs: what its groups read and yield.

    That of the widest group is there once more while it is stored.
    """
    return 8 * stack.hidden + 2 * stack.widest


def _replaced(reading: Pass) -> int:
    """Return the numbers, spread over all tokens, of a batch whose states are there beside those that replace them."""
    return -(-2 * reading.stack.hidden * reading.batch // reading.samples.count)


def _describe(choice: ScaleChoice) -> dict[str, Any]:
    return {
        "previous": choice.group.previous,
        "linears": list(choice.group.linears),
        "exponent": choice.exponent,
        "error": choice.error,
        "unscaled_error": choice.unscaled_error,
        "runner_up": choice.runner_up,
        "runner_up_error": choice.runner_up_error,
    }
