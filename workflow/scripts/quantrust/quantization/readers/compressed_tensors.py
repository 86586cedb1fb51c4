"""The `pack-quantized` format of compressed-tensors, as llm-compressor writes it: 2 to 6 and 8 bits, with or without
zero-points.

A layer has `weight_packed` (codes as one stream of bits a row, int32), `weight_scale` (rows by groups), `weight_shape`
and, unless the grid is symmetric, `weight_zero_point` (packed along the output channels, or a byte each). Values are
signed there: -2^(b - 1) is code 0 here. `weight_g_idx`, the group of each input channel, is there if channels were
grouped by their activations.
"""

import math
import re
from typing import Any

import torch

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
    is_integer,
    order_of_groups,
    setting,
    unwords,
    words_of,
)

FORMAT = "pack-quantized"
BITS = (2, 3, 4, 5, 6, 8)
ONE_GROUP = ("channel", "tensor")
LINEAR = "Linear"
PATTERN = "re:"
"""What a target begins with that is a pattern of names."""
LONG_NAME, MOST_TRIES = 100, 10**8
"""Characters of the name of a layer, and how many ways of reading it a pattern may have."""


def check(config: Config) -> None:
    """Raise if a folder holds anything but packed integer weights."""
    if setting(config, "kv_cache_scheme", dict) is not None:
        raise QuantrustError("kv_cache_scheme is given; a quantized cache of keys and values cannot be held")
    sparsity = setting(config, "sparsity_config", dict, {}).get("format", "dense")
    if sparsity != "dense":
        raise QuantrustError(f"sparsity_config.format is {sparsity!r:.50}; sparse weights are not read")
    groups = setting(config, "config_groups", dict, {})
    if not groups:
        raise QuantrustError("config_groups is missing or empty; get the folder again")
    for name, group in groups.items():
        _check_group(f"config_groups.{name:.50}", group, setting(config, "format", str, ""))


def _check_group(path: str, group: Any, of_all: str) -> None:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise QuantrustError(f"{path} does not say how weights are quantized; expected a group with weights")
    for what in ("input_activations", "output_activations"):
        if group.get(what) is not None:
            raise QuantrustError(f"{path}.{what} is given; quantized activations cannot be held, only weights")
    form = group.get("format") or of_all
    if weights.get("type", "int") != "int":
        raise QuantrustError(
            f"{path}.weights.type is {weights['type']!r:.50} (format {form!r:.50}); weights of floats, such as FP8 and "
            "NVFP4, cannot be held: expected int"
        )
    if form != FORMAT:
        raise QuantrustError(f"format {form!r:.50} is not read; expected {FORMAT}")
    bits, strategy, size = weights.get("num_bits"), weights.get("strategy"), weights.get("group_size")
    held_bits(bits, BITS)
    if not isinstance(symmetric := weights.get("symmetric", True), bool):
        raise QuantrustError(f"{path}.weights.symmetric is {symmetric!r:.50}; expected true or false")
    if weights.get("dynamic"):
        raise QuantrustError(f"{path}.weights.dynamic is {weights['dynamic']!r:.50}; expected false")
    if strategy not in (*ONE_GROUP, "group"):
        raise QuantrustError(f"{path}.weights.strategy is {strategy!r:.50}; expected group, channel or tensor")
    if strategy == "group" and (not is_integer(size) or size < 1):
        raise QuantrustError(f"{path}.weights.group_size is {size!r:.50}; expected a number of input channels")
    targets = group.get("targets")
    if not (isinstance(targets, list) and all(isinstance(target, str) for target in targets)):
        raise QuantrustError(f"{path}.targets is no list of names; get the folder again")
    for target in targets:
        _check_target(f"{path}.targets", target)


def _check_target(path: str, target: str) -> None:
    """Raise for a pattern that is none, or that may take longer than anybody waits."""
    if not target.startswith(PATTERN):
        return
    pattern = target.removeprefix(PATTERN)
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise QuantrustError(f"{path} names {target!r:.100}, which is no pattern ({error})") from None
    if _repeats_a_group(pattern) or _most_tries(pattern) > MOST_TRIES:
        raise QuantrustError(
            f"{path} names {target!r:.100}, which may take very long to compare with names; expected few repeats and "
            "alternatives, and no repeats of a group"
        )


def _bare(pattern: str) -> str:
    """Return a pattern with a letter in the place of each escaped character and each set of characters."""
    return re.sub(r"\\.|\[\^?\]?(?:\\.|[^]\\])*\]", "x", pattern, flags=re.DOTALL).replace("(?", "(")


def _repeats_a_group(pattern: str) -> bool:
    return re.search(r"\)[*+{]", _bare(pattern)) is not None


