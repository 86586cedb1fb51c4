"""The search for per-channel scales that AWQ and MBQ share.

A scale is s = (mean |x|)^a over the input channels of linears that read one activation, clamped at 1e-4 and divided
by sqrt(max * min); the exponent a in {0, 0.05, .. 0.95} is the one whose quantized weights change the output of an
inspected module least (Lin et al., "AWQ", MLSys 2024, section 3). Methods differ in the weight they give each token's
error and in its power. Activations are those of the untouched full-precision model, which equivalent scaling leaves
unchanged.

Candidates are judged on the grid that will be stored, whose scales are float16 below 8 bits. Errors are flat around the
best exponent, and there the rounding of scales decides: a search on float32 scales may well choose its neighbour. The
runner-up and its error are kept beside the choice, so that a near-tie can be seen.

What makes the search cheap changes none of its results. Weights are quantized functionally, a few rows at a time so
that all steps run in the cache. Where tokens do not see each other only those whose error counts are run, the ones
that weigh most first, and exponents are tried outward from where the block before found its best, so that most
candidates fall behind the two best, and are given up, after a fraction of the tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantrust.errors import QuantrustError
from quantrust.models.family import ScaleGroup
from quantrust.quantization.activation_store import ActivationStore, Stored, fetch
from quantrust.quantization.block_inputs import Hold, hidden_states, in_memory, record_block_inputs, run_block
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.kernels.onednn import FastLinears

EXPONENTS = tuple(step / 20 for step in range(20))
LEAST_SCALE = 1e-4
LIKELY_EXPONENT = 0.5
"""Where a search begins that knows nothing better."""

PIECE_TOKENS = 512
"""Tokens between two looks at whether a candidate can still win, where tokens do not see each other."""

CHUNK_WEIGHTS = 1 << 17
"""Weights that are quantized at a time: they and what is derived from them fit the cache."""


@dataclass(frozen=True)
class ScaleChoice:
    """What a search chose for one group.

    Attributes
    ----------
    group : ScaleGroup
    exponent : float
    scale : Tensor, float32, shape (in,)
    error : float
        Weighted error of the inspected output under `exponent`.
    unscaled_error : float
        The same under exponent 0, the plain grid.
    runner_up : float or None
        The exponent with the next larger error, or an equal one; None if the error of no other is finite.
    runner_up_error : float or None
        The error under it.
    """

    group: ScaleGroup
    exponent: float
    scale: Tensor
    error: float
    unscaled_error: float
    runner_up: float | None
    runner_up_error: float | None


@dataclass(frozen=True)
class Call:
    """One call of a module, with its output. Tensors may be stored, but for the weights.

    Attributes
    ----------
    args, kwargs
    output : Tensor or Stored, shape (..., out)
    weights : Tensor, float32, shape (...) flattened
        What the error of each token counts.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    weights: Tensor


@dataclass(frozen=True)
class Batch:
    """A micro-batch as the search sees it.

    Attributes
    ----------
    run : callable
        Runs the model on it.
    real : Tensor, bool, shape (tokens,), or None
        False for padding; None where there is none.
    weights : dict of str to sequence of Tensor, or None
        For each kind of group (`attention`, `mlp`) and each block what the error of each token counts; float32
        (tokens,). None gives each token a weight of 1.
    """

    run: Callable[[], Any]
    real: Tensor | None = None
    weights: Mapping[str, Sequence[Tensor]] | None = None


def channel_scale(mean_magnitude: Tensor, exponent: float) -> Tensor:
    """Return the scale of each input channel for one exponent; shape (in,), geometric middle of its ends 1."""
    scale = mean_magnitude.pow(exponent).clamp(min=LEAST_SCALE)
    return scale / (scale.max() * scale.min()).sqrt()


