"""GPTQ (Frantar et al., ICLR 2023): columns are rounded one after another, and the rest makes up for each error.

The objective is |(W' - W) X|^2 over calibration inputs X, whose Hessian for every row of W is H = X X^T. Columns go in
the order of falling diagonal; scales and zeros are those of round to nearest on the original weight, fixed before the
reordering ("static groups"), so that the result needs no index table and H = I gives round to nearest itself.

The paper spreads errors by the Cholesky factor of H^-1. The same codes follow from a factor of H itself (Chee et al.,
"QuIP", NeurIPS 2023: their LDLQ): with H = M D M^T, where D is diagonal and M upper triangular with ones on its
diagonal, column k is rounded from w_k + sum over j < k of (w_j - w'_j) M_jk. Nothing is inverted. That halves the work,
and float32 is precise enough, because what it gets wrong stays far below the damping. It does not for channels with
large entries on the diagonal. Those are few, and their rows are factored in double precision.
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

FINE = 1000
"""Channels whose entry on the diagonal is more than so many times the damping are factored in double precision.

Rounding in float32 disturbs the entry of two channels by some 6e-8 of the root of their two diagonal entries, which for
all others is 6e-5 of the damping. With a damping of 0.01 these are channels of more than ten times the mean, no more
than a tenth of all.
"""

BLOCK_COLUMNS = 256
"""Columns that are factored or rounded before what the next ones take from them is worked out (section 3.3, step 2)."""

PANEL_COLUMNS = 32
"""Columns of such a block that are rounded one by one; the block's later ones then follow in one product."""


@dataclass(frozen=True)
class HessianFactor:
    """What the solver needs of a Hessian; the same for all linears that read one activation.

    Attributes
    ----------
    order : Tensor, int64, shape (in,)
        Columns by falling diagonal.
    feedback : Tensor, float32, shape (in, in)
        Upper triangular M, with ones on its diagonal, of the damped H = M D M^T in that order, where D is diagonal.
    """

    order: Tensor
    feedback: Tensor


def factor_hessian(hessian: Tensor) -> HessianFactor:
    """Damp a Hessian, order its columns and factor it.

    A channel that is always zero gets the diagonal entry 1, which sets it apart from all others: its column is rounded
    to nearest (other implementations set it to zero, which only inputs like those of the calibration forgive).

    The factor is that of a Hessian which differs a little from the damped one: by less than a hundredth of the damping
    in Frobenius norm for up to 3,072 channels, of full and of low rank, with outliers and without (measured).

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
    diagonal = hessian.diagonal().clone()
    if not all(rows.isfinite().all() for rows in hessian.split(BLOCK_COLUMNS)):
        raise QuantrustError("calibration activations hold NaN or infinite values; check model and images")
    dead = diagonal == 0
    mean = float(diagonal[~dead].double().mean()) if not dead.all() else 1.0
    order = diagonal.argsort(descending=True, stable=True)
    # The largest entries come first. They are as float32 holds them, and only then divided and damped.
    fine = hessian[order[: int((diagonal > FINE * DAMPING * mean).sum())]][:, order].double()
    root = torch.zeros_like(hessian)
    for start, chosen in zip(range(0, len(order), BLOCK_COLUMNS), order.split(BLOCK_COLUMNS), strict=True):
        stop = start + len(chosen)
        root[start:stop, start:] = hessian[chosen][:, order[start:]]
        root[start:stop, start:stop].triu_()
    del hessian
    for part in (fine, root):
        part.div_(mean).diagonal().add_(DAMPING)
    root.diagonal().masked_fill_(dead[order], 1.0)
    _factor_in_place(root, fine)
    return HessianFactor(order, root.div_(root.diagonal().clone()))


def _factor_in_place(matrix: Tensor, fine: Tensor) -> None:
    """Replace a symmetric matrix by the upper triangular R of R R^T: Cholesky's factorisation from the last column on.

    Parameters
    ----------
    matrix : Tensor, float32, shape (n, n)
        Its upper triangle is read.
    fine : Tensor, float64, shape (k, n)
        Its first k rows, for which this is done in double precision; changed in place.
    """
    rows = len(fine)
    for stop in range(len(matrix), rows, -BLOCK_COLUMNS):
        start = max(stop - BLOCK_COLUMNS, rows)
        done = matrix[start:stop, stop:]
        panel = matrix[rows:stop, start:stop]
        panel.addmm_(matrix[rows:stop, stop:], done.t(), alpha=-1)
        above, corner = panel.split([start - rows, stop - start])
        exact = _upper_root(corner.double())
        corner.copy_(exact)
        above.copy_(_solve(exact.float(), above))
        panel = fine[:, start:stop]
        panel.addmm_(fine[:, stop:], done.t().double(), alpha=-1)
        panel.copy_(_solve(exact, panel))
    corner, right = fine.split([rows, len(matrix) - rows], dim=1)
    corner.copy_(_upper_root(corner.addmm_(right, right.t(), alpha=-1)))
    matrix[:rows] = fine


def _upper_root(matrix: Tensor) -> Tensor:
    """Return the upper triangular R of R R^T, from the upper triangle of a small symmetric matrix."""
    lower, failed = torch.linalg.cholesky_ex(matrix.flip(0, 1))
    if failed:
        raise QuantrustError("the Hessian of the calibration activations is not positive definite; use more samples")
    return lower.flip(0, 1)


def _solve(root: Tensor, rows: Tensor) -> Tensor:
    """Return X of X R^T = rows for an upper triangular R."""
    return torch.linalg.solve_triangular(root.t(), rows, upper=False, left=False)


def quantize_gptq(
    weight: Tensor, factor: HessianFactor, bits: int, group_size: int, symmetric: bool = False
) -> QuantizedWeight:
    """Quantize a weight on the grid of round to nearest, each column's error made up for by those still to come.

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
    constant, nearest = (low == high).t().contiguous(), grid.codes.t()
    feedback, top = factor.feedback, 2**bits - 1
    errors = weight.new_empty(len(order), len(weight), dtype=torch.float32)
    codes = torch.empty_like(grid.codes)
    for start in range(0, len(order), BLOCK_COLUMNS):
        chosen = order[start : start + BLOCK_COLUMNS]
        stop = start + len(chosen)
        original = weight.index_select(1, chosen).float().t().contiguous()
        columns = torch.addmm(original, feedback[:start, start:stop].t(), errors[:start])
        rounded = torch.empty(columns.shape, dtype=torch.uint8, device=weight.device)
        for first in range(start, stop, PANEL_COLUMNS):
            last = min(first + PANEL_COLUMNS, stop)
            columns[first - start : last - start].addmm_(feedback[start:first, first:last].t(), errors[start:first])
            for index in range(first, last):
                group, place = groups[index], index - start
                column = columns[place].addmv_(errors[first:index].t(), feedback[first:index, index])
                code = (column / scale[group]).add_(zero[group]).round_().clamp_(0, top)
                code = torch.where(constant[group], nearest[order[index]], code)
                rounded[place] = code
                torch.sub(original[place], code.sub_(zero[group]).mul_(scale[group]), out=errors[index])
        codes[:, chosen] = rounded.t()
    return QuantizedWeight(codes, grid.scale, grid.zero, bits, group_size)


METHOD = Sequential(
    name="gptq",
    label="GPTQ",
    colour="#5B3A8E",
    marker="v",
    prepare=factor_hessian,
    quantize=quantize_gptq,
    rounding=rtn.METHOD,
)
