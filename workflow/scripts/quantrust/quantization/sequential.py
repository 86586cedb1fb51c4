"""GPTQ through a model, one block at a time.

As in the paper (section 4), the Hessians of a block come from one pass over the outputs of the blocks before it, which
are quantized already; within the block the weights are still those of the model. Components follow one another in the
same way: the connector reads a quantized vision tower, and the language model image features of both.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.family import ScaleGroup
from quantrust.quantization.activation_store import ActivationStore, Stored, fetch
from quantrust.quantization.block_inputs import Hold, in_memory, record_block_inputs, run_block
from quantrust.quantization.methods.gptq import HessianFactor, HessianSum, factor_hessian

Run = tuple[Callable[[], Any], Tensor | None]
"""Runs the model on one micro-batch, and which of its tokens are real, bool (tokens,); None where all are."""


def quantize_stack(
    model: nn.Module,
    blocks: Sequence[str],
    groups: Mapping[str, Sequence[ScaleGroup]],
    runs: Sequence[Run],
    chosen: set[str],
    quantize_layer: Callable[[str, HessianFactor], None],
    finish_block: Callable[[str], None],
    hold: Hold = in_memory,
    store: ActivationStore | None = None,
) -> list[Stored]:
    """Quantize the linears of a stack of blocks in order, holding one block and its activations only.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place by `quantize_layer`.
    blocks : sequence of str
        Dotted names, in order.
    groups : mapping of str to sequence of ScaleGroup
        The linears of each block that read one activation, and so have one Hessian.
    runs : sequence of Run
    chosen : set of str
        Dotted names of the linears to quantize.
    quantize_layer : callable
        Puts a quantized layer in the place of the linear with this name, given its Hessian's factor.
    finish_block : callable
        Called with the name of each block whose layers are done, while it is held.
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
                    # taken out, so that no Hessian outlives its factoring
                    factor = factor_inputs(sums.pop(group), group.linears)
                    for name in filter(chosen.__contains__, group.linears):
                        quantize_layer(name, factor)
            finish_block(block_name)
            for place, block_inputs in enumerate(inputs):
                hidden[place] = store.put(run_block(block, hidden[place].get(), fetch(block_inputs.others[index])))
    return hidden


def factor_inputs(total: HessianSum, names: Sequence[str]) -> HessianFactor:
    """Factor the Hessian of these layers, which is used up; what is wrong with it is said with their names."""
    try:
        return factor_hessian(total.take())
    except QuantrustError as error:
        raise QuantrustError(f"{', '.join(names)}: {error}") from error


def _empty_sum(model: nn.Module, group: ScaleGroup) -> HessianSum:
    weight = model.get_submodule(group.linears[0]).weight
    return HessianSum(weight.shape[1], weight.device)


def _add_input(module: nn.Module, args: tuple[Any, ...], total: HessianSum, real: Tensor | None) -> None:
    inputs = args[0].flatten(0, -2)
    total.add(inputs if real is None else inputs[real])
