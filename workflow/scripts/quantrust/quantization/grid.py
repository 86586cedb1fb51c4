"""The quantized weight that every method yields, and the grid it lives on.

A group is a run of consecutive input channels of one output channel, in the order in which the weight holds its input
channels: their own, unless others quantized them in another. Within a group w = (q - zero) * scale, with
codes q in [0, 2^bits - 1]. Scale and zero are stored in float16 (float32 at 8 bits, where float16 would cost as much
as the last bit), and codes are always computed against the stored values. The zero is a float: half-quadratic
quantization needs it, and integers up to 2048 are exact in float16.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quantrust.errors import QuantrustError

FALLBACK_GROUP_SIZES = (64, 32, 16)
LEAST_SCALE = 2.0**-24
"""The least positive float16."""
SMALLEST_NORMAL = 2.0**-14
"""From here on float16 has all its eleven significant bits."""
MEASURED_WEIGHTS = 1 << 20
"""Weights that are held in float64 at a time while a change is measured."""


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes and grid of one weight matrix.

    Attributes
    ----------
    codes : Tensor, uint8, shape (out, in)
        Values in [0, 2^bits - 1].
    scale : Tensor, float16 or float32, shape (out, in / group_size)
        Positive; of weights that others quantized, any finite number.
    zero : Tensor, dtype and shape of `scale`
        The code that stands for zero; not necessarily an integer.
    bits : int
    group_size : int
        Input channels that share a scale; it divides `in`.
    order : Tensor or None, int32, shape (in,)
        The input channel that each column of the codes belongs to; None where they are in their own order.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    group_size: int
    order: Tensor | None = None

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weight, shape (out, in), computed in float32 and rounded to `dtype` once.

        Its columns are in their own order.
        """
        return in_order(dequantize(self.codes, self.scale, self.zero).to(dtype), self.order)


def in_order(values: Tensor, order: Tensor | None) -> Tensor:
    """Return columns in the order of input channels.

    Parameters
    ----------
    values : Tensor, shape (..., in)
    order : Tensor or None, int32, shape (in,)
        The input channel that each column belongs to.

    Examples
    --------
    >>> in_order(torch.tensor([5, 6, 7]), torch.tensor([2, 0, 1]))
    tensor([6, 7, 5])
    """
    if order is None:
        return values
    placed = torch.empty_like(values)
    placed[..., order.long()] = values
    return placed