def search_scale(
    group: ScaleGroup,
    inspected: nn.Module,
    linears: Mapping[str, nn.Linear],
    mean_magnitude: Tensor,
    calls: Sequence[Call],
    quantize: Mapping[str, Callable[[Tensor], QuantizedWeight]],
    power: int,
    first: float = LIKELY_EXPONENT,
) -> ScaleChoice:
    """Choose the exponent of one group.

    The error of a candidate is the sum over tokens of weight * mean over channels of |change|^power, divided by the
    number of tokens with a positive weight. A candidate is given up as soon as its partial sum exceeds the second best;
    among equals the smallest exponent wins.

    Parameters
    ----------
    group : ScaleGroup
    inspected : torch.nn.Module
    linears : mapping of str to torch.nn.Linear
        The group's linears by the name that their weight has in `inspected.named_parameters()`.
    mean_magnitude : Tensor, shape (in,)
        Mean |x| of the linears' input over all non-padding tokens.
    calls : sequence of Call
        Calls of `inspected` with full-precision weights.
    quantize : mapping of str to callable
        How the weights in question are quantized, by the keys of `linears`; those left out stay as they are. Rows are
        quantized independently of one another.
    power : int
        1 for absolute errors, 2 for squared ones.
    first : float
        The exponent to begin with; the others follow by their distance from it. It does not change what is chosen.

    Returns
    -------
    ScaleChoice

    Raises
    ------
    QuantrustError
        If activations are not finite, or no token has a positive weight.
    """
    names = ", ".join(group.linears)
    if not mean_magnitude.isfinite().all():
        raise QuantrustError(f"calibration activations of {names} hold NaN or infinite values; check model and images")
    # channels that one channel of the previous operation feeds can only have one scale
    mean_magnitude = mean_magnitude.unflatten(0, (group.repeats, -1)).mean(dim=0).repeat(group.repeats)
    counted = sum(int((call.weights > 0).sum()) for call in calls)
    if counted == 0:
        raise QuantrustError(f"no calibration token counts for {names}; calibrate on samples with images and answers")
    in_question = {name: linear.weight.detach() for name, linear in linears.items() if name in quantize}
    candidate = {name: torch.empty_like(weight) for name, weight in in_question.items()}
    # errors and exponents of the best and of the runner-up so far
    leaders: list[tuple[float, float]] = []
    unscaled = 0.0
    with FastLinears():
        for exponent in sorted(EXPONENTS, key=lambda exponent: abs(exponent - first)):
            scale = channel_scale(mean_magnitude, exponent)
            for name, weight in in_question.items():
                _quantize_scaled(weight, scale, quantize[name], out=candidate[name])
            # the plain grid's error is reported, so it is always summed to the end
            limit = float("inf") if len(leaders) < 2 or exponent == 0 else leaders[1][0]
            error = _error(inspected, candidate, calls, power, limit)
            if exponent == 0:
                unscaled = error
            if error < float("inf"):
                # the order of candidates must not decide between equals
                leaders = sorted([*leaders, (error, exponent)])[:2]
    if not leaders:
        raise QuantrustError(f"the output error of {group.inspected} is not finite; check model and images")
    errors = [error / counted for error, _ in leaders]
    exponents = [exponent for _, exponent in leaders]
    has_runner_up = len(leaders) > 1
    return ScaleChoice(
        group=group,
        exponent=exponents[0],
        scale=channel_scale(mean_magnitude, exponents[0]),
        error=errors[0],
        unscaled_error=unscaled / counted,
        runner_up=exponents[1] if has_runner_up else None,
        runner_up_error=errors[1] if has_runner_up else None,
    )


