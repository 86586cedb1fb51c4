"""The format of AutoAWQ's `gemm` layout: 4 bits, with zero-points.

A layer has `qweight` (input channels by words of eight output channels, int32), `qzeros` (the same of the zero-points,
a row a group) and `scales` (a row a group). The eight codes of a word belong, from its low end on, to its output
channels 0, 2, 4, 6, 1, 3, 5 and 7.
"""

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.reader import (
    GRID_DTYPES,
    WORD,
    Config,
    Grid,
    Reader,
    StoredLayer,
    grid_dtype,
    held_bits,
    setting,
)

BITS = 4
CHANNELS = (0, 2, 4, 6, 1, 3, 5, 7)
"""Of the codes of a word, from its low end on."""


def check(config: Config) -> None:
    """Raise if a folder is in another of AWQ's layouts."""
    version = setting(config, "version", str, "gemm").lower()
    if version != "gemm":
        raise QuantrustError(f"version {version!r:.50} is not read; expected gemm")
    held_bits(setting(config, "bits", int, setting(config, "w_bit", int, 0)), (BITS,))
    if not setting(config, "zero_point", bool, True):
        raise QuantrustError("zero_point is false; AWQ's layout without zero-points is not read")


def grid(layer: StoredLayer, config: Config) -> Grid:
    """Return the grid of a layer."""
    if layer.rows % len(CHANNELS):
        raise layer.fault(f"its {layer.rows} output channels do not fill words of {len(CHANNELS)} codes")
    words = layer.rows // len(CHANNELS)
    layer.require("qweight", [WORD], (layer.columns, words))
    groups = layer.rows_of("scales", GRID_DTYPES)
    layer.require("scales", GRID_DTYPES, (groups, layer.rows))
    layer.require("qzeros", [WORD], (groups, words))
    size = layer.group_size(groups)
    said = setting(config, "group_size", int, setting(config, "q_group_size", int, -1))
    if size != (layer.columns if said == -1 else said):
        raise layer.fault(f"it has groups of {size}, but quantization_config says {said}; get the folder again")
    return Grid(BITS, size, grid_dtype(layer, BITS, ["scales"]))


def read(layer: StoredLayer, config: Config, grid: Grid) -> QuantizedWeight:
    """Return the weight of a layer."""
    codes, zeros = (unpack_words(layer.read(part)).T for part in ("qweight", "qzeros"))
    return layer.weight(codes, layer.read("scales").T, zeros, grid)


def unpack_words(words: Tensor) -> Tensor:
    """Return the codes of words, int32, shape (rows, n), uint8, shape (rows, 8 n)."""
    codes = torch.empty(*words.shape, len(CHANNELS), dtype=torch.uint8)
    for place, channel in enumerate(CHANNELS):
        codes[..., channel] = words >> BITS * place & 2**BITS - 1
    return codes.flatten(-2)


READER = Reader(
    method="awq",
    marker="qweight",
    parts=frozenset({"qweight", "qzeros", "scales"}),
    check=check,
    grid=grid,
    read=read,
)
