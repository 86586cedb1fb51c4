"""Running a stack of blocks one block at a time, over all micro-batches, so that one block's weights are held.

What enters a stack is recorded without running it: blocks yield nothing, and only their other arguments (masks,
positions), which do not depend on the states, are kept. Where a model adds something to the states between two blocks,
it arrives at the second by itself, and is kept as well. What follows a stack is run with its output given.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from quantrust.quantization.activation_store import ActivationStore, Stored, fetch

Hold = Callable[[str], AbstractContextManager[Any]]
"""A context in which the part of a model with this dotted name has its weights."""


def in_memory(part: str) -> AbstractContextManager[Any]:
    """Hold a part of a model whose weights are all there."""
    return nullcontext()


@dataclass(frozen=True)
class OtherInputs:
    """What a block reads beside the states that the block before yields.

    Attributes
    ----------
    args : tuple
    kwargs : dict
        Its other arguments, positional and by name: masks and positions.
    added : Tensor, shape of the states, or None
        What the model adds to the states before they enter the block.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    added: Tensor | None = None


@dataclass(frozen=True)
class BlockInputs:
    """What one micro-batch feeds a stack of blocks.

    Attributes
    ----------
    hidden : Stored, shape (..., hidden)
        The states that enter the first block.
    others : list of OtherInputs
        What every block reads beside them, with tensors stored, mostly shared.
    """

    hidden: Stored
    others: list[OtherInputs]


class _Entered(Exception):
    """The last block was reached; nothing after it is of interest."""


def record_block_inputs(
    model: nn.Module, blocks: Sequence[str], run: Callable[[], Any], store: ActivationStore
) -> BlockInputs:
    """Run what comes before a stack of blocks; keep what enters the first block and every block's other arguments.

    Parameters
    ----------
    model : torch.nn.Module
        The blocks' weights are not needed. A block takes hidden states first, or as `hidden_states`, and returns them.
        Between blocks, states are passed on or something is added to them, nothing else.
    blocks : sequence of str
        Dotted names, in order.
    run : callable
        Runs the model on one micro-batch.
    store : ActivationStore

    Returns
    -------
    BlockInputs
    """
    entered: list[Tensor] = []
    others: list[OtherInputs] = []
    nothing: list[Tensor] = []

    def record(*args: Any, **kwargs: Any) -> Tensor:
        hidden, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
        if not entered:
            entered.append(hidden)
            # takes no memory, and to write into it is an error
            nothing.append(hidden.new_zeros(()).expand(hidden.shape))
            added = None
        else:
            added = None if hidden is nothing[0] else hidden
        others.append(OtherInputs(args, kwargs, added))
        if len(others) == len(blocks):
            raise _Entered
        return nothing[0]

    with _forward(model, blocks, record), suppress(_Entered):
        run()
    return BlockInputs(store.put(entered[0]), store.put_all(others))


def enter_stack(
    model: nn.Module, blocks: Sequence[str], runs: Sequence[Callable[[], Any]], store: ActivationStore
) -> tuple[list[Stored], list[list[OtherInputs]]]:
    """Return what enters the first block for each run, and what every block reads beside it.

    They come apart, so that what enters the first block can be dropped once it has run.
    """
    inputs = [record_block_inputs(model, blocks, run, store) for run in runs]
    return [each.hidden for each in inputs], [each.others for each in inputs]


@contextmanager
def bypassed(model: nn.Module, blocks: Sequence[str], output: Tensor) -> Iterator[None]:
    """Let a stack of blocks yield `output` without running, while the block of this context does.

    Parameters
    ----------
    model : torch.nn.Module
        The blocks' weights are not needed.
    blocks : sequence of str
        Dotted names, in order.
    output : Tensor
        What the last block yields.
    """
    with skipped(model, blocks[:-1]), _forward(model, blocks[-1:], lambda *args, **kwargs: output):
        yield


def skipped(model: nn.Module, blocks: Sequence[str]) -> AbstractContextManager[None]:
    """Return a context in which blocks yield what they read."""
    return _forward(model, blocks, _first)


def run_block(block: nn.Module, hidden: Tensor, others: OtherInputs) -> Tensor:
    """Run one block on what the block before yields, and on what it reads beside that."""
    entering = hidden if others.added is None else hidden + others.added
    return hidden_states(block(entering, *others.args, **others.kwargs))


def run_stack(
    model: nn.Module,
    blocks: Sequence[str],
    runs: Sequence[Callable[[], Any]],
    hold: Hold = in_memory,
    store: ActivationStore | None = None,
) -> list[Stored]:
    """Return what the last block yields for each run.

    Parameters
    ----------
    model : torch.nn.Module
    blocks : sequence of str
        Dotted names, in order.
    runs : sequence of callable
        Each runs the model on one micro-batch.
    hold : callable
        Each block is held while it runs.
    store : ActivationStore or None
        For the activations; None keeps them in memory.
    """
    store = store or ActivationStore()
    hidden, others = enter_stack(model, blocks, runs, store)
    for index, name in enumerate(blocks):
        with hold(name):
            block = model.get_submodule(name)
            for place, each in enumerate(others):
                hidden[place] = store.put(run_block(block, hidden[place].get(), fetch(each[index])))
    return hidden


def hidden_states(output: Any) -> Tensor:
    """Return the hidden states among a module's outputs, which come first."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _forward(model: nn.Module, names: Sequence[str], forward: Callable[..., Tensor]) -> Iterator[None]:
    """Let modules do something else than they do; their hooks are called as ever."""
    with ExitStack() as restore:
        for module in map(model.get_submodule, names):
            module.forward = forward
            restore.callback(delattr, module, "forward")
        yield


def _first(*args: Any, **kwargs: Any) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
