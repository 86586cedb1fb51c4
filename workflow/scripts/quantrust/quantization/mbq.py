"""Modality-balanced quantization (MBQ; Li et al., arXiv 2412.19509).

AWQ's search with absolute errors, in which image tokens count by how sensitive the loss is to them compared with
answer tokens.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantrust.errors import QuantrustError
from quantrust.models.family import Family, LanguageInputs, Role
from quantrust.quantization.fast_linear import FastLinears

KINDS = ("attention", "mlp")


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


def modality_ratios(family: Family, model: nn.Module, batches: Sequence[LanguageInputs]) -> list[ModalityRatio]:
    """Measure how much more the loss feels image tokens than answer tokens.

    One backward pass of the cross-entropy of the answer tokens, summed over tokens and samples: every sample's
    gradient is its own, whatever it is batched with, and a common factor cancels in the ratio. Gradients are taken at
    the output of the last linear of a block's attention and of its MLP, averaged over the tokens of a modality within
    a sample, then over samples; weights have none.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Full precision.
    batches : sequence of LanguageInputs
        With answers.

    Returns
    -------
    list of ModalityRatio
        Block by block, attention before MLP.

    Raises
    ------
    QuantrustError
        If a gradient is not finite, or answer tokens get none.
    """
    outputs = {
        (index, group.kind): group.linears[-1]
        for index, block in enumerate(family.blocks(model, "language"))
        for group in family.scale_groups(model, block)
    }
    sums = {place: torch.zeros(2, dtype=torch.float64) for place in outputs}
    for batch in batches:
        for place, magnitudes in _gradient_magnitudes(family, model, batch, outputs).items():
            sums[place] += torch.stack(
                [_sample_means(magnitudes, batch.roles == role).sum() for role in (Role.IMAGE, Role.ANSWER)]
            ).cpu()
    samples = sum(len(batch.roles) for batch in batches)
    ratios = {}
    for place, (image, answer) in sums.items():
        if not (image.isfinite() and answer.isfinite() and answer > 0):
            raise QuantrustError(
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


def _gradient_magnitudes(
    family: Family, model: nn.Module, batch: LanguageInputs, outputs: dict[tuple[int, str], str]
) -> dict[tuple[int, str], Tensor]:
    """Return the mean |gradient| over channels of each token, shape (batch, tokens), at each output."""
    magnitudes: dict[tuple[int, str], Tensor] = {}
    embeds = batch.inputs_embeds.detach().requires_grad_()
    with ExitStack() as hooks, torch.enable_grad(), FastLinears():
        for place, name in outputs.items():

            def watch(module: nn.Module, args: tuple, output: Tensor, place: tuple[int, str] = place) -> None:
                output.register_hook(lambda grad: magnitudes.update({place: grad.detach().abs().mean(dim=-1)}))

            hooks.callback(model.get_submodule(name).register_forward_hook(watch).remove)
        hidden, _ = family.decode(model, embeds, batch.attention_mask, batch.position_ids)
        answers = batch.roles[:, 1:] == Role.ANSWER
        logits = family.logits(model, hidden[:, :-1][answers])
        functional.cross_entropy(logits.float(), batch.token_ids[:, 1:][answers], reduction="sum").backward()
    return magnitudes


def _sample_means(magnitudes: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean over each sample's chosen tokens, shape (batch,), in float64."""
    return (magnitudes.double() * chosen).sum(dim=1) / chosen.sum(dim=1)