def _most_tries(pattern: str) -> int:
    """Return about how many ways of reading a name a matcher may try that has to go back."""
    bare = _bare(pattern)
    repeats, options = len(re.findall(r"[*+{]", bare)), bare.count("?")
    alternatives = math.prod(part.count("|") + 1 for part in re.split(r"[()]", bare))
    return LONG_NAME ** min(repeats, 10) * 2 ** min(options, 100) * alternatives


def grid(layer: StoredLayer, config: Config) -> Grid:
    """Return the grid of a layer."""
    arguments = arguments_of(layer, config)
    bits, symmetric = arguments["num_bits"], arguments.get("symmetric", True)
    whole = arguments["strategy"] in ONE_GROUP
    size = layer.columns if whole else arguments["group_size"]
    groups = layer.groups_of(size)
    layer.require("weight_packed", [WORD], (layer.rows, words_of(layer.columns, bits)))
    of_tensor = [(1,), (1, 1), ()] if arguments["strategy"] == "tensor" else []
    layer.require("weight_scale", GRID_DTYPES, (layer.rows, groups), *of_tensor)
    if "weight_shape" in layer.parts:
        layer.require("weight_shape", ["I64", "I32"], (2,))
        if layer.read("weight_shape").tolist() != [layer.rows, layer.columns]:
            raise layer.fault("weight_shape is not the shape that the model calls for; get the folder again")
    if not symmetric:
        packed = layer.shape("weight_zero_point", [WORD, "I8"])
        if layer.parts["weight_zero_point"].dtype == WORD:
            layer.require("weight_zero_point", [WORD], (words_of(layer.rows, bits), groups))
        elif packed not in ((layer.rows, groups), *of_tensor):
            layer.require("weight_zero_point", ["I8"], (layer.rows, groups))
    order = None
    if "weight_g_idx" in layer.parts:
        layer.require("weight_g_idx", [WORD, "I64"], (layer.columns,))
        group_of = layer.read("weight_g_idx")
        # -1 everywhere is what it begins with, and says nothing
        if not (group_of == -1).all():
            order = order_of_groups(layer, group_of, size)
    elif arguments.get("actorder") == "group":
        raise layer.fault("weight_g_idx is missing, though actorder is group; get the folder again")
    return Grid(bits, size, grid_dtype(layer, bits, ["weight_scale"]), order)


def read(layer: StoredLayer, config: Config, grid: Grid) -> QuantizedWeight:
    """Return the weight of a layer."""
    groups = (layer.rows, layer.columns // grid.group_size)
    middle = 2 ** (grid.bits - 1)
    codes = unwords(layer.read("weight_packed"), grid.bits, layer.columns)
    scale = layer.read("weight_scale").broadcast_to(groups)
    if arguments_of(layer, config).get("symmetric", True):
        return layer.weight(codes, scale, torch.full(groups, middle), grid)
    zeros = layer.read("weight_zero_point")
    if zeros.dtype == torch.int8:
        zeros = zeros.to(torch.int16).broadcast_to(groups) + middle
        if int(zeros.min()) < 0 or int(zeros.max()) >= 2**grid.bits:
            raise layer.fault(f"weight_zero_point lies outside {grid.bits} bits; get the folder again")
    else:
        zeros = unwords(zeros.T.contiguous(), grid.bits, layer.rows).T
    return layer.weight(codes, scale, zeros, grid)


def arguments_of(layer: StoredLayer, config: Config) -> dict[str, Any]:
    """Return how the weight of a layer is quantized: of the group whose target names it best.

    A name counts more than a pattern, and a pattern more than the class of the layer.

    Raises
    ------
    QuantrustError
        If no group names it, or several do as well and differ.
    """
    names = {layer.stored_name, layer.name}
    found: dict[int, list[dict[str, Any]]] = {}
    for group in config["config_groups"].values():
        ranks = [rank for target in group["targets"] if (rank := _rank(target, names)) is not None]
        if ranks:
            found.setdefault(min(ranks), []).append(group["weights"])
    if not found:
        raise layer.fault("no group of quantization_config.config_groups names it; get the folder again")
    best = found[min(found)]
    if any(weights != best[0] for weights in best):
        raise layer.fault("several groups of quantization_config.config_groups name it; expected one")
    return best[0]


def _rank(target: str, names: set[str]) -> int | None:
    if target in names:
        return 0
    if target.startswith(PATTERN):
        pattern = re.compile(target.removeprefix(PATTERN))
        return 1 if any(map(pattern.match, names)) else None
    return 2 if target == LINEAR else None


READER = Reader(
    method="compressed-tensors",
    marker="weight_packed",
    parts=frozenset({"weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"}),
    check=check,
    grid=grid,
    read=read,
)
