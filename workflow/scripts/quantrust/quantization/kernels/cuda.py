"""Packed kernels for NVIDIA GPUs: torch's int4 kernel, and gemlite for 2, 5, 6 and 8 bits where it is installed.

None of this has been run on a GPU: it was written from the sources of torch 2.13 (aten/src/ATen/native/cuda/int4mm.cu)
and gemlite 0.6.0 (gemlite/core.py). A test runs gemlite's kernels, as they are called here, in triton's interpreter on
a CPU.
"""

from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantrust.quantization.kernels.int4_grid import int4_parts, kernel_group_size, kernel_name, padded, planes
from quantrust.quantization.linear import PackedWeight, ordered_inputs
from quantrust.quantization.packing import unpack

LEAST_CAPABILITY = (8, 0)
"""Compute capability from which torch's int4 kernel runs, and products in bfloat16 altogether."""

GEMLITE = "0.6."
"""What the version of gemlite begins with whose sources the calls here are written for; no other is called."""
GEMLITE_ROWS, GEMLITE_GROUPS = 1024, 16
"""Output channels, and groups of input channels, that gemlite takes together at most.

It reads the grid up to the next multiple of either, and drops what it finds there or multiplies it by zero.
"""

OUTPUT_TILE = 8
INPUT_TILE = 16
INNER_TILES = (8, 4, 2)
"""Tiles of input channels that the kernel may read together, the fastest first; 2 fits every group size."""


class CudaInt4Weight(nn.Module):
    """A quantized weight in the layout of torch's int4 CUDA kernel, used for any number of rows.

    The kernel rounds each weight, of each plane, to bfloat16 before it multiplies, and sums in float32.

    Buffers: `codes` int32, tiled by torch; `grid` bfloat16, shape (planes * columns / group, rows, 2): step and offset;
    `order`, that of the weight.

    Parameters
    ----------
    weight : PackedWeight
        On a GPU, with a group size that `kernel_group_size` finds a kernel's group for.
    """

    def __init__(self, weight: PackedWeight) -> None:
        super().__init__()
        group = kernel_group_size(weight)
        assert group is not None
        self.rows, self.columns, self.group_size = weight.rows, weight.columns, group
        self.planes, self.kernel = planes(weight.bits), kernel_name(weight.bits)
        self._depth = padded(weight.columns, group)
        self.register_buffer("order", weight.order)
        halves, steps, offsets = int4_parts(weight, slice(0, weight.rows))
        below = padded(weight.rows, OUTPUT_TILE) - weight.rows
        halves = functional.pad(halves, (0, 0, 0, below))
        # of two neighbouring input channels the first is the high half of the byte
        pairs = halves[:, ::2] << 4 | halves[:, 1::2]
        together = next(tiles for tiles in INNER_TILES if self.planes * self._depth % (INPUT_TILE * tiles) == 0)
        self.register_buffer("codes", torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), together))
        grid = functional.pad(torch.stack([steps, offsets], dim=-1), (0, 0, 0, 0, 0, below))
        self.register_buffer("grid", grid.transpose(0, 1).contiguous())

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Map (..., columns), bfloat16, to (..., rows)."""
        flat = ordered_inputs(inputs, self.order).reshape(-1, self.columns)
        flat = functional.pad(flat, (0, self._depth - self.columns)).repeat(1, self.planes)
        if not len(flat):
            # a grid without blocks cannot be launched
            return inputs.new_empty(*inputs.shape[:-1], self.rows)
        outputs = torch.ops.aten._weight_int4pack_mm(flat.contiguous(), self.codes, self.group_size, self.grid)
        outputs = outputs[:, : self.rows].unflatten(0, inputs.shape[:-1])
        return outputs if bias is None else outputs + bias


class GemliteWeight(nn.Module):
    """A quantized weight with its own scales and zeros in float32, multiplied by gemlite.

    gemlite holds codes of 1, 2, 4 and 8 bits; those of 5 and 6 bits are widened to 8. It gives float32, because for few
    rows it adds partial sums up in the dtype of its output, in no fixed order: what is rounded to bfloat16 afterwards
    may differ in its last bit from run to run.

    Parameters
    ----------
    weight : PackedWeight
        On a GPU, of 2, 5, 6 or 8 bits, with a group size that is a multiple of what `kernel_group_size` returns.
    """

    def __init__(self, weight: PackedWeight) -> None:
        super().__init__()
        from gemlite.core import DType, GemLiteLinearTriton

        self.columns, self.rows = weight.columns, weight.rows
        self.register_buffer("order", weight.order)
        self.kernel = f"gemlite {version('gemlite')}"
        group = kernel_group_size(weight)
        assert group is not None
        parts = weight.group_size // group
        scale, zero = (part.float().repeat_interleave(parts, dim=1) for part in (weight.scale, weight.zero))
        self.product = GemLiteLinearTriton(
            W_nbits=weight.bits if weight.bits == 2 else 8,
            group_size=group,
            in_features=weight.columns,
            out_features=weight.rows,
            input_dtype=DType.BF16,
            output_dtype=DType.FP32,
        ).pack(
            unpack(weight.codes, weight.bits, weight.columns),
            _before_zeros(scale),
            _before_zeros(zero),
            None,
            fma_mode=False,
        )

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Map (..., columns), bfloat16, to (..., rows)."""
        if not inputs.numel():
            # a grid without blocks cannot be launched
            return inputs.new_empty(*inputs.shape[:-1], self.rows)
        outputs = self.product(ordered_inputs(inputs, self.order).contiguous()).to(inputs.dtype)
        return outputs if bias is None else outputs + bias


def _before_zeros(grid: Tensor) -> Tensor:
    """Return scales or zeros, shape (rows, groups), where zeros follow them in memory as far as gemlite reads.

    In memory the groups come first. That is gemlite's layout, so that it does not copy them away from the zeros.
    """
    rows, groups = grid.shape
    reach = (padded(groups, GEMLITE_GROUPS) - 1) * rows + padded(rows, GEMLITE_ROWS)
    memory = grid.new_zeros(reach)[: groups * rows].view(groups, rows)
    return memory.copy_(grid.t()).t()


def cuda_weight(weight: PackedWeight) -> nn.Module:
    """Return a weight on a GPU in the layout of a packed kernel, or itself where none takes it.

    Parameters
    ----------
    weight : PackedWeight
        With a group size that `kernel_group_size` finds a kernel's group for.
    """
    if torch.cuda.get_device_capability(weight.codes.device) < LEAST_CAPABILITY:
        return weight
    fits = weight.group_size % kernel_group_size(weight) == 0
    if weight.bits not in (3, 4) and fits and _gemlite_version().startswith(GEMLITE):
        return GemliteWeight(weight)
    return CudaInt4Weight(weight)


def _gemlite_version() -> str:
    """Return the version of gemlite, nothing where it is not installed."""
    try:
        return version("gemlite")
    except PackageNotFoundError:
        return ""