def dequantize(codes: Tensor, scale: Tensor, zero: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return (codes - zero) * scale.

    Parameters
    ----------
    codes : Tensor, uint8, shape (..., in)
    scale, zero : Tensor, shape (..., groups)
        `groups` divides `in`.
    dtype : torch.dtype
        In which this is computed.

    Returns
    -------
    Tensor, `dtype`, shape (..., in)
    """
    grouped = codes.unflatten(-1, (scale.shape[-1], -1)).to(dtype)
    return grouped.sub_(zero.to(dtype).unsqueeze(-1)).mul_(scale.to(dtype).unsqueeze(-1)).flatten(-2)


def percent(share: float, decimals: int = 0) -> str:
    """Return a share as messages have it, with so many decimals and a space before the unit.

    Examples
    --------
    >>> percent(0.1), percent(0.0256, 1)
    ('10 %', '2.6 %')
    """
    return f"{100 * share:.{decimals}f} %"


def relative_change(found: Tensor, weight: Tensor) -> float:
    """Return |found - weight| / |weight| in the Frobenius norm, for weights of any size that float32 holds.

    Parameters
    ----------
    found, weight : Tensor, shape (out, in)

    Returns
    -------
    float
        Not negative; 0 where nothing changes, infinite where a weight of zeros alone does.
    """
    rows = max(1, MEASURED_WEIGHTS // weight.shape[1])
    change = norm = 0.0
    for one, other in zip(found.split(rows), weight.split(rows), strict=True):
        # squares of small weights underflow in float32
        exact = other.double()
        change += float((one.double() - exact).square_().sum())
        norm += float(exact.square_().sum())
    if change == 0:
        return 0.0
    return (change / norm) ** 0.5 if norm else float("inf")


def storage_dtype(bits: int) -> torch.dtype:
    """Return the dtype in which scale and zero are stored."""
    return torch.float32 if bits == 8 else torch.float16


def effective_group_size(in_features: int, requested: int | None) -> int:
    """Return the group size that a layer takes.

    Parameters
    ----------
    in_features : int
    requested : int or None
        The scheme's group size; None is the whole channel.

    Returns
    -------
    int
        `requested` where it divides `in_features`, else the largest of 64, 32 and 16 that does, else `in_features`.

    Examples
    --------
    >>> effective_group_size(4304, 128)  # 16 * 269
    16
    """
    if requested is None:
        return in_features
    for size in (requested, *FALLBACK_GROUP_SIZES):
        if in_features % size == 0:
            return size
    return in_features


def group_range(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Return the least and the largest weight of each group.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
    group_size : int

    Returns
    -------
    low, high : Tensor, float32, shape (out, in / group_size)

    Raises
    ------
    QuantrustError
        If the weight holds NaN or infinities.
    """
    groups = weight.float().unflatten(1, (-1, group_size))
    # on the CPU `aminmax` takes 13 times as long as the two by themselves
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    if not (low.isfinite().all() and high.isfinite().all()):
        raise QuantrustError("the weight holds NaN or infinite values; the model's files are damaged or it diverged")
    return low, high


def storable_scale(scale: Tensor, bits: int) -> Tensor:
    """Round scales to the dtype in which they are stored.

    Scales that would round to zero become the least positive number, so that dividing by the result is safe.

    Parameters
    ----------
    scale : Tensor, float32
        Not negative.
    bits : int

    Returns
    -------
    Tensor, `storage_dtype(bits)`

    Raises
    ------
    QuantrustError
        If a scale overflows.
    """
    dtype = storage_dtype(bits)
    # the least positive float16 is subnormal; float32 subnormals are avoided because their reciprocals overflow
    least = LEAST_SCALE if dtype == torch.float16 else torch.finfo(dtype).tiny
    stored = scale.clamp(min=least).to(dtype)
    if not stored.isfinite().all():
        raise QuantrustError(f"a weight group spans more than {bits} bits with {dtype} scales can hold")
    return stored


def encode(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor,
    bits: int,
    group_size: int,
    symmetric: bool = False,
    ends: tuple[Tensor, Tensor] | None = None,
) -> QuantizedWeight:
    """Put a weight on a grid.

    Groups whose weights are all equal get a grid of their own: the scale is the absolute value and the code is one
    step from the zero. Where the absolute value is so small that float16 would round it (below 2^-14), the scale is the
    least that there is and the zero, a float, is the value. So weights that came from bfloat16 are exact down to 4e-12,
    and what is smaller is off by less than 2e-15; with `symmetric`, which keeps the zero, down to 6e-5, and below by
    less than 3e-8.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
    scale : Tensor, shape (out, in / group_size)
        Rounded to the storage dtype here if it is not yet.
    zero : Tensor, shape of `scale`
        Likewise.
    bits, group_size : int
    symmetric : bool
        Whether constant groups must keep the given zero.
    ends : tuple of Tensor, or None
        What `group_range` returns, if it is known.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    QuantrustError
        If the weight holds NaN or infinities, or a scale overflows.
    """
    low, high = group_range(weight, group_size) if ends is None else ends
    constant = low == high
    scale = torch.where(constant, torch.where(low == 0, 1.0, low.abs()), scale.float())
    if not symmetric:
        zero = torch.where(constant, (low < 0).float(), zero.float())
        if storage_dtype(bits) == torch.float16:
            tiny = constant & (low != 0) & (low.abs() < SMALLEST_NORMAL)
            scale = torch.where(tiny, LEAST_SCALE, scale)
            zero = torch.where(tiny, -low / LEAST_SCALE, zero)
    scale = storable_scale(scale, bits)
    zero = zero.to(scale.dtype)
    grouped = weight.float().unflatten(1, (-1, group_size))
    codes = (grouped / scale.float().unsqueeze(-1)).add_(zero.float().unsqueeze(-1))
    codes = codes.round_().clamp_(0, 2**bits - 1).to(torch.uint8).flatten(1)
    return QuantizedWeight(codes, scale, zero, bits, group_size)