def _quantize_scaled(weight: Tensor, scale: Tensor, quantize: Callable[[Tensor], QuantizedWeight], out: Tensor) -> None:
    """Write what a weight is once it has been scaled, quantized and scaled back."""
    rows = max(1, CHUNK_WEIGHTS // weight.shape[1])
    for start in range(0, len(weight), rows):
        scaled = weight[start : start + rows] * scale
        out[start : start + rows] = quantize(scaled).dequantize().div_(scale)


def _error(inspected: nn.Module, weights: dict[str, Tensor], calls: Sequence[Call], power: int, limit: float) -> float:
    total = 0.0
    for call in calls:
        args, kwargs, expected = fetch((call.args, call.kwargs, call.output))
        output = hidden_states(functional_call(inspected, weights, args, kwargs))
        change = (output - expected).abs().flatten(0, -2)
        if power == 2:
            change = change.square()
        total += float((change.mean(dim=-1) * call.weights).sum(dtype=torch.float64))
        # sums only grow, so that this candidate is behind for good; NaN must not pass for a small error
        if not total <= limit:
            return float("inf")
    return total


def search_stack(
    model: nn.Module,
    blocks: Sequence[str],
    groups: Mapping[str, Sequence[ScaleGroup]],
    batches: Sequence[Batch],
    quantize: Mapping[str, Callable[[Tensor], QuantizedWeight]],
    power: int,
    hold: Hold = in_memory,
    store: ActivationStore | None = None,
) -> Iterator[list[ScaleChoice]]:
    """Search the scales of a stack of blocks, one block at a time.

    Each block runs by itself on the outputs of the one before, so that no more than one block and its activations are
    held.

    Parameters
    ----------
    model : torch.nn.Module
        Full precision; not changed.
    blocks : sequence of str
        Dotted names, in order.
    groups : mapping of str to sequence of ScaleGroup
        The groups of each block.
    batches : sequence of Batch
    quantize : mapping of str to callable
        By dotted layer name. Groups without a quantized linear, and groups whose scale nothing absorbs, are left out.
    power : int
        See `search_scale`.
    hold : callable
        Each block is held until the search of the next begins.
    store : ActivationStore or None
        For the activations; None keeps them in memory.

    Yields
    ------
    list of ScaleChoice
        Of one block, while it is held.
    """
    store = store or ActivationStore()
    with FastLinears():
        inputs = [record_block_inputs(model, blocks, batch.run, store) for batch in batches]
    hidden = [block_inputs.hidden for block_inputs in inputs]
    # what a group's like in the block before chose
    before: dict[int, float] = {}
    for index, block_name in enumerate(blocks):
        wanted = [
            group
            for group in groups[block_name]
            if group.previous is not None and any(name in quantize for name in group.linears)
        ]
        with hold(block_name):
            block = model.get_submodule(block_name)
            records: dict[ScaleGroup, tuple[list[Tensor], list[Call]]] = {group: ([], []) for group in wanted}
            # a block may read several of the tokens that enter it as one
            tokens = dict.fromkeys(wanted, 0)
            for place, (batch, block_inputs) in enumerate(zip(batches, inputs, strict=True)):
                known: dict[int, Stored] = {}
                states, others = fetch((hidden[place], block_inputs.others[index]), known)
                with ExitStack() as hooks, FastLinears():
                    recorders = [(group, _Recorder(model, group, hooks)) for group in wanted]
                    hidden[place] = store.put(run_block(block, states, others))
                for group, recorder in recorders:
                    magnitudes, calls = records[group]
                    read = recorder.read.flatten(0, -2)
                    real = read.new_ones(len(read), dtype=torch.bool) if batch.real is None else batch.real
                    magnitudes.append(read[real].abs().sum(dim=0, dtype=torch.float64))
                    tokens[group] += int(real.sum())
                    weights = real.float() if batch.weights is None else batch.weights[group.kind][index]
                    calls.append(recorder.call(model, weights, store, known))
            choices = []
            for place, group in enumerate(wanted):
                # taken out, so that no group's activations outlive its search
                magnitudes, calls = records.pop(group)
                choice = search_scale(
                    group,
                    model.get_submodule(group.inspected),
                    {_local_weight(group, name): model.get_submodule(name) for name in group.linears},
                    torch.stack(magnitudes).sum(dim=0).div(tokens[group]).float(),
                    _in_pieces(calls, store) if _tokens_alone(model, group) else calls,
                    {_local_weight(group, name): quantize[name] for name in group.linears if name in quantize},
                    power,
                    first=before.get(place, LIKELY_EXPONENT),
                )
                choices.append(choice)
            before = {place: choice.exponent for place, choice in enumerate(choices)}
            yield choices


def _tokens_alone(model: nn.Module, group: ScaleGroup) -> bool:
    """Return whether a token's output of the inspected module depends on no other token."""
    return group.kind == "mlp" or isinstance(model.get_submodule(group.inspected), nn.Linear)


def _in_pieces(calls: list[Call], store: ActivationStore) -> list[Call]:
    """Put the tokens of calls together anew, `PIECE_TOKENS` at a time, those whose error will weigh most first.

    How large a token's error will be is guessed from its output; the guess decides about the order alone. The list is
    emptied call by call, so that little more than one copy of the activations exists at a time.
    """
    weights = torch.cat([call.weights for call in calls])
    guesses = torch.cat([call.output.get().abs().mean(dim=-1) for call in calls]) * weights
    order = guesses.argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    states, output = (store.rows(len(order), stored.shape[-1]) for stored in (calls[0].args[0], calls[0].output))
    calls.reverse()
    start = 0
    while calls:
        call = calls.pop()
        chosen = places[start : start + len(call.weights)]
        states.put(chosen, call.args[0].get())
        output.put(chosen, call.output.get())
        start += len(chosen)
    pieces = []
    for start in range(0, len(order), PIECE_TOKENS):
        some = order[start : start + PIECE_TOKENS]
        stop = start + len(some)
        pieces.append(Call((states.part(start, stop),), {}, output.part(start, stop), weights[some]))
    return pieces


def _local_weight(group: ScaleGroup, linear: str) -> str:
    """Return the name of a linear's weight as seen from the inspected module, which may be the linear itself."""
    return f"{linear}.weight".removeprefix(f"{group.inspected}.")


class _Recorder:
    """Records one call of a group's inspected module and the input of the group's linears."""

    def __init__(self, model: nn.Module, group: ScaleGroup, hooks: ExitStack) -> None:
        self.group = group
        inspected, linear = model.get_submodule(group.inspected), model.get_submodule(group.linears[0])
        hooks.callback(linear.register_forward_pre_hook(self._read).remove)
        hooks.callback(inspected.register_forward_hook(self._call, with_kwargs=True).remove)

    def _read(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.read = args[0]

    def _call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.args, self.kwargs, self.output = args, kwargs, hidden_states(output)

    def call(self, model: nn.Module, weights: Tensor, store: ActivationStore, known: dict[int, Stored]) -> Call:
        """Return the call, stored; where tokens do not see each other, only those whose error counts."""
        if not _tokens_alone(model, self.group):
            args, kwargs, output = store.put_all((self.args, self.kwargs, self.output), known)
            return Call(args, kwargs, output, weights)
        kept = weights > 0
        states, output = (value.flatten(0, -2)[kept] for value in (self.args[0], self.output))
        return Call((store.put(states),), {}, store.put(output), weights[kept])
