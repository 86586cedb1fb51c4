"""The layout of the package hqq: what `HQQLinear.state_dict` gives, as `quantrust export --format hqq` writes it too.

`quantrust.quantization.formats.hqq` says how it is laid out. Groups along the input channels (axis 1) are read; along
the output channels (axis 0), or going on from one row in the next, they are refused, as are layers of 1 bit and scales
that are quantized themselves. Of what hqq computes in, nothing is stored that counts: here it is float32, in which hqq
gives the same weights.
"""

import torch
from torch import Tensor

from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.reader import GRID_DTYPES, Config, Grid, Reader, StoredLayer, grid_dtype

INTEGERS = ("U8", "I8", "I16", "I32", "I64")
BITS = (2, 3, 4, 5, 6, 8)
CODES = {"8bit_u8": 1, "4bit_u8": 2, "2bit_u8": 4, "3bit_32": 10}
"""By packing: how many codes share an element."""
LONGEST_TEXT = 50


def check(config: Config) -> None:
    """Do nothing: what there is to say of a grid stands beside each layer."""


def grid(layer: StoredLayer, config: Config) -> Grid:
    """Return the grid of a layer."""
    bits, axis, packing = _integer(layer, "nbits"), _integer(layer, "axis"), _text(layer, "packing")
    if bits not in BITS:
        raise layer.fault(f"{bits} bits cannot be held; expected {', '.join(map(str, BITS))}")
    if axis != 1:
        raise layer.fault(
            f"its groups go along axis {axis}, over output channels, which a quantized weight of this project cannot "
            "hold; quantize it with axis=1"
        )
    for flag in ("quant_scale", "quant_zero", "view_as_float"):
        if flag in layer.parts and _integer(layer, flag):
            raise layer.fault(f"{flag} is set, which is not read; quantize it without")
    if packing not in CODES or (bits != 8 and packing != "8bit_u8" and not packing.startswith(f"{bits}bit")):
        raise layer.fault(f"packing {packing!r} is not read for {bits} bits; expected one of {', '.join(CODES)}")
    layer.require("shape", INTEGERS, (2,))
    if layer.read("shape").tolist() != [layer.rows, layer.columns]:
        raise layer.fault("shape is not the shape that the model calls for; get the folder again")
    size = _integer(layer, "group_size")
    if size < 1:
        raise layer.fault(f"group_size is {size}; get the folder again")
    groups = layer.rows * layer.groups_of(size)
    shared = CODES[packing]
    dtype = "I32" if packing == "3bit_32" else "U8"
    if packing != "3bit_32" and groups % shared:
        raise layer.fault(f"{groups} groups do not lie in the {shared} parts of {packing}; get the folder again")
    layer.require("W_q", [dtype], (-(-groups // shared), size))
    for part in ("scale", "zero"):
        layer.require(part, GRID_DTYPES, (groups, 1))
    return Grid(bits, size, grid_dtype(layer, bits, ["scale", "zero"]))


def read(layer: StoredLayer, config: Config, grid: Grid) -> QuantizedWeight:
    """Return the weight of a layer."""
    groups = layer.rows * layer.columns // grid.group_size
    codes = unpack_groups(layer.read("W_q"), _text(layer, "packing"))[:groups]
    if int(codes.max()) >= 2**grid.bits:
        raise layer.fault(f"W_q holds codes of more than {grid.bits} bits; get the folder again")
    codes = codes.reshape(layer.rows, layer.columns)
    scale, zero = (layer.read(part).reshape(layer.rows, -1) for part in ("scale", "zero"))
    return layer.weight(codes, scale, zero, grid)


def unpack_groups(packed: Tensor, packing: str) -> Tensor:
    """Return the codes of groups, uint8, a group a row; at 3 bits with rows that the last part was filled up with."""
    shared = CODES[packing]
    bits = 3 if packing == "3bit_32" else 8 // shared
    parts = [packed >> bits * place & 2**bits - 1 for place in reversed(range(shared))]
    return torch.cat([part.to(torch.uint8) for part in parts])


def _integer(layer: StoredLayer, part: str) -> int:
    if layer.shape(part, INTEGERS) not in ((), (1,)):
        raise layer.fault(f"{part} is no number; get the folder again")
    return int(layer.read(part))


def _text(layer: StoredLayer, part: str) -> str:
    shape = layer.shape(part, INTEGERS)
    if len(shape) != 1 or shape[0] > LONGEST_TEXT:
        raise layer.fault(f"{part} is no short text; get the folder again")
    return bytes(letter & 127 for letter in layer.read(part).tolist()).decode("ascii")


READER = Reader(
    method="hqq",
    marker="W_q",
    parts=frozenset(
        {
            *("W_q", "scale", "zero", "nbits", "group_size", "shape", "axis", "packing", "unpack_view_dtype"),
            *("view_as_float", "quant_scale", "quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict"),
            *("stores_quant_config", "channel_wise", "optimize", "round_zero"),
        }
    ),
    check=check,
    grid=grid,
    read=read,
)
