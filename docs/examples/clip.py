"""Round to nearest on a narrower range: each group takes the factor that leaves the least squared error."""

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.quantization.grid import QuantizedWeight, encode, group_range, storable_scale
from quantrust.quantization.walks.data_free import DataFree

FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)


def quantize(weight: Tensor, bits: int, group_size: int, symmetric: bool = False) -> QuantizedWeight:
    """Quantize a weight; see `quantrust.quantization.walks.data_free` for the parameters."""
    if symmetric:
        raise QuantrustError("clip is not symmetric; drop the s from the scheme")
    top = 2**bits - 1
    low, high = group_range(weight, group_size)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    grids, errors = [], []
    for factor in FACTORS:
        scale = storable_scale(factor * (high - low) / top, bits).float()
        zero = (-factor * low / scale).round().clamp(0, top)
        change = encode(weight, scale, zero, bits, group_size).dequantize() - weight
        errors.append(change.unflatten(1, (-1, group_size)).square().sum(dim=2))
        grids.append(torch.stack([scale, zero]))
    best = torch.stack(errors).argmin(dim=0)
    scale, zero = torch.stack(grids).gather(0, best.expand(1, 2, *best.shape)).squeeze(0)
    return encode(weight, scale, zero, bits, group_size)


METHOD = DataFree(name="clip", label="Clip", never_symmetric="narrows an asymmetric grid", quantize=quantize)
