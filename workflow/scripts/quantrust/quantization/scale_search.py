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

What a linear yields changes by what the change of its weight yields. Where a linear is inspected, it is therefore run
with that change, and what it yields at full precision is not stored. If squared errors are summed over more tokens
than the linear has inputs, they come from the sum of x x^T over its inputs x, which is the same for all candidates.

What a search reads is stored for one group at a time, and dropped once its scale is found: a block runs for its
attention first, no further than that, and then for its MLP. What a linear reads that lies within a module which was
inspected before (the last of an attention or of an MLP) is made from what that module read, and takes its place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from quantrust.errors import QuantrustError
from quantrust.models.family import ScaleGroup
from quantrust.quantization.activation_store import ActivationStore, Stored, fetch
from quantrust.quantization.block_inputs import Hold, enter_stack, hidden_states, in_memory, run_block
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.hessian import SUMMED_COLUMNS, HessianSum
from quantrust.quantization.kernels.onednn import FastLinears

EXPONENTS = tuple(step / 20 for step in range(20))
LEAST_SCALE = 1e-4
LIKELY_EXPONENT = 0.5
"""Where a search begins that knows nothing better."""

PIECE_TOKENS = 512
"""Tokens between two looks at whether a candidate can still win, where tokens do not see each other."""

PIECE_CHANNELS = 512
"""Output channels between two such looks, where a sum over tokens stands for them."""

STORED_TOKENS = 2048
"""Tokens that are at least sorted and stored together, where tokens do not see each other."""

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
    output : Tensor or Stored, shape (..., out), or None
        None where the module is a linear.
    weights : Tensor, float32, shape (...) flattened
        What the error of each token counts.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    weights: Tensor


@dataclass(frozen=True)
class SquaredInputs:
    """What squared errors of a linear rest on, in the place of calls.

    Attributes
    ----------
    products : Tensor, float32, shape (in, in)
        The sum over tokens of weight * x x^T, x what the linear reads.
    tokens : int
        Tokens with a positive weight.
    """

    products: Tensor
    tokens: int


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
    calls: Sequence[Call] | SquaredInputs,
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
        A linear is run with the change of its weight alone; any other module with the changed weights.
    linears : mapping of str to torch.nn.Linear
        The group's linears by the name that their weight has in `inspected.named_parameters()`.
    mean_magnitude : Tensor, shape (in,)
        Mean |x| of the linears' input over all non-padding tokens.
    calls : sequence of Call or SquaredInputs
        Calls of `inspected` with full-precision weights. For squared errors of a linear `SquaredInputs` will do.
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
    counted = calls.tokens if isinstance(calls, SquaredInputs) else sum(int((call.weights > 0).sum()) for call in calls)
    if counted == 0:
        raise QuantrustError(f"no calibration token counts for {names}; calibrate on samples with images and answers")
    in_question = {name: linear.weight.detach() for name, linear in linears.items() if name in quantize}
    candidate = {name: torch.empty_like(weight) for name, weight in in_question.items()}
    alone = isinstance(inspected, nn.Linear)
    unchanged = {"bias": torch.zeros_like(inspected.bias)} if alone and inspected.bias is not None else {}
    # errors and exponents of the best and of the runner-up so far
    leaders: list[tuple[float, float]] = []
    unscaled = 0.0
    with FastLinears():
        for exponent in sorted(EXPONENTS, key=lambda exponent: abs(exponent - first)):
            scale = channel_scale(mean_magnitude, exponent)
            for name, weight in in_question.items():
                _quantize_scaled(weight, scale, quantize[name], out=candidate[name], change=alone)
            # the plain grid's error is reported, so it is always summed to the end
            limit = float("inf") if len(leaders) < 2 or exponent == 0 else leaders[1][0]
            if isinstance(calls, SquaredInputs):
                (change,) = candidate.values()
                error = _summed_error(change, calls.products, limit)
            else:
                error = _error(inspected, candidate | unchanged, calls, power, limit)
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


