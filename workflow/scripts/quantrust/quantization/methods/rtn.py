"""Round to nearest (RTN): the grid from each group's range, no data."""

import torch
from torch import Tensor

from quantrust.quantization.grid import QuantizedWeight, encode, group_range, storable_scale
from quantrust.quantization.walks.data_free import DataFree


def quantize_rtn(weight: Tensor, bits: int, group_size: int, symmetric: bool = False) -> QuantizedWeight:
    """Quantize a weight by rounding each value to the nearest point of its group's grid.

    Asymmetric: scale = (max - min) / (2^bits - 1) and zero = round(-min / scale) within the code range. That range
    holds zero by construction, so in a group whose weights all have one sign min or max is taken as 0 (with the
    group's own ends every code would saturate). Symmetric: zero = 2^(bits - 1) and scale = max |w| / (2^(bits - 1) -
    0.5): the range from -max |w| to max |w| over the 2^bits - 1 steps between the first code and the last, as the tools
    of GPTQ and compressed-tensors have it.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
    bits : int
        From 2 to 8.
    group_size : int
        It divides `in`.
    symmetric : bool

    Returns
    -------
    QuantizedWeight
        Off by at most half a scale, up to the rounding of the stored scale.

    Raises
    ------
    QuantrustError
        If the weight holds NaN or infinities.
    """
    ends = low, high = group_range(weight, group_size)
    if symmetric:
        middle = 2 ** (bits - 1)
        scale = torch.maximum(low.abs(), high.abs()) / (middle - 0.5)
        return encode(weight, scale, torch.full_like(scale, middle), bits, group_size, symmetric=True, ends=ends)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    top = 2**bits - 1
    scale = storable_scale((high - low) / top, bits).float()
    zero = (-low / scale).round_().clamp_(0, top)
    return encode(weight, scale, zero, bits, group_size, ends=ends)


METHOD = DataFree(
    name="rtn",
    label="RTN",
    colour="#7A7A7A",
    marker="^",
    quantize=quantize_rtn,
    in_words="rounded to nearest",
)
