"""Modality-balanced quantization (MBQ; Li et al., arXiv 2412.19509).

AWQ's search with absolute errors, in which image tokens count by how sensitive the loss is to them compared with
answer tokens.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantrust.errors import QuantrustError
from quantrust.models.family import Family, LanguageInputs, Role
from quantrust.quantization.activation_store import ActivationStore, fetch
from quantrust.quantization.block_inputs import Hold, bypassed, in_memory, record_block_inputs, run_block
from quantrust.quantization.calibration_memory import ANSWER_TOKENS, Pass
from quantrust.quantization.calibration_runs import CalibrationRuns
from quantrust.quantization.calibration_samples import BATCH_SIZE
from quantrust.quantization.kernels.onednn import FastLinears
from quantrust.quantization.methods import rtn
from quantrust.quantization.quantizing_memory import ITEMSIZE
from quantrust.quantization.walks.scale_searching import KINDS, ScaleSearching, TokenWeighing, TokenWeights

MOST_GROUPS = 10
"""Groups of micro-batches: each reads the weights of the language model twice, so that more of them save files of
activations at the price of time."""

SAVED = 2
"""Activations of a block that the backward pass needs and makes, by those of its forward pass."""


class NoModalityRatio(QuantrustError):
    """Gradients that give no ratio."""


@dataclass(frozen=True)
class ModalityRatio:
    """Sensitivity of one block's attention or MLP output.

    Attributes
    ----------
    block : int
    kind : {"attention", "mlp"}
    image, answer : float
        Mean |gradient| over image and over answer tokens.
    ratio : float
        image / answer.
    used : float
        `ratio`, or the median over blocks of its kind where that is larger.
    """

    block: int
    kind: str
    image: float
    answer: float
    ratio: float
    used: float


def token_weights(roles: Tensor, ratio: float, other: float = 0.0) -> Tensor:
    """Return what the error of each token counts.

    Parameters
    ----------
    roles : Tensor, int8, shape (tokens,)
        Values of `Role`.
    ratio : float
        The weight of image tokens; answer tokens have 1.
    other : float
        The weight of the remaining tokens of the prompt; padding has 0.

    Returns
    -------
    Tensor, float32, shape (tokens,)
    """
    weights = torch.full(roles.shape, other, dtype=torch.float32, device=roles.device)
    weights[roles == Role.ANSWER] = 1.0
    weights[roles == Role.IMAGE] = ratio
    weights[roles == Role.PAD] = 0.0
    return weights


def modality_ratios(
    family: Family,
    model: nn.Module,
    batches: Sequence[LanguageInputs],
    hold: Hold = in_memory,
    store: ActivationStore | None = None,
) -> list[ModalityRatio]:
    """Measure how much more the loss feels image tokens than answer tokens.

    One backward pass of the loss. That of a sample is the mean cross-entropy of its answer tokens, so that a long
    caption counts no more than a short one; losses are summed over samples, so that every sample's gradient is its own,
    whatever it is batched with. Gradients are taken at the output of the last linear of a block's attention and of its
    MLP, averaged over the tokens of a modality within a sample, then over samples; weights have none.

    Both passes go block by block over a group of micro-batches: what enters each block is kept on the way forward, and
    on the way back a block runs once more to have its gradients. Then comes the next group; `batches_together` says how
    many micro-batches make one, which does not change the result.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Full precision.
    batches : sequence of LanguageInputs
        With answers; tensors may be stored.
    hold : callable
        Each block and the head are held while they run.
    store : ActivationStore or None
        For the activations; None keeps them in memory.

    Returns
    -------
    list of ModalityRatio
        Block by block, attention before MLP.

    Raises
    ------
    NoModalityRatio
        If a gradient is not finite, or answer tokens get none.
    """
    outputs = {
        (index, group.kind): group.linears[-1]
        for index, block in enumerate(family.blocks(model, "language"))
        for group in family.scale_groups(model, block)
    }
    sums = _gradient_sums(family, model, batches, outputs, hold, store or ActivationStore())
    samples = sum(batch.roles.shape[0] for batch in batches)
    ratios = {}
    for place, (image, answer) in sums.items():
        if not (image.isfinite() and answer.isfinite() and answer > 0):
            raise NoModalityRatio(
                f"{outputs[place]}: mean gradients of {float(image):g} on image and {float(answer):g} on answer tokens "
                "give no modality ratio; calibrate on captions of images, and check the model"
            )
        ratios[place] = float(image / answer)
    medians = {kind: median(ratio for place, ratio in ratios.items() if place[1] == kind) for kind in KINDS}
    return [
        ModalityRatio(
            block=place[0],
            kind=place[1],
            image=float(sums[place][0]) / samples,
            answer=float(sums[place][1]) / samples,
            ratio=ratio,
            used=max(ratio, medians[place[1]]),
        )
        for place, ratio in ratios.items()
    ]


def batches_together(batches: int, states: int, depth: int, budget: int | None) -> int:
    """Return how many micro-batches go forward and backward together.

    What they keep between blocks takes no more than the budget, unless a single one does, or there would be more than
    `MOST_GROUPS` groups.

    Parameters
    ----------
    batches : int
        Micro-batches in all.
    states : int
        Bytes that enter a block in the largest of them.
    depth : int
        Blocks.
    budget : int or None
        Bytes; None sets no limit.
    """
    if budget is None:
        return batches
    return min(batches, max(1, budget // kept_bytes(states, depth), -(-batches // MOST_GROUPS)))


def kept_bytes(states: int, depth: int) -> int:
    """Return what a micro-batch keeps until its gradients are known: what enters each block and leaves the last."""
    return (depth + 1) * states


def _gradient_sums(
    family: Family,
    model: nn.Module,
    batches: Sequence[LanguageInputs],
    outputs: dict[tuple[int, str], str],
    hold: Hold,
    store: ActivationStore,
) -> dict[tuple[int, str], Tensor]:
    """Return the sum over samples of the mean |gradient| at each output, over image and over answer tokens."""
    sums = {place: torch.zeros(2, dtype=torch.float64) for place in outputs}
    states = max(batch.inputs_embeds.shape.numel() * batch.inputs_embeds.dtype.itemsize for batch in batches)
    depth = len(family.blocks(model, "language"))
    together = batches_together(len(batches), states, depth, None if store.folder is None else store.budget)
    with FastLinears():
        for start in range(0, len(batches), together):
            _add_gradients(family, model, batches[start : start + together], outputs, hold, store, sums)
    return sums


def _add_gradients(
    family: Family,
    model: nn.Module,
    batches: Sequence[LanguageInputs],
    outputs: dict[tuple[int, str], str],
    hold: Hold,
    store: ActivationStore,
    sums: dict[tuple[int, str], Tensor],
) -> None:
    """Add one group of micro-batches to the sums; they are added one by one, so that groups change nothing."""
    blocks = family.blocks(model, "language")
    inputs = [record_block_inputs(model, blocks, partial(_decode, family, model, batch), store) for batch in batches]
    entering = [[block_inputs.hidden for block_inputs in inputs]]
    for index, name in enumerate(blocks):
        with hold(name), torch.no_grad():
            block = model.get_submodule(name)
            entering.append(
                [
                    store.put(run_block(block, states.get(), fetch(block_inputs.others[index])))
                    for states, block_inputs in zip(entering[index], inputs, strict=True)
                ]
            )
    # what leaves the last block gives way to its gradient
    upstream = entering.pop()
    (head,) = (layer.name for layer in family.layers(model) if layer.component == "head")
    with hold(head):
        for place, batch in enumerate(batches):
            upstream[place] = store.put(_loss_gradient(family, model, blocks, fetch(batch), upstream[place].get()))
    for index, name in reversed(list(enumerate(blocks))):
        names = {kind: linear for (place, kind), linear in outputs.items() if place == index}
        with hold(name):
            for place, states in enumerate(entering.pop()):
                others, above = fetch((inputs[place].others[index], upstream[place]))
                gradient, magnitudes = _block_gradients(model, name, states.get(), others, above, names)
                upstream[place] = store.put(gradient)
                roles = fetch(batches[place].roles)
                for kind, magnitude in magnitudes.items():
                    # some blocks string the tokens of all samples together
                    each = magnitude.view(roles.shape)
                    sums[index, kind] += torch.stack(
                        [_sample_means(each, roles == role).sum() for role in (Role.IMAGE, Role.ANSWER)]
                    ).cpu()


def _decode(family: Family, model: nn.Module, batch: LanguageInputs) -> Tensor:
    return family.read_prompts(model, fetch(batch))[0]


def _loss_gradient(
    family: Family, model: nn.Module, blocks: Sequence[str], batch: LanguageInputs, states: Tensor
) -> Tensor:
    """Return the gradient of the samples' losses with respect to what leaves the last block."""
    states = states.detach().requires_grad_()
    with torch.enable_grad(), bypassed(model, blocks, states):
        hidden = _decode(family, model, batch)
        answers = batch.roles[:, 1:] == Role.ANSWER
        logits = family.logits(model, hidden[:, :-1][answers])
        losses = functional.cross_entropy(logits.float(), batch.token_ids[:, 1:][answers], reduction="none")
        tokens = answers.sum(dim=1, keepdim=True).expand_as(answers)[answers]
        return torch.autograd.grad((losses / tokens).sum(), states)[0]


