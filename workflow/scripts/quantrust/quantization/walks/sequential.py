"""Methods that quantize a model in the order of its forward pass, each block on what the quantized ones before yield.

As in GPTQ's paper (Frantar et al., ICLR 2023, section 4), the Hessians of a block come from one pass over the outputs
of the blocks before it, which are quantized already; within the block the weights are still those of the model.
Components follow one another in the same way: the connector reads a quantized vision tower, and the language model
image features of both.

A scheme may also be calibrated on the unquantized model. Then no quantized layer takes its place in the model, so that
all Hessians are those of the unquantized one, and the codes of a layer depend on its own bits alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import polars as pl
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.block_shapes import Stack
from quantrust.models.family import LanguageInputs, LayerRef, ScaleGroup
from quantrust.quantization.activation_store import ActivationStore, Stored, fetch
from quantrust.quantization.block_inputs import Hold, in_memory, record_block_inputs, run_block
from quantrust.quantization.calibration_memory import CalibratedMethod, Pass
from quantrust.quantization.calibration_runs import CalibratedWalk, CalibrationRuns, real_tokens
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.hessian import HessianSum
from quantrust.quantization.method import Job, Walk
from quantrust.quantization.method_traits import Reads
from quantrust.quantization.quantizing_memory import ITEMSIZE, SOLVER, WORKING
from quantrust.quantization.scheme import QUANTIZED_MODEL, UNQUANTIZED_MODEL, Scheme
from quantrust.quantization.walks.data_free import DataFree

FACTORING = 9
"""Bytes a number of a Hessian: as summed, its factor, and up to a tenth of it in double precision."""

LOOKUP = "a lookup multiplies nothing, so it has no Hessian"
OUTSIDE_BLOCKS = "it lies outside the blocks whose inputs are collected"

Run = tuple[Callable[[], Any], Tensor | None]
"""Runs the model on one micro-batch, and which of its tokens are real, bool (tokens,); None where all are."""

Prepared = TypeVar("Prepared")
"""What a method makes of a Hessian before it quantizes the layers that share it."""


class HessianRounding(Protocol[Prepared]):
    """Quantizes a weight by what was made of the Hessian of its inputs."""

    def __call__(
        self, weight: Tensor, factor: Prepared, bits: int, group_size: int, symmetric: bool = False
    ) -> QuantizedWeight:
        """Quantize a weight, shape (out, in), in groups of `group_size` input channels, which divides `in`."""
        ...


@dataclass(frozen=True)
class Steps(Generic[Prepared]):
    """What is done with the layers of a stack of blocks.

    Attributes
    ----------
    prepare : callable
        Maps a Hessian to what `quantize_layer` takes.
    quantize_layer : callable
        Puts a quantized layer in the place of the linear with this name, given its prepared Hessian.
    finish_block : callable
        Called with the name of each block whose layers are done, while it is held.
    """

    prepare: Callable[[Tensor], Prepared]
    quantize_layer: Callable[[str, Prepared], None]
    finish_block: Callable[[str], None]


class SequentialWalk(CalibratedWalk):
    """The walk of a method that quantizes in the order of the forward pass."""

    def __init__(
        self, method: "Sequential[Any]", scheme: Scheme, calibration: str | Path | pl.DataFrame | None
    ) -> None:
        super().__init__(scheme, calibration)
        self._method = method

    def calibrate(self, job: Job, runs: CalibrationRuns) -> dict[str, list[dict[str, Any]]]:
        """Quantize vision tower, connector, embedding, language model and head, as far as they are selected."""
        by_hessian = self._unknown(job)
        heads = by_hessian.filter(component="head")["layer"].to_list()
        chosen = set(by_hessian["layer"])
        quantize = partial(self._quantize_stage, job, runs, chosen)
        selected = [component for component in job.family.seeing if component in job.scheme.components]
        known = runs.run_vision(
            {
                component: lambda blocks, images: quantize(blocks, [(run, None) for run in images])
                for component in selected
            }
        )
        if job.family.reader in job.scheme.components or heads:
            prompts = runs.prompts(known, self._quantized_embedding(job, runs))
            # the prompts hold what is needed of it
            del known
            hidden = quantize(
                job.family.blocks(job.model, job.family.reader),
                [
                    (run, runs.real_tokens(inputs))
                    for run, inputs in zip(runs.prompt_runs(prompts), prompts, strict=True)
                ],
            )
            for head in heads:
                with runs.hold(head):
                    self._quantize_head(job, head, hidden, prompts)
                    job.layers.finish(head)
        return {}

    def run(self, job: Job) -> dict[str, list[dict[str, Any]]]:
        """Quantize what goes by calibration samples, if any of it is not known yet, then everything else."""
        if self._unknown(job).is_empty() and not self._by_hessian(job.plan).is_empty():
            job.layers.quantize_rest()
            return {}
        return super().run(job)

    def _unknown(self, job: Job) -> pl.DataFrame:
        """Return the layers of the layer plan that go by Hessians, without those that another scheme has left."""
        by_hessian = self._by_hessian(job.plan)
        known = [name for name in by_hessian["layer"] if job.layers.knows(name)]
        return by_hessian.filter(~pl.col("layer").is_in(known))

    def _walked(self, plan: pl.DataFrame) -> set[str]:
        """Return the components whose blocks are run; a head reads what the language model yields."""
        heads = self._by_hessian(plan).filter(component="head")
        return super()._walked(plan) | (set() if heads.is_empty() else {"language"})

    def _by_hessian(self, plan: pl.DataFrame) -> pl.DataFrame:
        """Return the layers of a layer plan that are quantized by the Hessians of their inputs."""
        return plan.filter(pl.col("shares").is_null(), method=self._method.name)

    @contextmanager
    def _quantized_embedding(self, job: Job, runs: CalibrationRuns) -> Iterator[None]:
        """Let the embedding be used: the quantized one, if the layer plan quantizes it."""
        name = job.family.embedding
        if name in job.layers.quantizers and self.scheme.calibrated_on == QUANTIZED_MODEL:
            with runs.hold(name):
                job.layers.finish(name)
                yield
        else:
            with runs.unquantized_embedding():
                yield

    def _quantize_stage(
        self, job: Job, runs: CalibrationRuns, chosen: set[str], blocks: Sequence[str], micro_batches: list[Run]
    ) -> list[Stored]:
        return quantize_stack(
            job.model,
            blocks,
            {block: job.family.scale_groups(job.model, block) for block in blocks},
            micro_batches,
            chosen,
            Steps(self._method.prepare, partial(self._quantize_layer, job), job.layers.finish_block),
            runs.hold,
            runs.store,
        )

    def _quantize_head(self, job: Job, name: str, hidden: list[Stored], prompts: list[LanguageInputs]) -> None:
        norm, weight = job.model.get_submodule(job.family.final_norm), job.model.get_submodule(name).weight
        total = HessianSum(weight.shape[1], weight.device)
        for states, inputs in zip(hidden, prompts, strict=True):
            total.add(norm(states.get()).flatten(0, -2)[real_tokens(inputs)])
        self._quantize_layer(job, name, prepare_inputs(total, [name], self._method.prepare))

    def _quantize_layer(self, job: Job, name: str, factor: Any) -> None:
        if name in job.layers.quantizers:
            job.layers.quantize(name, partial(job.layers.quantizers[name], factor=factor))


@dataclass(frozen=True, kw_only=True)
class Sequential(CalibratedMethod, Generic[Prepared]):
    """The record of a method that quantizes by the Hessians of a layer's inputs.

    Beside what `quantrust.quantization.calibration_memory` counts, it takes the Hessians of a block; while one of them
    is prepared, in its place `FACTORING` bytes a number. Between blocks it stores twice what enters a block.

    Attributes
    ----------
    prepare : callable
        Maps a Hessian, float32 (in, in), to what `quantize` takes as `factor`; called once for all linears that read
        one activation. It may take `FACTORING` bytes a number.
    quantize : callable
        ``quantize(weight, factor, bits, group_size, symmetric)``; it returns a
        `quantrust.quantization.grid.QuantizedWeight`.
    rounding : DataFree
        The method that quantizes layers without a Hessian.
    """

    prepare: Callable[[Tensor], Prepared]
    quantize: HessianRounding[Prepared]
    rounding: DataFree
    reads: Reads = field(default=Reads.HESSIANS, init=False)

    @property
    def replaces_layers(self) -> bool:
        """Whether later layers are calibrated on quantized ones, unless a scheme says otherwise."""
        return True

    def quantizes_apart(self, scheme: Scheme) -> bool:
        """Return whether all Hessians are those of the unquantized model."""
        return scheme.calibrated_on == UNQUANTIZED_MODEL

    def layer_method(self, layer: LayerRef, group: ScaleGroup | None) -> tuple[str, list[str]]:
        """Layers without a Hessian go through the rounding."""
        if layer.kind == "embedding":
            return self.rounding.name, [f"{self.rounding.in_words}: {LOOKUP}"]
        if layer.component != "head" and group is None:
            return self.rounding.name, [f"{self.rounding.in_words}: {OUTSIDE_BLOCKS}"]
        return self.name, []

    def rounding_of(self, name: str) -> Callable[..., QuantizedWeight]:
        """Return the method's own function, which takes a `factor`, or the rounding."""
        return self.quantize if name == self.name else self.rounding.quantize

    def walk(self, scheme: Scheme, calibration: str | Path | pl.DataFrame | None) -> Walk:
        """Return the walk."""
        return SequentialWalk(self, scheme, calibration)

    def vision_steps(self, seeing: Pass) -> list[int]:
        """Return what a block of the vision tower takes."""
        return _solving(seeing.stack, seeing.forward)

    def language_steps(self, reading: Pass, head: int) -> list[int]:
        """Return what a block of the language model takes."""
        return _solving(reading.stack, reading.forward)

    def language_stored(self, reading: Pass, budget: int) -> int:
        """Return twice what enters a block."""
        return 2 * reading.samples.count * reading.samples.tokens * ITEMSIZE * reading.stack.hidden


