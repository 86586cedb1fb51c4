"""The packed kernel of the CPU: torch's int4 kernel, and products that dequantize a block of weights at a time.

The kernel takes bfloat16 and accumulates in float32, on the grid that `quantrust.quantization.kernels.int4_grid`
describes.

Layout on the CPU (aten/src/ATen/native/cpu/int4mm_kernel.cpp). Rows come in blocks of 64 with AVX-512 and 32 with AVX2.
A block is a matrix of bytes, input channels by half the rows of the block: the low halves of the bytes are the first
half of the rows, the high halves the second. The weights of a block can therefore be had without the kernel, which is
what products with many rows of activations do, where dequantizing once and a dense product are faster.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantrust.quantization.grid import in_order
from quantrust.quantization.kernels.int4_grid import (
    KERNEL_DTYPE,
    int4_parts,
    kernel_group_size,
    kernel_name,
    middle,
    padded,
    planes,
)
from quantrust.quantization.linear import PackedWeight, ordered_inputs

WIDEST_BLOCK = 64
"""Rows of a block with AVX-512."""

MOST_ROWS = {1: 70, 2: 35}
"""By planes: up to so many rows of activations the CPU's int4 kernel is faster than dequantizing a block of weights at
a time and multiplying. Measured by `benchmarks/bench_kernels.py`; the same on every machine, because results may
depend on it in their last bits.
"""


class Int4Weight(nn.Module):
    """A quantized weight in the layout of torch's int4 CPU kernel.

    Buffers: `codes` uint8, shape (blocks, planes * columns, block / 2); `grid` bfloat16, shape
    (planes * columns / group, rows, 2): step and offset; `order`, that of the weight. Rows are padded to whole blocks
    and columns to whole groups.

    Parameters
    ----------
    weight : PackedWeight
        On the CPU, with a group size that `kernel_group_size` finds a kernel's group for.
    """

    def __init__(self, weight: PackedWeight) -> None:
        super().__init__()
        group, block = kernel_group_size(weight), block_rows()
        assert group is not None and block is not None
        self.rows, self.columns, self.bits = weight.rows, weight.columns, weight.bits
        self.group_size, self.planes = group, planes(weight.bits)
        self.kernel = kernel_name(weight.bits)
        self._depth = padded(weight.columns, group)
        self.register_buffer("order", weight.order)
        height = padded(weight.rows, block)
        self.register_buffer(
            "codes", torch.empty(height // block, self.planes * self._depth, block // 2, dtype=torch.uint8)
        )
        self.register_buffer("grid", torch.zeros(self.planes * self._depth // group, height, 2, dtype=KERNEL_DTYPE))
        for number, codes in enumerate(self.codes):
            rows = slice(number * block, min((number + 1) * block, weight.rows))
            halves, steps, offsets = int4_parts(weight, rows)
            codes.view(block, -1).copy_(_pack(functional.pad(halves, (0, 0, 0, rows.start + block - rows.stop))))
            self.grid[:, rows] = torch.stack([steps, offsets], dim=-1).transpose(0, 1)

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Map (..., columns), bfloat16, to (..., rows)."""
        flat = ordered_inputs(inputs, self.order).reshape(-1, self.columns)
        outputs = self._by_kernel(flat) if len(flat) <= MOST_ROWS[self.planes] else self._by_blocks(flat)
        outputs = outputs.unflatten(0, inputs.shape[:-1])
        return outputs if bias is None else outputs + bias

    def dequantize(self, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        """Return the weight as the kernel sees it, or some of its rows.

        Parameters
        ----------
        dtype : torch.dtype
        rows : Tensor, int64, shape (k,), or None

        Returns
        -------
        Tensor, `dtype`, shape (rows or k, columns)
        """
        if rows is None:
            rows = torch.arange(self.rows)
        half = self.codes.shape[-1]
        lane = rows % (2 * half)
        halves = self.codes[rows // (2 * half), :, lane % half] >> (lane // half * 4).to(torch.uint8).unsqueeze(-1)
        weight = self._join(halves.T & 15).unflatten(0, (-1, self.group_size)).float()
        step, offset = (part.unsqueeze(1) for part in self._grid(rows))
        values = weight.mul_(step).add_(offset).flatten(0, 1).T[:, : self.columns].to(dtype)
        return in_order(values, self.order)

    def extra_repr(self) -> str:
        """Return shape, bits and group size."""
        return f"{self.rows} x {self.columns}, {self.bits} bits, group {self.group_size}"

    def _by_kernel(self, inputs: Tensor) -> Tensor:
        inputs = functional.pad(inputs, (0, self._depth - self.columns)).repeat(1, self.planes)
        weight = self.codes.view(self.grid.shape[1], -1)
        outputs = torch.ops.aten._weight_int4pack_mm_for_cpu(inputs.contiguous(), weight, self.group_size, self.grid)
        return outputs[:, : self.rows]

    def _by_blocks(self, inputs: Tensor) -> Tensor:
        inputs = functional.pad(inputs, (0, self._depth - self.columns))
        blocks, _, half = self.codes.shape
        step, offset = (
            part.unflatten(1, (blocks, 1, 2 * half)).transpose(0, 1).contiguous() for part in self._grid(slice(None))
        )
        outputs = inputs.new_empty(len(inputs), blocks, 2 * half)
        dense = inputs if _has_avx512() else inputs.float()
        # one block's weights stay in the cache between the codes and the product
        weight = torch.empty(self._depth, 2 * half)
        grouped = weight.unflatten(0, (-1, self.group_size))
        for block, codes in enumerate(self.codes):
            weight[:, :half] = self._join(codes & 15)
            weight[:, half:] = self._join(codes >> 4)
            torch.addcmul(offset[block], grouped, step[block], out=grouped)
            outputs[:, block] = dense @ weight.to(inputs.dtype).to(dense.dtype)
        return outputs.flatten(1)[:, : self.rows]

    def _join(self, halves: Tensor) -> Tensor:
        """Join planes of 4 bits, uint8, shape (planes * columns, ...), into codes, shape (columns, ...)."""
        if self.planes == 1:
            return halves
        return halves[: self._depth] << 4 | halves[self._depth :]

    def _grid(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return step and offset, float32 (columns / group, k), of w = code * step + offset for joined codes."""
        step, offset = self.grid[:, rows].float().unbind(-1)
        groups = self._depth // self.group_size
        offset = offset.unflatten(0, (self.planes, groups)).sum(dim=0)
        step = step[-groups:]
        return step, offset.sub_(step, alpha=middle(self.planes))


@cache
def _has_avx512() -> bool:
    """Return whether torch uses AVX-512. Without it a product in bfloat16 takes six times as long as in float32."""
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


@cache
def block_rows() -> int | None:
    """Return the rows of a block in the layout of this machine's int4 CPU kernel; None where it is another layout."""
    codes = torch.arange(64 * 32).remainder_(15).view(64, 32).to(torch.uint8)
    packed = _pack(codes).flatten()
    for rows in (64, 32):
        halves = packed.view(-1, 32, rows // 2)
        if torch.equal(torch.cat([halves & 15, halves >> 4], dim=-1).transpose(1, 2).reshape(64, 32), codes):
            return rows
    return None


def _pack(halves: Tensor) -> Tensor:
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(halves.int(), 1)