def _block_gradients(
    model: nn.Module, name: str, states: Tensor, others: Any, above: Tensor, outputs: dict[str, str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a block forward and backward.

    Returns
    -------
    gradient : Tensor, shape of `states`
        With respect to what enters the block, given that with respect to what leaves it.
    magnitudes : dict of str to Tensor, shape (batch, tokens) or (batch * tokens,)
        The mean |gradient| over channels of each token at the `outputs`, by their keys.
    """
    magnitudes: dict[str, Tensor] = {}
    states = states.detach().requires_grad_()
    with ExitStack() as hooks, torch.enable_grad():
        for kind, linear in outputs.items():

            def watch(module: nn.Module, args: tuple, output: Tensor, kind: str = kind) -> None:
                output.register_hook(lambda grad: magnitudes.update({kind: grad.detach().abs().mean(dim=-1)}))

            hooks.callback(model.get_submodule(linear).register_forward_hook(watch).remove)
        output = run_block(model.get_submodule(name), states, others)
        (gradient,) = torch.autograd.grad(output, states, above)
    return gradient, magnitudes


def _sample_means(magnitudes: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean over each sample's chosen tokens, shape (batch,), in float64."""
    return (magnitudes.double() * chosen).sum(dim=1) / chosen.sum(dim=1)


class ModalityBalance(TokenWeighing):
    """Image tokens count by the modality ratio of their block, answer tokens 1, and all others nothing.

    A micro-batch goes backward as well: `SAVED` times the activations of a block, and at the head, whose weights are
    held then, three copies of the logits of a caption. Stored is what enters every block and leaves the last, of the
    micro-batches that go together (`batches_together`).
    """

    def weigh(self, runs: CalibrationRuns, prompts: Sequence[LanguageInputs]) -> tuple[TokenWeights, list[Any]]:
        """Return the weights of tokens that follow from the modality ratios, which are measured if none are known."""
        try:
            ratios = runs.kept.ratios or modality_ratios(runs.family, runs.model, prompts, runs.hold, runs.store)
        except NoModalityRatio:
            # a gradient that is not finite says nothing about where it went wrong
            with runs.naming_overflow():
                runs.run_stack(runs.family.blocks(runs.model, "language"), runs.prompt_runs(prompts))
            raise
        runs.kept.ratios = ratios
        weights = []
        for inputs in prompts:
            roles = fetch(inputs.roles).flatten()
            weights.append(
                {kind: [token_weights(roles, ratio.used) for ratio in ratios if ratio.kind == kind] for kind in KINDS}
            )
        return weights, [asdict(ratio) for ratio in ratios]

    def steps(self, reading: Pass, head: int) -> list[int]:
        """Return the bytes of a micro-batch that goes backward through a block, and of one at the head."""
        stack = reading.stack
        logits = min(reading.tokens, reading.batch * ANSWER_TOKENS) * head // stack.hidden
        return [
            reading.forward + SAVED * stack.activations(reading.tokens, ITEMSIZE),
            ITEMSIZE * (head + 2 * reading.tokens * stack.hidden + 3 * logits),
        ]

    def stored(self, reading: Pass, budget: int) -> int:
        """Return the bytes of what the micro-batches that go together keep."""
        count, size, depth = reading.samples.count, reading.batch, reading.stack.depth
        states = reading.samples.tokens * ITEMSIZE * reading.stack.hidden
        # no micro-batch takes samples of two batches
        whole, rest = divmod(count, BATCH_SIZE)
        batches = whole * -(-BATCH_SIZE // size) + -(-rest // size)
        together = batches_together(batches, size * states, depth, budget)
        return kept_bytes(min(count, together * size) * states, depth)


METHOD = ScaleSearching(
    name="mbq",
    label="MBQ",
    colour="#0072B2",
    marker="s",
    error="mae",
    weighing=ModalityBalance(),
    rounding=rtn.METHOD,
)
