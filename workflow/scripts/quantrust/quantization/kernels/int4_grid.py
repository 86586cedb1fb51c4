"""The grid of torch's int4 kernels, and how quantized weights are put on it.

Widths. The kernels take 4-bit codes q and a grid of their own, w = (q - 8) * step + offset with a float offset, so any
float zero fits: offset = (8 - zero) * step. Codes of 2 and 3 bits are held as 4-bit codes. Codes of 5 to 8 bits are
split into two planes, code = 16 * high + low, which lie side by side as one matrix with twice the input channels; the
input is repeated, and both planes are accumulated in float32 within one product. So 2 to 4 bits take half a byte a
weight and 5 to 8 bits a whole one, whatever the checkpoint takes.

Rounding. Step and offset are rounded to bfloat16 (8 significant bits), which moves a weight by at most
2^-8 * (|code - zero| + |8 - zero|) * scale at 4 bits and below. Above, the offset keeps 16 significant bits, because
each plane carries a part of it, and the error is 2^-8 * |code - zero| * scale, that of rounding the weight itself to
bfloat16. Groups whose codes are all equal are put into the offset alone: constant groups stay exact.
"""

import torch
from torch import Tensor
from torch.nn import functional

from quantrust.quantization.linear import PackedWeight
from quantrust.quantization.packing import unpack

KERNEL_DTYPE = torch.bfloat16
GROUP_SIZES = (256, 128, 64, 32)
"""What the int4 kernels take."""
GRID_BYTES = 4
"""Of a group in one plane: step and offset in bfloat16."""


def kernel_group_size(weight: PackedWeight) -> int | None:
    """Return the group size under which the int4 kernels take a weight, or None.

    Groups that are too large are cut into equal parts with the same grid. A row that is one group may have any length;
    it is padded, and takes the size with which codes and grid take the fewest bytes.
    """
    if weight.group_size == weight.columns:
        return min(GROUP_SIZES, key=lambda size: padded(weight.columns, size) * (1 / 2 + GRID_BYTES / size))
    return next((size for size in GROUP_SIZES if weight.group_size % size == 0), None)


def planes(bits: int) -> int:
    """Return the number of 4-bit planes that hold codes of so many bits."""
    return 1 if bits <= 4 else 2


def kernel_name(bits: int) -> str:
    """Return what a run's record calls the int4 kernel at so many bits."""
    return "int4" if planes(bits) == 1 else "int4 in two planes"


def int4_parts(weight: PackedWeight, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows of a weight as the int4 kernels want them.

    Parameters
    ----------
    weight : PackedWeight
    rows : slice

    Returns
    -------
    halves : Tensor, uint8, shape (rows, planes * padded columns)
        In [0, 15].
    steps, offsets : Tensor, bfloat16, shape (rows, planes * groups)
        w = (half - 8) * step + offset, summed over the planes.
    """
    group, count = kernel_group_size(weight), planes(weight.bits)
    codes = unpack(weight.codes[rows], weight.bits, weight.columns)
    scale, zero = weight.scale[rows].float(), weight.zero[rows].float()
    step = scale.to(KERNEL_DTYPE).float()
    offset = (middle(count) - zero) * step
    low, high = codes.unflatten(1, (-1, weight.group_size)).aminmax(dim=-1)
    constant = low == high
    step = torch.where(constant, 0.0, step)
    offset = torch.where(constant, (low.float() - zero) * scale, offset)
    codes = functional.pad(codes, (0, -weight.columns % group))
    parts = codes.shape[1] // group // scale.shape[1]
    step, offset = (part.repeat_interleave(parts, dim=1) for part in (step, offset))
    if count == 1:
        return codes, step.to(KERNEL_DTYPE), offset.to(KERNEL_DTYPE)
    first = offset.to(KERNEL_DTYPE)
    halves = torch.cat([codes >> 4, codes & 15], dim=1)
    steps = torch.cat([16 * step, step], dim=1)
    return halves, steps.to(KERNEL_DTYPE), torch.cat([first, (offset - first.float()).to(KERNEL_DTYPE)], dim=1)


def middle(count: int) -> int:
    """Return the code that the kernel's grid counts from: 8 in one plane, 16 * 8 + 8 in two."""
    return 8 if count == 1 else 136


def padded(count: int, unit: int) -> int:
    """Return the least multiple of `unit` that is not below `count`."""
    return -(-count // unit) * unit
