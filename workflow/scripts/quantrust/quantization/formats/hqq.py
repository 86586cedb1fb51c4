"""The layout of the package hqq: every number of bits, float zero-points as they are, linears only. Its `HQQLinear`
layers take it in a model that transformers builds; docs/commands.md has the lines that do so.

A layer has the entries of `HQQLinear.state_dict`, as tensors: `W_q` (codes), `scale` and `zero` (a row a group), and
small ones that say how these are read (`nbits`, `group_size`, `shape`, `axis`, `packing` and so on; text is stored as
the numbers of its letters). Groups are rows of the weight's values in their order, which are ours, because a group
never goes on in the next row. `W_q` lays equal parts of those rows over one another: with 4 bits the first half of the
groups is in the high halves of the bytes, with 2 bits there are four quarters. With 3 bits ten parts, the last one
filled up, lie in the bits of an int32, the first one highest. What does not divide so, and codes of 5 and 6 bits, take
a byte each.

hqq computes in the dtype that its layers are built with. In float32 it gets every weight exactly. In bfloat16 and
float16 it first rounds scales, zero-points and their differences from codes to that dtype.
"""

from typing import Any

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.quantization.export_layer import Encoded, ExportLayer, Format, Layout, require_own_order

PARTS = {"4bit_u8": 2, "2bit_u8": 4}
"""By packing: how many codes share a byte."""
PARTS_OF_3_BITS = 10
"""How many codes share an int32."""
METHOD = "hqq"


def lay_out(layers: list[ExportLayer], unquantized_linears: list[str], exact: bool) -> Layout:
    """Decide how hqq holds the layers of a model.

    Parameters
    ----------
    layers : list of ExportLayer
    unquantized_linears : list of str
        Linear layers that stay as they are.
    exact : bool
        Nothing changes: a reader that computes in float32 gets every weight exactly.

    Returns
    -------
    Layout

    Raises
    ------
    QuantrustError
        If no layer fits the format, or input channels are grouped in an order of their own.
    """
    require_own_order(layers, "hqq")
    dense = {layer.name: "hqq holds no embedding" for layer in layers if layer.is_embedding}
    dense |= {layer.name: "shared by embedding and head" for layer in layers if layer.is_tied}
    held = [layer for layer in layers if layer.name not in dense]
    if not held:
        raise QuantrustError(
            "hqq holds linears alone, and this checkpoint quantizes none; quantize the language model as well"
        )
    grids = {layer.name: weight_settings(layer) for layer in held}
    same = len({str(grid) for grid in grids.values()}) == 1
    config = {
        "quant_method": METHOD,
        # one grid for all, or one for each layer
        "quant_config": _settings(grids[held[0].name])
        if same
        else {name: _settings(grid) for name, grid in grids.items()},
        "skip_modules": unquantized_linears + list(dense),
    }
    notes = (
        "hqq computes in the dtype that its layers are built with: in float32 exactly, in others with scales and "
        "zero-points rounded to them",
    )
    return Layout(config, dict.fromkeys(grids, encode), dense, notes)


def weight_settings(layer: ExportLayer) -> dict[str, Any]:
    """Return what hqq calls the settings of a layer's grid."""
    return {
        "nbits": layer.weight.bits,
        "channel_wise": True,
        "group_size": layer.weight.group_size,
        "optimize": True,
        "round_zero": False,
        "axis": 1,
        "view_as_float": False,
    }


def encode(layer: ExportLayer) -> Encoded:
    """Write a layer as the entries that `HQQLinear.load_state_dict` takes; its bias is stored as ever."""
    weight = layer.weight
    groups = weight.codes.reshape(-1, weight.group_size)
    packing = packing_of(weight.bits, len(groups))
    said = {
        **weight_settings(layer),
        "packing": packing,
        "unpack_view_dtype": str(torch.int32 if packing == "3bit_32" else torch.uint8),
        "compute_dtype": str(torch.float32),
        "quant_scale": False,
        "quant_zero": False,
        "offload_meta": False,
        "encoded_state_dict": True,
        "stores_quant_config": True,
    }
    tensors = {
        "W_q": pack_groups(groups, packing),
        "scale": weight.scale.reshape(-1, 1),
        "zero": weight.zero.reshape(-1, 1),
        "shape": torch.tensor(weight.codes.shape),
        **{key: _as_tensor(value) for key, value in said.items()},
    }
    return Encoded(tensors, weight, f"{weight.bits} bits, float zero-points")


def packing_of(bits: int, groups: int) -> str:
    """Return hqq's name of how so many groups of codes are packed."""
    if bits == 3:
        return "3bit_32"
    packing = f"{bits}bit_u8"
    return packing if packing in PARTS and groups % PARTS[packing] == 0 else "8bit_u8"


def pack_groups(groups: Tensor, packing: str) -> Tensor:
    """Pack codes, uint8, a group a row.

    Returns
    -------
    Tensor, uint8 or, at 3 bits, int32, shape (ceil(groups / codes in an element), group size)
    """
    if packing == "3bit_32":
        step = -(-len(groups) // PARTS_OF_3_BITS)
        rest = PARTS_OF_3_BITS * step - len(groups)
        parts = torch.nn.functional.pad(groups, (0, 0, 0, rest)).to(torch.int32).unflatten(0, (PARTS_OF_3_BITS, step))
        shifts = torch.arange(27, -1, -3, dtype=torch.int32)
        return (parts << shifts[:, None, None]).sum(dim=0, dtype=torch.int32)
    if packing not in PARTS:
        return groups.contiguous()
    bits = 8 // PARTS[packing]
    packed = torch.zeros_like(groups[: len(groups) // PARTS[packing]])
    for part in groups.unflatten(0, (PARTS[packing], -1)):
        packed = packed << bits | part
    return packed


def _settings(grid: dict[str, Any]) -> dict[str, Any]:
    return {"weight_quant_params": grid, "scale_quant_params": None, "zero_quant_params": None, "offload_meta": False}


def _as_tensor(value: bool | int | str) -> Tensor:
    """Return a value as hqq stores it beside tensors."""
    if isinstance(value, str):
        return torch.tensor([ord(letter) for letter in value], dtype=torch.uint8)
    return torch.tensor(int(value), dtype=torch.uint8 if isinstance(value, bool) else torch.int32)


FORMAT = Format(lay_out, float_zeros="packed", requirements=("transformers", "hqq"))
