"""Half-quadratic quantization (HQQ): the zero-point that minimises an l_p error, no data.

Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023. The solver is the `hqq`
package's; the grid, the storage and the codes are this project's.
"""

import torch
from hqq.core.optimize import optimize_weights_proximal
from torch import Tensor

from quantrust.quantization.grid import QuantizedWeight, encode, group_range, storable_scale

CHUNK_WEIGHTS = 1 << 18
"""Weights the solver sees at a time: a chunk fits the cache and stops iterating when it is done, not the matrix."""

LARGEST_ZERO = 1024
"""Beyond it a float16 zero-point is coarser than half a code."""


def quantize_hqq(weight: Tensor, bits: int, group_size: int) -> QuantizedWeight:
    """Quantize a weight with a float zero-point from the half-quadratic solver.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
    bits : int
        From 2 to 8.
    group_size : int
        It divides `in`; groups never straddle rows.

    Returns
    -------
    QuantizedWeight
        Its zero is not an integer.

    Raises
    ------
    QuantrustError
        If the weight holds NaN or infinities.
    """
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
        optimize_weights_proximal(
            tensor=groups[start : start + rows],
            scale=inverse[start : start + rows],
            zero=zero[start : start + rows],
            min_max=[0, top],
            axis=1,
        )[2]
        for start in range(0, len(groups), rows)
    ]
    return encode(weight, scale, torch.cat(solved).reshape(scale.shape), bits, group_size)
