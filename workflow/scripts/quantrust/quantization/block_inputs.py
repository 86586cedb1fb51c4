"""What enters the blocks of a stack, so that each block can be run by itself."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class BlockInputs:
    """What one micro-batch feeds a stack of blocks.

    Attributes
    ----------
    hidden : Tensor, shape (..., hidden)
        The states that enter the first block.
    others : list of (tuple, dict)
        Every block's other arguments, positional and by name: masks and positions, mostly shared tensors.
    """

    hidden: Tensor
    others: list[tuple[tuple[Any, ...], dict[str, Any]]]


def record_block_inputs(model: nn.Module, blocks: Sequence[str], run: Callable[[], Any]) -> BlockInputs:
    """Run a model once and keep what enters the first block, and the other arguments of every block.

    Parameters
    ----------
    model : torch.nn.Module
    blocks : sequence of str
        Dotted names, in order.
    run : callable
        Runs the model on one micro-batch.

    Returns
    -------
    BlockInputs
    """
    entered: list[Tensor] = []
    others: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        hidden, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
        if not entered:
            entered.append(hidden)
        others.append((args, kwargs))

    with ExitStack() as hooks:
        for name in blocks:
            handle = model.get_submodule(name).register_forward_pre_hook(record, with_kwargs=True)
            hooks.callback(handle.remove)
        run()
    return BlockInputs(entered[0], others)


def hidden_states(output: Any) -> Tensor:
    """Return the hidden states among a module's outputs, which come first."""
    return output[0] if isinstance(output, tuple) else output
