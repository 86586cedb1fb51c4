"""Packed kernels for NVIDIA GPUs: torch's int4 kernel, and gemlite for 5 to 8 bits where it is installed.

None of this has been run: it was written from the sources of torch 2.13 and gemlite, without a GPU.
"""

from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantrust.quantization.int4_grid import int4_parts, kernel_group_size, kernel_name, padded, planes
from quantrust.quantization.linear import PackedWeight
from quantrust.quantization.packing import unpack

LEAST_CAPABILITY = (8, 0)
"""Compute capability from which torch's int4 kernel runs."""

OUTPUT_TILE = 8
INNER_TILES = 2
"""Tiles of 16 input channels that the kernel reads together; 2 fits every group size."""


class CudaInt4Weight(nn.Module):
    """A quantized weight in the layout of torch's int4 CUDA kernel, used for any number of rows.

    Buffers: `codes` int32, tiled by torch; `grid` bfloat16, shape (planes * columns / group, rows, 2): step and offset.

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
        halves, steps, offsets = int4_parts(weight, slice(0, weight.rows))
        below = padded(weight.rows, OUTPUT_TILE) - weight.rows
        halves = functional.pad(halves, (0, 0, 0, below))
        # of two neighbouring input channels the first is the high half of the byte
        pairs = halves[:, ::2] << 4 | halves[:, 1::2]
        self.register_buffer("codes", torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), INNER_TILES))
        grid = functional.pad(torch.stack([steps, offsets], dim=-1), (0, 0, 0, 0, 0, below))
        self.register_buffer("grid", grid.transpose(0, 1).contiguous())

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Map (..., columns), bfloat16, to (..., rows)."""
        flat = functional.pad(inputs.reshape(-1, self.columns), (0, self._depth - self.columns)).repeat(1, self.planes)
        outputs = torch.ops.aten._weight_int4pack_mm(flat.contiguous(), self.codes, self.group_size, self.grid)
        outputs = outputs[:, : self.rows].unflatten(0, inputs.shape[:-1])
        return outputs if bias is None else outputs + bias


class GemliteWeight(nn.Module):
    """A quantized weight as 8-bit codes with its own scales and zeros in float32, multiplied by gemlite.

    Parameters
    ----------
    weight : PackedWeight
        On a GPU, with a multiple of 32 columns.
    """

    kernel = "gemlite"

    def __init__(self, weight: PackedWeight) -> None:
        super().__init__()
        from gemlite.core import DType, GemLiteLinearTriton

        self.columns, self.rows = weight.columns, weight.rows
        group = kernel_group_size(weight)
        assert group is not None
        parts = weight.group_size // group
        scale, zero = (part.float().repeat_interleave(parts, dim=1) for part in (weight.scale, weight.zero))
        self.product = GemLiteLinearTriton(
            W_nbits=8,
            group_size=group,
            in_features=weight.columns,
            out_features=weight.rows,
            input_dtype=DType.BF16,
            output_dtype=DType.BF16,
        ).pack(unpack(weight.codes, weight.bits, weight.columns), scale, zero, None, fma_mode=False)

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Map (..., columns), bfloat16, to (..., rows)."""
        outputs = self.product(inputs.contiguous())
        return outputs if bias is None else outputs + bias


def cuda_weight(weight: PackedWeight) -> nn.Module:
    """Return a weight on a GPU in the layout of a packed kernel, or itself where none takes it.

    Parameters
    ----------
    weight : PackedWeight
        With a group size that `kernel_group_size` finds a kernel's group for.
    """
    whole_groups = weight.group_size % kernel_group_size(weight) == 0
    if planes(weight.bits) == 2 and whole_groups and find_spec("gemlite") is not None:
        return GemliteWeight(weight)
    if torch.cuda.get_device_capability(weight.codes.device) < LEAST_CAPABILITY:
        return weight
    return CudaInt4Weight(weight)
