"""Equivalent scaling: multiply the columns of linears by a scale and divide what feeds them by it.

The function of the model stays the same; where the weights are large, and so where the grid spends its points,
changes.
"""

import torch
from torch import Tensor, nn

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
    """
    if group.previous is None:
        raise ValueError(f"nothing can absorb a scale of {', '.join(group.linears)}")
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
            weight = previous.weight.clone()
            folded = (weight / scale).to(NORM_DTYPE).to(weight.dtype)
            previous.weight.copy_(folded)
            scale = torch.where(folded == 0, scale, weight / folded)
        # some norms have no bias attribute at all
        if getattr(previous, "bias", None) is not None:
            previous.bias[channels].div_(scale)
        for name in group.linears:
            model.get_submodule(name).weight.mul_(scale.repeat(group.repeats))