def _quantize_scaled(
    weight: Tensor, scale: Tensor, quantize: Callable[[Tensor], QuantizedWeight], out: Tensor, change: bool
) -> None:
    """Write what a weight is once it has been scaled, quantized and scaled back, or by how much that changes it."""
    rows = max(1, CHUNK_WEIGHTS // weight.shape[1])
    for start in range(0, len(weight), rows):
        before, after = weight[start : start + rows], out[start : start + rows]
        torch.div(quantize(before * scale).dequantize(), scale, out=after)
        if change:
            after.sub_(before)


def _error(inspected: nn.Module, weights: dict[str, Tensor], calls: Sequence[Call], power: int, limit: float) -> float:
    total = 0.0
    for call in calls:
        args, kwargs, expected = fetch((call.args, call.kwargs, call.output))
        output = hidden_states(functional_call(inspected, weights, args, kwargs))
        if not isinstance(inspected, nn.Linear):
            output = output - expected
        change = output.abs().flatten(0, -2)
        if power == 2:
            change = change.square_()
        total += float((change.mean(dim=-1) * call.weights).sum(dtype=torch.float64))
        # sums only grow, so that this candidate is behind for good; NaN must not pass for a small error
        if not total <= limit:
            return float("inf")
    return total


def _summed_error(change: Tensor, products: Tensor, limit: float) -> float:
    """Return the sum of d^T P d over the rows d of a weight's change, divided by their number.

    P is symmetric, so that one half of it is multiplied.
    """
    total = 0.0
    for rows in change.split(PIECE_CHANNELS):
        for start in range(0, len(products), SUMMED_COLUMNS):
            stop = start + SUMMED_COLUMNS
            product = functional.linear(rows[:, start:stop].contiguous(), products[start:, start:stop].contiguous())
            each = product.mul_(rows[:, start:]).sum(dim=0, dtype=torch.float64)
            total += float(each[:SUMMED_COLUMNS].sum() + 2 * each[SUMMED_COLUMNS:].sum()) / len(change)
        # as of tokens, sums only grow, and NaN must not pass for a small error
        if not total <= limit:
            return float("inf")
    return total


def search_stack(
    model: nn.Module,
    blocks: Sequence[str],
    groups: Mapping[str, Sequence[ScaleGroup]],
    batches: list[Batch],
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
    batches : list of Batch
        Emptied once all have entered the first block, so that nothing that they hold outlives its use.
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
        hidden, others = enter_stack(model, blocks, [batch.run for batch in batches], store)
    counts = [(batch.real, batch.weights) for batch in batches]
    batches.clear()
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
            found: dict[ScaleGroup, ScaleChoice] = {}
            passes = _passes(model, wanted)
            for number, together in enumerate(passes, start=1):
                records = {group: _Record(model, group, group is together[0], power, store) for group in together}
                for place, (real, weights) in enumerate(counts):
                    known: dict[int, Stored] = {}
                    states, more = fetch((hidden[place], others[place][index]), known)
                    with ExitStack() as hooks, FastLinears(), suppress(_Reached):
                        for record in records.values():
                            record.watch(hooks, real)
                        if number < len(passes):
                            # what follows is run with the groups that come later
                            inspected = model.get_submodule(together[0].inspected)
                            hooks.callback(inspected.register_forward_hook(_stop).remove)
                        hidden[place] = store.put(run_block(block, states, more))
                    for group, record in records.items():
                        record.add(None if weights is None else weights[group.kind][index], known)
                first = {group: before.get(wanted.index(group), LIKELY_EXPONENT) for group in together}
                found |= _search_together(model, records, quantize, power, first)
            choices = [found[group] for group in wanted]
            before = {place: choice.exponent for place, choice in enumerate(choices)}
            yield choices


def _search_together(
    model: nn.Module,
    records: dict[ScaleGroup, "_Record"],
    quantize: Mapping[str, Callable[[Tensor], QuantizedWeight]],
    power: int,
    first: Mapping[ScaleGroup, float],
) -> dict[ScaleGroup, ScaleChoice]:
    """Search the groups that one run of a block served; the records are taken out, so that no activation outlives it.

    What the second group reads is derived from the record of the first.
    """
    found: dict[ScaleGroup, ScaleChoice] = {}
    source: _Record | None = None
    for group in list(records):
        record = records.pop(group)
        if source is not None:
            record.derive(source)
        found[group] = search_scale(
            group,
            record.inspected,
            {_local_weight(group, name): model.get_submodule(name) for name in group.linears},
            record.mean_magnitude(),
            record.calls(),
            {_local_weight(group, name): quantize[name] for name in group.linears if name in quantize},
            power,
            first=first[group],
        )
        source = record
    return found


def stored_channels(model: nn.Module, groups: Sequence[ScaleGroup]) -> int:
    """Return the numbers that the search of a block stores of a token at most, beside what the block yields.

    They are what one group reads, and what is inspected for it yields.

    Parameters
    ----------
    model : torch.nn.Module
        Only shapes are read.
    groups : sequence of ScaleGroup
        Of the block.
    """
    return max((_width(model, group) for group in groups if group.previous is not None), default=0)


def _width(model: nn.Module, group: ScaleGroup) -> int:
    """Return the numbers that are stored of a token for one group: what it reads, and what is inspected yields."""
    read = int(model.get_submodule(group.linears[0]).in_features)
    return read if isinstance(model.get_submodule(group.inspected), nn.Linear) else 2 * read


def _passes(model: nn.Module, groups: Sequence[ScaleGroup]) -> list[list[ScaleGroup]]:
    """Return the groups that one run of a block serves, run by run; there is one run at least.

    A second group of a run inspects a linear that lies within what the first one inspects.
    """
    passes: list[list[ScaleGroup]] = []
    for group in groups:
        alone = isinstance(model.get_submodule(group.inspected), nn.Linear)
        for together in passes if alone else ():
            around = together[0]
            within = group.kind == around.kind and group.inspected.startswith(f"{around.inspected}.")
            if within and len(together) == 1:
                together.append(group)
                break
        else:
            passes.append([group])
    return passes or [[]]


def _tokens_alone(model: nn.Module, group: ScaleGroup) -> bool:
    """Return whether a token's output of the inspected module depends on no other token."""
    return group.kind == "mlp" or isinstance(model.get_submodule(group.inspected), nn.Linear)


def _local_weight(group: ScaleGroup, linear: str) -> str:
    """Return the name of a linear's weight as seen from the inspected module, which may be the linear itself."""
    return f"{linear}.weight".removeprefix(f"{group.inspected}.")


class _Reached(Exception):
    """What is wanted was reached; nothing after it is of interest."""


def _stop(*called: Any) -> None:
    raise _Reached


def _ordered(parts: list[Tensor], order: Tensor) -> Tensor:
    """Return the rows of matrices in an order; the list is emptied, so that little more than two copies ever exist."""
    rows = parts[0].new_empty(len(order), parts[0].shape[1])
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    start = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        rows[places[start : start + len(part)]] = part
        start += len(part)
    return rows


@dataclass(frozen=True)
class _Rows:
    """Tokens that do not see each other, in the order in which they are looked at.

    `guesses` say how much the error of each will weigh. They decide about the order alone.
    """

    states: Stored
    output: Stored | None
    weights: Tensor
    guesses: Tensor

    def pieces(self) -> Iterator[tuple[float, Call]]:
        """Yield calls of no more than `PIECE_TOKENS`, each with the mean of its guesses."""
        for start in range(0, len(self.weights), PIECE_TOKENS):
            stop = min(start + PIECE_TOKENS, len(self.weights))
            output = None if self.output is None else self.output.rows(start, stop)
            call = Call((self.states.rows(start, stop),), {}, output, self.weights[start:stop])
            yield float(self.guesses[start:stop].mean()), call


class _Record:
    """What the search of one group reads: the magnitudes of its input, and calls of what it inspects.

    Parameters
    ----------
    model : torch.nn.Module
    group : ScaleGroup
    at_once : bool
        Whether calls are recorded while the block runs, and not derived from those of another group.
    power : int
        See `search_scale`.
    store : ActivationStore
    """

    def __init__(self, model: nn.Module, group: ScaleGroup, at_once: bool, power: int, store: ActivationStore) -> None:
        self.model, self.group, self.at_once, self.power, self.store = model, group, at_once, power, store
        self.inspected = model.get_submodule(group.inspected)
        self.alone = _tokens_alone(model, group)
        # a block may read several of the tokens that enter it as one
        self.tokens = 0
        self._magnitudes: list[Tensor] = []
        self._weights: list[Tensor] = []
        # whole calls where tokens see each other, else rows, of which some wait for others to be stored with
        self._calls: list[Call] = []
        self._rows: list[_Rows] = []
        self._waiting: list[tuple[Tensor, Tensor | None, Tensor]] = []
        # what squared errors rest on, where tokens are many
        self._products: HessianSum | None = None
        self._summed = 0

    def watch(self, hooks: ExitStack, real: Tensor | None) -> None:
        """Record the next call; `real` says which tokens are not padding, None that all are."""
        linear = self.model.get_submodule(self.group.linears[0])

        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            states = args[0].flatten(0, -2)
            self._real = states.new_ones(len(states), dtype=torch.bool) if real is None else real
            self.tokens += int(self._real.sum())
            self._magnitudes.append(states[self._real].abs().sum(dim=0, dtype=torch.float64))

        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._called = args, kwargs, hidden_states(output)

        hooks.callback(linear.register_forward_pre_hook(read).remove)
        if self.at_once:
            hooks.callback(self.inspected.register_forward_hook(called, with_kwargs=True).remove)

    def add(self, weights: Tensor | None, known: dict[int, Stored]) -> None:
        """Store the call that was watched.

        Parameters
        ----------
        weights : Tensor, float32, shape (tokens,), or None
            What the error of each token counts; None is 1, for padding 0.
        known : dict of int to Stored
            What is stored already, as `ActivationStore.put_all` takes it.
        """
        weights = self._real.float() if weights is None else weights
        if not self.at_once:
            self._weights.append(weights)
            return
        args, kwargs, output = self._called
        del self._called
        if self.alone:
            self._add_rows(args[0], None if isinstance(self.inspected, nn.Linear) else output, weights)
        else:
            args, kwargs, output = self.store.put_all((args, kwargs, output), known)
            self._calls.append(Call(args, kwargs, output, weights))

    def derive(self, source: "_Record") -> None:
        """Make what the inspected linear reads from what a module around it read, which is given up piece by piece.

        Where errors are squared and more tokens count than the linear has inputs, only the sum of x x^T is kept of it.
        """
        inputs = self.inspected.in_features
        if self.power == 2 and sum(int((weights > 0).sum()) for weights in self._weights) > inputs:
            self._products = HessianSum(inputs, self.inspected.weight.device)
        weights = iter(self._weights)
        while source._calls:
            call = source._calls.pop(0)
            self._add_rows(self._input(source.inspected, *fetch((call.args, call.kwargs))), None, next(weights))
        source._store_waiting()
        while source._rows:
            rows = source._rows.pop(0)
            self._add_rows(self._input(source.inspected, (rows.states.get(),), {}), None, rows.weights)

    def _input(self, around: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Return what the inspected linear reads when the module around it is called."""
        found: list[Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
            found.append(args[0])
            raise _Reached

        handle = self.inspected.register_forward_pre_hook(stop)
        with FastLinears(), suppress(_Reached):
            around(*args, **kwargs)
        handle.remove()
        return found[0]

    def _add_rows(self, states: Tensor, output: Tensor | None, weights: Tensor) -> None:
        """Add tokens that do not see each other, those whose error counts."""
        kept = weights > 0
        if self._products is not None:
            rows = states.flatten(0, -2)[kept]
            self._products.add(rows.mul_(weights[kept].sqrt().unsqueeze(-1)))
            self._summed += len(rows)
            return
        flat = (None if tensor is None else tensor.flatten(0, -2)[kept] for tensor in (states, output))
        self._waiting.append((*flat, weights[kept]))
        if sum(len(some) for *_, some in self._waiting) >= STORED_TOKENS:
            self._store_waiting()

    def _store_waiting(self) -> None:
        """Store the rows that wait, those whose error will weigh most first."""
        if not self._waiting:
            return
        states = [state for state, _, _ in self._waiting]
        outputs = [output for _, output, _ in self._waiting if output is not None]
        weights = torch.cat([weight for _, _, weight in self._waiting])
        self._waiting.clear()
        guesses = torch.cat([some.abs().mean(dim=-1) for some in outputs or states]) * weights
        guesses, order = guesses.sort(descending=True, stable=True)
        stored = self.store.put(_ordered(states, order))
        output = self.store.put(_ordered(outputs, order)) if outputs else None
        self._rows.append(_Rows(stored, output, weights[order], guesses))

    def mean_magnitude(self) -> Tensor:
        """Return the mean |x| of each input channel over all tokens but padding, float32."""
        return torch.stack(self._magnitudes).sum(dim=0).div(self.tokens).float()

    def calls(self) -> list[Call] | SquaredInputs:
        """Return the calls, where tokens do not see each other in pieces, those that will weigh most first."""
        if self._products is not None:
            return SquaredInputs(self._products.take(), self._summed)
        self._store_waiting()
        pieces = [piece for rows in self._rows for piece in rows.pieces()]
        return self._calls + [call for _, call in sorted(pieces, key=lambda piece: piece[0], reverse=True)]