def _solving(stack: Stack, forward: int) -> list[int]:
    """Return what a block takes: summing its Hessians, preparing them one by one, and quantizing with them."""
    narrow, wide, weights = stack.hidden**2, stack.widest**2, ITEMSIZE * stack.weights
    summed = ITEMSIZE * (3 * narrow + wide)
    layer = (WORKING - ITEMSIZE) * stack.hidden * stack.widest
    return [
        forward + summed,
        # the widest comes last
        weights + max(summed + (FACTORING - ITEMSIZE) * narrow, FACTORING * wide),
        weights + summed + layer + SOLVER,
    ]


def quantize_stack(
    model: nn.Module,
    blocks: Sequence[str],
    groups: Mapping[str, Sequence[ScaleGroup]],
    runs: Sequence[Run],
    chosen: set[str],
    steps: Steps[Prepared],
    hold: Hold = in_memory,
    store: ActivationStore | None = None,
) -> list[Stored]:
    """Quantize the linears of a stack of blocks in order, holding one block and its activations only.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place by the steps.
    blocks : sequence of str
        Dotted names, in order.
    groups : mapping of str to sequence of ScaleGroup
        The linears of each block that read one activation, and so have one Hessian.
    runs : sequence of Run
    chosen : set of str
        Dotted names of the linears to quantize.
    steps : Steps
    hold : callable
        Each block is held until its quantized form has run.
    store : ActivationStore or None
        For the activations; None keeps them in memory.

    Returns
    -------
    list of Stored
        What the last block yields for each run.

    Raises
    ------
    QuantrustError
        If activations are not finite; the message names the layers.
    """
    store = store or ActivationStore()
    inputs = [record_block_inputs(model, blocks, run, store) for run, _ in runs]
    hidden = [block_inputs.hidden for block_inputs in inputs]
    real = [flags for _, flags in runs]
    for index, block_name in enumerate(blocks):
        wanted = [group for group in groups[block_name] if chosen.intersection(group.linears)]
        with hold(block_name):
            block = model.get_submodule(block_name)
            if wanted:
                sums = {group: _empty_sum(model, group) for group in wanted}
                for place, block_inputs in enumerate(inputs):
                    with ExitStack() as hooks:
                        for group, total in sums.items():
                            read = partial(_add_input, total=total, real=real[place])
                            hooks.callback(model.get_submodule(group.linears[0]).register_forward_pre_hook(read).remove)
                        run_block(block, hidden[place].get(), fetch(block_inputs.others[index]))
                for group in wanted:
                    # taken out, so that no Hessian outlives its preparation
                    factor = prepare_inputs(sums.pop(group), group.linears, steps.prepare)
                    for name in filter(chosen.__contains__, group.linears):
                        steps.quantize_layer(name, factor)
            steps.finish_block(block_name)
            # a block that is a linear itself has given way to its quantized form
            block = model.get_submodule(block_name)
            for place, block_inputs in enumerate(inputs):
                hidden[place] = store.put(run_block(block, hidden[place].get(), fetch(block_inputs.others[index])))
    return hidden


def prepare_inputs(total: HessianSum, names: Sequence[str], prepare: Callable[[Tensor], Prepared]) -> Prepared:
    """Prepare and consume the Hessian of these layers; errors name the layers."""
    try:
        return prepare(total.take())
    except QuantrustError as error:
        raise QuantrustError(f"{', '.join(names)}: {error}") from error


def _empty_sum(model: nn.Module, group: ScaleGroup) -> HessianSum:
    weight = model.get_submodule(group.linears[0]).weight
    return HessianSum(weight.shape[1], weight.device)


def _add_input(module: nn.Module, args: tuple[Any, ...], total: HessianSum, real: Tensor | None) -> None:
    inputs = args[0].flatten(0, -2)
    total.add(inputs if real is None else inputs[real])
