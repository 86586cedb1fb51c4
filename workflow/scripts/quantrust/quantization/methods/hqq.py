"""Half-quadratic quantization (HQQ): the zero-point that minimises an l_p error, no data.

Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023. The solver takes the steps of the
`hqq` package's default one and, from the same scales and first zero-points, yields its zero-points to the bit in a
quarter of the time: see `solve_zero`. `quantize` does not start from the package's: its scales are those that will be
stored, float16 below 8 bits, and the zero-points that it finds are stored likewise, where the package has float32 for
both and at 4 bits rounds the first zero-points to integers.
"""

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.quantization.grid import QuantizedWeight, encode, group_range, storable_scale
from quantrust.quantization.walks.data_free import DataFree

LP_NORM = 0.7
BETA = 10.0
ITERATIONS = 20
LEAST_SHRUNK = BETA ** (-1 / (2 - LP_NORM))
"""The shrinkage step maps every error up to this one to zero."""

CHUNK_WEIGHTS = 1 << 18
"""Weights the solver sees at a time: a chunk fits the cache and stops iterating when it is done, not the matrix."""

LARGEST_ZERO = 1024
"""Beyond it a float16 zero-point is coarser than half a code."""


def quantize(weight: Tensor, bits: int, group_size: int, symmetric: bool = False) -> QuantizedWeight:
    """Quantize a weight with a float zero-point from the half-quadratic solver.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
    bits : int
        From 2 to 8.
    group_size : int
        It divides `in`; groups never straddle rows.
    symmetric : bool
        Must be false: the zero-point is what is solved for.

    Returns
    -------
    QuantizedWeight
        Its zero is not an integer.

    Raises
    ------
    QuantrustError
        If the weight holds NaN or infinities, or a symmetric grid is asked for.
    """
    if symmetric:
        raise QuantrustError("hqq has a free zero-point and is never symmetric; drop the s from the scheme")
    top = 2**bits - 1
    low, high = group_range(weight, group_size)
    largest = torch.maximum(low.abs(), high.abs())
    scale = storable_scale(torch.maximum((high - low) / top, largest / LARGEST_ZERO), bits).float()
    # the solver takes groups as rows, and the inverse of the scale
    groups = weight.float().reshape(-1, group_size)
    inverse = scale.reshape(-1, 1).reciprocal()
    zero = -low.reshape(-1, 1) * inverse
    rows = max(1, CHUNK_WEIGHTS // group_size)
    solved = [
        solve_zero(groups[start : start + rows], inverse[start : start + rows], zero[start : start + rows], top)
        for start in range(0, len(groups), rows)
    ]
    return encode(weight, scale, torch.cat(solved).reshape(scale.shape), bits, group_size)


def solve_zero(groups: Tensor, inverse: Tensor, zero: Tensor, top: int) -> Tensor:
    """Alternate shrinkage and zero-point updates until the mean absolute error no longer falls.

    With d the error of the dequantized weights, a step shrinks e = sign(d) * max(0, |d| - |d|^(p-1) / beta) and sets
    the zero to the mean of q - (w - e) / scale over the group. As long as no error exceeds `LEAST_SHRUNK`, e is zero
    throughout: then w / scale, computed once, stands in for the second term and the power, the bulk of the cost, is
    never taken. Buffers are reused.

    Parameters
    ----------
    groups : Tensor, float32, shape (groups, group size)
    inverse : Tensor, float32, shape (groups, 1)
        1 / scale.
    zero : Tensor, float32, shape (groups, 1)
        Where to start.
    top : int
        The largest code.

    Returns
    -------
    Tensor, float32, shape (groups, 1)
    """
    scaled = groups * inverse
    codes, change, magnitude = (torch.empty_like(groups) for _ in range(3))
    best = float("inf")
    for _ in range(ITERATIONS):
        torch.add(scaled, zero, out=codes).round_().clamp_(0, top)
        torch.sub(codes, zero, out=change).div_(inverse)
        torch.sub(groups, change, out=change)
        torch.abs(change, out=magnitude)
        error = float(magnitude.mean())
        # the margin keeps the rounding of the power from mattering
        if float(magnitude.amax()) < 0.999 * LEAST_SHRUNK:
            target = scaled
        else:
            shrunk = magnitude.sub_(magnitude.pow(LP_NORM - 1).mul_(1 / BETA)).clamp_min_(0).mul_(change.sign_())
            target = torch.sub(groups, shrunk, out=shrunk).mul_(inverse)
        zero = codes.sub_(target).mean(dim=1, keepdim=True)
        if not error < best:
            break
        best = error
    return zero


METHOD = DataFree(
    name="hqq",
    label="HQQ",
    colour="#CC79A7",
    marker="o",
    never_symmetric="has a free zero-point",
    quantize=quantize,
)
