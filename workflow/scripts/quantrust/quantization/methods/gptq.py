"""GPTQ (Frantar et al., ICLR 2023): columns are rounded one after another, and the rest makes up for each error.

The objective is |(W' - W) X|^2 over calibration inputs X, whose Hessian for every row of W is H = X X^T. Columns go in
the order of falling diagonal; scales and zeros are those of round to nearest on the original weight, fixed before the
reordering ("static groups"), so that the result needs no index table and H = I gives round to nearest itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.quantization.grid import QuantizedWeight, group_range
from quantrust.quantization.methods import rtn
from quantrust.quantization.methods.rtn import quantize_rtn
from quantrust.quantization.walks.sequential import Sequential

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it (section 3.3, step 3)."""

BLOCK_COLUMNS = 128
"""Columns whose errors are collected before the columns after them are updated (section 3.3, step 2)."""


@dataclass(frozen=True)
class HessianFactor:
    """What the solver needs of a Hessian; the same for all linears that read one activation.

    Attributes
    ----------
    order : Tensor, int64, shape (in,)
        Columns by falling diagonal.
    inverse_root : Tensor, float32, shape (in, in)
        Upper triangular U with H^-1 = U^T U, in that order.
    """

    order: Tensor
    inverse_root: Tensor


def factor_hessian(hessian: Tensor) -> HessianFactor:
    """Damp a Hessian, order its columns and factor its inverse.

    A channel that is always zero gets the diagonal entry 1, which sets it apart from all others: its column is rounded
    to nearest (other implementations set it to zero, which only inputs like those of the calibration forgive).

    Parameters
    ----------
    hessian : Tensor, float32, shape (in, in)
        Symmetric, positive semi-definite; its scale does not matter. Its memory is free once it is copied, if nobody
        else holds it.

    Returns
    -------
    HessianFactor

    Raises
    ------
    QuantrustError
        If the Hessian is not finite, or not positive definite once damped.
    """
    columns = len(hessian)
    diagonal = hessian.diagonal().clone()
    if not all(rows.isfinite().all() for rows in hessian.split(BLOCK_COLUMNS)):
        raise QuantrustError("calibration activations hold NaN or infinite values; check model and images")
    dead = diagonal == 0
    mean = float(diagonal[~dead].double().mean()) if not dead.all() else 1.0
    order = diagonal.argsort(descending=True, stable=True)
    # H = R R^T with R upper triangular is Cholesky's factorisation from the last column on, and U = R^-1. In double
    # precision, as rank-deficient Hessians of outlier channels need it; without a copy, as it may hold gigabytes: what
    # is given is let go once it is copied, and factored in place, which takes columns that lie together.
    backwards = order.flip(0)
    lower = torch.empty(columns, columns, dtype=torch.float64, device=hessian.device).mT
    for chosen, part in zip(backwards.split(BLOCK_COLUMNS), lower.split(BLOCK_COLUMNS, dim=1), strict=True):
        part.copy_(hessian[:, chosen][backwards])
    del hessian
    lower.div_(mean).diagonal().add_(DAMPING).masked_fill_(dead[backwards], 1.0)
    failed = torch.empty((), dtype=torch.int32, device=lower.device)
    torch.linalg.cholesky_ex(lower, out=(lower, failed))
    if failed:
        raise QuantrustError("the Hessian of the calibration activations is not positive definite; use more samples")
    inverse = torch.zeros(columns, columns, dtype=torch.float32, device=lower.device)
    flat = lower.mT.view(-1)
    for start in range(0, columns, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, columns)
        left = columns - start
        _move_together(flat, min(left + BLOCK_COLUMNS, columns), left)
        lower = flat[: left * left].view(left, left).mT
        rows = torch.eye(stop - start, left, dtype=lower.dtype, device=lower.device).roll(columns - stop, 1)
        solved = torch.linalg.solve_triangular(lower, rows, upper=False, left=False)
        inverse[start:stop, start:] = solved.flip(0, 1)
    return HessianFactor(order, inverse)


def _move_together(flat: Tensor, size: int, left: int) -> None:
    """Make the first rows and columns of a matrix contiguous, so that a solver takes them without a copy.

    Parameters
    ----------
    flat : Tensor
        Begins with a square matrix, column after column; changed in place.
    size : int
        Rows and columns of the matrix.
    left : int
        Those to keep.
    """
    if left == size:
        return
    for start in range(0, left, BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, left)
        # what is written lies before what is still to be read
        kept = flat[start * size : stop * size].view(stop - start, size)[:, :left].clone()
        flat[start * left : stop * left] = kept.view(-1)


def quantize_gptq(
    weight: Tensor, factor: HessianFactor, bits: int, group_size: int, symmetric: bool = False
) -> QuantizedWeight:
    """Quantize a weight on the grid of round to nearest, each column's error spread over those still to come.

    Parameters
    ----------
    weight : Tensor, shape (out, in)
    factor : HessianFactor
        Of the inputs of the layer.
    bits : int
        From 2 to 8.
    group_size : int
        It divides `in`.
    symmetric : bool

    Returns
    -------
    QuantizedWeight
        With the scales and zeros of `quantize_rtn`. Constant groups keep its codes, which are exact.

    Raises
    ------
    QuantrustError
        If the weight holds NaN or infinities, or a scale overflows.
    """
    grid = quantize_rtn(weight, bits, group_size, symmetric)
    low, high = group_range(weight, group_size)
    # one row a column of the weight, in the order of quantization
    order, groups = factor.order, (factor.order // group_size).tolist()
    scale, zero = grid.scale.float().t().contiguous(), grid.zero.float().t().contiguous()
    constant, nearest = (low == high).t().contiguous(), grid.codes.t()[order]
    columns = weight.float().t()[order]
    root, top = factor.inverse_root, 2**bits - 1
    codes = torch.empty_like(nearest)
    for start in range(0, len(columns), BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, len(columns))
        errors = columns.new_empty(stop - start, columns.shape[1])
        for index in range(start, stop):
            group = groups[index]
            column = columns[index]
            code = (column / scale[group] + zero[group]).round_().clamp_(0, top)
            code = torch.where(constant[group], nearest[index], code)
            codes[index] = code
            error = (column - (code - zero[group]) * scale[group]) / root[index, index]
            columns[index + 1 : stop] -= root[index, index + 1 : stop, None] * error
            errors[index - start] = error
        columns[stop:] -= root[start:stop, stop:].t() @ errors
    restored = torch.empty_like(codes)
    restored[order] = codes
    return QuantizedWeight(restored.t().contiguous(), grid.scale, grid.zero, bits, group_size)


METHOD = Sequential(
    name="gptq",
    label="GPTQ",
    colour="#5B3A8E",
    marker="v",
    prepare=factor_hessian,
    quantize=quantize_gptq,
    rounding=rtn.METHOD,
)
