"""The GPTQ format, as AutoGPTQ, GPTQModel and others write it: 2, 3, 4 and 8 bits.

A layer has `qweight` (codes packed along the input channels, int32), `qzeros` (zero-points packed along the output
channels, a row a group), `scales` (a row a group) and `g_idx` (the group of each input channel). With `desc_act` the
groups are no runs of input channels: they are read into the weight's order of its inputs. In the first version of the
format `qzeros` holds zero - 1; there the largest code stands for a zero of 0 to some writers and for one beyond the
codes to some readers, so such a layer is refused. The second version (`gptq_v2`) holds zero-points themselves.
"""

import torch

from quantrust.errors import QuantrustError
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.reader import (
    GRID_DTYPES,
    WORD,
    WORD_BITS,
    Config,
    Grid,
    Reader,
    StoredLayer,
    grid_dtype,
    held_bits,
    order_of_groups,
    setting,
    unwords,
)

BITS = (2, 3, 4, 8)
OFFSETS = {"gptq": 1, "gptq_v2": 0}
"""By version: what is added to the zero-points that are stored."""


def check(config: Config) -> None:
    """Raise if a folder is in a layout that only bears the name of GPTQ."""
    version = setting(config, "checkpoint_format", str, "gptq")
    if version not in OFFSETS:
        raise QuantrustError(f"checkpoint_format {version!r:.50} is not read; expected {' or '.join(OFFSETS)}")
    if config.get("is_marlin_format"):
        raise QuantrustError("is_marlin_format is true; the layout of Marlin's kernels is not read, expected gptq")
    held_bits(setting(config, "bits", int, 0), BITS)


def grid(layer: StoredLayer, config: Config) -> Grid:
    """Return the grid of a layer; its width and group size follow from shapes, and must be those of the config."""
    words = layer.rows_of("qweight", [WORD])
    bits, rest = divmod(words * WORD_BITS, layer.columns)
    held = bits in BITS and not rest
    if not held:
        raise layer.fault(
            f"qweight has {words} rows of 32 bits for {layer.columns} input channels, expected codes of "
            f"{', '.join(map(str, BITS))} bits; get the folder again"
        )
    layer.require("qweight", [WORD], (words, layer.rows))
    groups = layer.rows_of("scales", GRID_DTYPES)
    layer.require("scales", GRID_DTYPES, (groups, layer.rows))
    layer.require("qzeros", [WORD], (groups, -(-layer.rows * bits // WORD_BITS)))
    size = layer.group_size(groups)
    said = setting(config, "group_size", int, -1)
    # `dynamic` gives layers settings of their own
    if not config.get("dynamic") and (bits != config["bits"] or size != (layer.columns if said == -1 else said)):
        raise layer.fault(
            f"it has {bits} bits in groups of {size}, but quantization_config says {config['bits']} and {said}; get "
            "the folder again"
        )
    if "g_idx" in layer.parts:
        layer.require("g_idx", [WORD, "I64"], (layer.columns,))
        order = order_of_groups(layer, layer.read("g_idx"), size)
    elif config.get("desc_act"):
        raise layer.fault("g_idx is missing, though quantization_config says desc_act; get the folder again")
    else:
        order = None
    return Grid(bits, size, grid_dtype(layer, bits, ["scales"]), order)


def read(layer: StoredLayer, config: Config, grid: Grid) -> QuantizedWeight:
    """Return the weight of a layer."""
    offset = OFFSETS[setting(config, "checkpoint_format", str, "gptq")]
    codes = unwords(layer.read("qweight").T.contiguous(), grid.bits, layer.columns)
    zeros = unwords(layer.read("qzeros"), grid.bits, layer.rows).to(torch.int16) + offset
    if int(zeros.max()) >= 2**grid.bits:
        raise layer.fault(
            f"qzeros holds {2**grid.bits - 1}, which in the first version of the format is a zero-point of 0 to some "
            f"and of {2**grid.bits} to others; save the folder as gptq_v2"
        )
    return layer.weight(codes, layer.read("scales").T, zeros.T, grid)


READER = Reader(
    method="gptq",
    marker="qweight",
    parts=frozenset({"qweight", "qzeros", "scales", "g_idx"}),
    check=check,
    grid=grid,
    read=read,
)
