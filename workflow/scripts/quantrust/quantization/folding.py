"""Equivalent scaling: multiply the columns of linears by a scale and divide what feeds them by it.

The function of the model stays the same; where the weights are large, and so where the grid spends its points,
changes.
"""

import torch
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.components import NormKind
from quantrust.models.family import ScaleGroup

NORM_DTYPE = torch.bfloat16
"""Checkpoints store norms in this dtype."""


def fold_scale(model: nn.Module, group: ScaleGroup, scale: Tensor) -> None:
    """Multiply the input channels of a group's linears by `scale`, and let the operation before absorb the inverse.

    A norm is stored in bfloat16, which would round each 1 / scale by up to 0.4 %. The linears are therefore
    multiplied by the ratio of the norm's weight to its rounded new weight, so that the product is what it was.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    group : ScaleGroup
        Its `previous` is a norm or a linear.
    scale : Tensor, shape (in,)
        Positive, and the same in each of the group's repeats.

    Raises
    ------
    ValueError
        If nothing can absorb the scale, or it does not repeat as the group does.
    QuantrustError
        As `require_absorber` does.
    """
    if group.previous is None:
        raise ValueError(f"nothing can absorb a scale of {', '.join(group.linears)}")
    require_absorber(model, group)
    repeated = scale.unflatten(0, (group.repeats, -1))
    if not (repeated == repeated[0]).all():
        raise ValueError(f"the scale of {', '.join(group.linears)} differs between its {group.repeats} repeats")
    scale = repeated[0]
    previous = model.get_submodule(group.previous)
    channels = slice(group.offset, group.offset + len(scale))
    with torch.no_grad():
        if isinstance(previous, nn.Linear):
            previous.weight[channels].div_(scale[:, None])
        else:
            before = _multiplier(previous.weight, group.norm)
            folded = before / scale - 1 if group.norm is NormKind.ONE_PLUS_WEIGHT else before / scale
            previous.weight.copy_(folded.to(NORM_DTYPE))
            after = _multiplier(previous.weight, group.norm)
            if group.norm is NormKind.ONE_PLUS_WEIGHT:
                # near -1 the steps of the dtype are wide, and a small multiplier must not become none
                least = torch.finfo(NORM_DTYPE).eps / 2
                lost = (after == 0) & (before != 0)
                previous.weight.copy_(torch.where(lost, before.sign() * least - 1, previous.weight))
                after = _multiplier(previous.weight, group.norm)
            scale = torch.where(after == 0, scale, before / after)
        # some norms have no bias attribute at all
        if getattr(previous, "bias", None) is not None:
            previous.bias[channels].div_(scale)
        for name in group.linears:
            model.get_submodule(name).weight.mul_(scale.repeat(group.repeats))


def require_absorber(model: nn.Module, group: ScaleGroup) -> None:
    """Raise when what a group reads is neither a linear nor a norm that the family knows.

    Parameters
    ----------
    model : torch.nn.Module
        Its weights may be on the meta device.
    group : ScaleGroup

    Raises
    ------
    QuantrustError
        Names the norm and its class.
    """
    if group.previous is None or group.norm is not None:
        return
    previous = model.get_submodule(group.previous)
    if not isinstance(previous, nn.Linear):
        kind = type(previous)
        raise QuantrustError(
            f"{group.previous} is a {kind.__module__}.{kind.__qualname__}. The adapter of its family does not say what "
            "such a norm multiplies by, so no scale can be folded into it. Use a method that searches no scales, or "
            "add the class to norms in the adapter, with a test that a fold keeps the logits"
        )


def _multiplier(weight: Tensor, norm: NormKind | None) -> Tensor:
    """Return a copy of what a norm with this weight multiplies by."""
    return weight + 1 if norm is NormKind.ONE_PLUS_WEIGHT else weight.clone()
