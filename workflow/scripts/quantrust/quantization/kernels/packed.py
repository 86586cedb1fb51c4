"""Packed kernels: matrix products on codes that stay packed, on whatever a weight lies on.

The reference is `PackedWeight`: it dequantizes the whole weight in float32 for every product. The weights of
`quantrust.quantization.kernels.cpu` and `quantrust.quantization.kernels.cuda` hold the same codes in the layouts of
kernels; here a weight gets the one that takes it.
"""

from collections import Counter
from collections.abc import Callable

from torch import nn

from quantrust.quantization.kernels.cpu import WIDEST_BLOCK, Int4Weight, block_rows
from quantrust.quantization.kernels.cuda import cuda_weight
from quantrust.quantization.kernels.int4_grid import KERNEL_DTYPE, kernel_group_size, padded, planes
from quantrust.quantization.linear import PackedWeight, QuantizedLinear

KERNELS = ("reference", "packed")
"""What a run may ask for: plain dequantizing, or the packed kernels where they apply."""


def use_packed_kernels(model: nn.Module) -> None:
    """Put the weights of a model's quantized linears into the layout of the packed kernels.

    Weights that no kernel takes (groups of 16, for example) stay as they are. So do those that only an embedding holds,
    because an embedding only reads rows.

    Parameters
    ----------
    model : torch.nn.Module
        In bfloat16; changed in place. The packed codes are given up one weight at a time.
    """
    holders = holders_of_weights(model)
    while holders:
        use_packed_kernel(*holders.popitem())


def holders_of_weights(
    model: nn.Module, left_out: Callable[[str], bool] = lambda name: False
) -> dict[PackedWeight, list[nn.Module]]:
    """Return the layers that hold each packed weight of a model, but for those whose names are to be left out."""
    holders: dict[PackedWeight, list[nn.Module]] = {}
    for name, module in model.named_modules():
        if isinstance(getattr(module, "weight", None), PackedWeight) and not left_out(name):
            holders.setdefault(module.weight, []).append(module)
    return holders


def use_packed_kernel(weight: PackedWeight, holders: list[nn.Module]) -> None:
    """Replace one weight in all layers that hold it.

    An embedding that shares the weight of a head gets the kernel's as well, if rows can be read from its layout. On
    CUDA they cannot, and the embedding keeps the packed codes.
    """
    if not any(isinstance(module, QuantizedLinear) for module in holders):
        return
    replaced = kernel_weight(weight)
    for module in holders:
        if isinstance(module, QuantizedLinear) or hasattr(replaced, "dequantize"):
            module.weight = replaced


def describe_kernels(model: nn.Module) -> dict[str, int]:
    """Return how many quantized linears use each kernel.

    `reference`, `int4`, `int4 in two planes`, or `gemlite` and its version.
    """
    counts = Counter(module.weight.kernel for module in model.modules() if isinstance(module, QuantizedLinear))
    return dict(sorted(counts.items()))


def kernel_weight(weight: PackedWeight) -> nn.Module:
    """Return a weight in the layout of a packed kernel, or itself where none takes it."""
    if kernel_group_size(weight) is None:
        return weight
    if weight.codes.is_cuda:
        return cuda_weight(weight)
    return weight if block_rows() is None else Int4Weight(weight)


def packed_bytes(weight: PackedWeight, as_it_is: bool, block: int = WIDEST_BLOCK) -> int:
    """Return what a weight takes once `use_packed_kernels` has been at it on the CPU, from its shape alone.

    Parameters
    ----------
    weight : PackedWeight
        It may be on the meta device.
    as_it_is : bool
        Whether no kernel gets it: only an embedding holds it, which reads rows alone, or its layer computes in float32.
    block : int
        Rows of a block in the layout of the kernel.
    """
    group = kernel_group_size(weight)
    if as_it_is or group is None:
        return sum(buffer.nbytes for buffer in weight.buffers())
    height, depth = padded(weight.rows, block), planes(weight.bits) * padded(weight.columns, group)
    order = 0 if weight.order is None else int(weight.order.nbytes)
    return height * depth // 2 + height * depth // group * 2 * KERNEL_DTYPE.itemsize + order
