"""The search for per-channel scales that AWQ and MBQ share.

A scale is s = (mean |x|)^a over the input channels of linears that read one activation, clamped at 1e-4 and divided
by sqrt(max * min); the exponent a in {0, 0.05, .. 0.95} is the one whose quantized weights change the output of an
inspected module least (Lin et al., "AWQ", MLSys 2024, section 3). Methods differ in the weight they give each token's
error and in its power. Activations are those of the untouched full-precision model, which equivalent scaling leaves
unchanged.
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
from quantrust.quantization.block_inputs import hidden_states, record_block_inputs
from quantrust.quantization.grid import QuantizedWeight

EXPONENTS = tuple(step / 20 for step in range(20))
LEAST_SCALE = 1e-4


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
    """

    group: ScaleGroup
    exponent: float
    scale: Tensor
    error: float
    unscaled_error: float


@dataclass(frozen=True)
class Call:
    """One call of a module, with its output.

    Attributes
    ----------
    args, kwargs
    output : Tensor, shape (..., out)
    weights : Tensor, float32, shape (...) flattened
        What the error of each token counts.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
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
) -> ScaleChoice:
    """Choose the exponent of one group.

    The error of a candidate is the sum over tokens of weight * mean over channels of |change|^power, divided by the
    number of tokens with a positive weight. A candidate is given up as soon as its partial sum exceeds the best;
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
        How the weights in question are quantized, by the keys of `linears`; those left out stay as they are.
    power : int
        1 for absolute errors, 2 for squared ones.

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
    best: tuple[float, float, Tensor] | None = None
    unscaled = 0.0
    for exponent in EXPONENTS:
        scale = channel_scale(mean_magnitude, exponent)
        weights = {
            name: quantize[name](linear.weight * scale).dequantize(linear.weight.dtype) / scale
            for name, linear in linears.items()
            if name in quantize
        }
        error = _error(inspected, weights, calls, power, limit=float("inf") if best is None else best[1])
        if exponent == 0:
            unscaled = error
        if best is None or error < best[1]:
            best = (exponent, error, scale)
    if best is None or not best[1] < float("inf"):
        raise QuantrustError(f"the output error of {group.inspected} is not finite; check model and images")
    return ScaleChoice(group, best[0], best[2], best[1] / counted, unscaled / counted)


def _error(inspected: nn.Module, weights: dict[str, Tensor], calls: Sequence[Call], power: int, limit: float) -> float:
    total = 0.0
    for call in calls:
        output = hidden_states(functional_call(inspected, weights, call.args, call.kwargs))
        change = (output - call.output).abs().flatten(0, -2)
        if power == 2:
            change = change.square()
        total += float((change.mean(dim=-1) * call.weights).sum(dtype=torch.float64))
        # sums only grow, so that this candidate can no longer win; NaN must not pass for a small error
        if not total < limit:
            return float("inf")
    return total


def search_stack(
    model: nn.Module,
    blocks: Sequence[str],
    groups: Mapping[str, Sequence[ScaleGroup]],
    batches: Sequence[Batch],
    quantize: Mapping[str, Callable[[Tensor], QuantizedWeight]],
    power: int,
) -> Iterator[list[ScaleChoice]]:
    """Search the scales of a stack of blocks, one block at a time.

    The model runs once over the micro-batches; then each block runs by itself on the outputs of the one before, so
    that no more than one block's activations are held.

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
        By dotted layer name; groups of which no linear is quantized, or whose scale nothing absorbs, are left out.
    power : int
        See `search_scale`.

    Yields
    ------
    list of ScaleChoice
        Of one block.
    """
    inputs = [record_block_inputs(model, blocks, batch.run) for batch in batches]
    hidden = [block_inputs.hidden for block_inputs in inputs]
    real = [
        torch.ones(states[..., 0].numel(), dtype=torch.bool, device=states.device) if batch.real is None else batch.real
        for batch, states in zip(batches, hidden, strict=True)
    ]
    tokens = sum(int(flags.sum()) for flags in real)
    for index, block_name in enumerate(blocks):
        wanted = [
            group
            for group in groups[block_name]
            if group.previous is not None and any(name in quantize for name in group.linears)
        ]
        records: dict[ScaleGroup, tuple[list[Tensor], list[Call]]] = {group: ([], []) for group in wanted}
        for place, (batch, block_inputs) in enumerate(zip(batches, inputs, strict=True)):
            args, kwargs = block_inputs.others[index]
            with ExitStack() as hooks:
                recorders = [(group, _Recorder(model, group, hooks)) for group in wanted]
                hidden[place] = hidden_states(model.get_submodule(block_name)(hidden[place], *args, **kwargs))
            for group, recorder in recorders:
                magnitudes, calls = records[group]
                magnitudes.append(recorder.read.flatten(0, -2)[real[place]].abs().sum(dim=0, dtype=torch.float64))
                weights = real[place].float() if batch.weights is None else batch.weights[group.kind][index]
                calls.append(recorder.call(model, weights))
        yield [
            search_scale(
                group,
                model.get_submodule(group.inspected),
                {_local_weight(group, name): model.get_submodule(name) for name in group.linears},
                torch.stack(magnitudes).sum(dim=0).div(tokens).float(),
                calls,
                {_local_weight(group, name): quantize[name] for name in group.linears if name in quantize},
                power,
            )
            for group, (magnitudes, calls) in records.items()
        ]


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

    def call(self, model: nn.Module, weights: Tensor) -> Call:
        """Return the call; where tokens do not see each other, only those whose error counts."""
        alone = self.group.kind == "mlp" or isinstance(model.get_submodule(self.group.inspected), nn.Linear)
        if not alone:
            return Call(self.args, self.kwargs, self.output, weights)
        kept = weights > 0
        return Call((self.args[0].flatten(0, -2)[kept],), {}, self.output.flatten(0, -2)[kept], weights[kept])
