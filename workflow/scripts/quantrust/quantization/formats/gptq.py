"""The GPTQ format: 2, 3, 4 or 8 bits, linears only, one number of bits and one group size for all. It loads with the
packages optimum and gptqmodel, which need an environment of their own: envs/export.yaml, or requirements-export.txt.

A layer of b bits has `qweight` (codes packed along the input channels, int32, in * b / 32 by out), `qzeros` (zeros
packed along the output channels, groups by out * b / 32), `scales` (float16, groups by out) and `g_idx` (the group of
each input channel). In the first version of the format `qzeros` holds zero - 1 and cannot hold a zero of 0; the
second, `gptq_v2`, holds the zeros themselves. The first is written wherever it can be: more readers know it.

One width and one group size serve the whole model; larger groups are cut to that size. The layers that do not fit,
embeddings, and linears whose own name is a number (the reader looks for layers among the attributes of their parents,
where those in an `nn.Sequential` do not appear) stay in bfloat16. So do the linears of SigLIP's towers, which
`transformers` asks for their weights while it loads them, and layers whose scales float16 cannot hold, which those of 8
bits, float32 in a checkpoint, may exceed at either end.
"""

from collections import Counter
from dataclasses import replace
from functools import partial

import torch

from quantrust.errors import QuantrustError
from quantrust.quantization.export_layer import (
    NOTABLE_CHANGE,
    Encoded,
    ExportLayer,
    Format,
    Layout,
    count_layers,
    notes_on_fused,
    words,
)
from quantrust.quantization.grid import QuantizedWeight, in_order, relative_change

BITS = (2, 3, 4, 8)
GROUP_SIZES = (128, 64, 32)
"""16, and whole channels, which the format calls -1, are left out: gptqmodel 7.6 fails on them on a CPU at 4 bits."""
WORD_BITS = 32
LARGEST_SCALE = torch.finfo(torch.float16).max


def lay_out(layers: list[ExportLayer], unquantized_linears: list[str], exact: bool) -> Layout:
    """Decide how GPTQ holds the layers of a model.

    Parameters
    ----------
    layers : list of ExportLayer
    unquantized_linears : list of str
        Linear layers that stay as they are; the format lists those that are quantized.
    exact : bool
        The format cannot promise it.

    Returns
    -------
    Layout

    Raises
    ------
    QuantrustError
        If weights must be exact, a layer has a width that the format lacks, or no layer fits it.
    """
    if exact:
        raise QuantrustError(
            "gptq rounds scales to float16 and zero-points to integers, so an export cannot be exact; choose "
            "compressed-tensors"
        )
    for layer in layers:
        if layer.weight.bits not in BITS:
            raise QuantrustError(
                f"gptq holds {', '.join(map(str, BITS))} bits, but {layer.name} has {layer.weight.bits}; export it as "
                "compressed-tensors, which holds them all"
            )
    dense = {layer.name: reason for layer in layers if (reason := _unfit(layer)) is not None}
    candidates = [layer for layer in layers if layer.name not in dense]
    saved: Counter[tuple[int, int]] = Counter()
    for layer in candidates:
        for bits, group_size in _grids(layer):
            # a group has a scale of 16 bits and a zero
            saved[bits, group_size] += layer.weight.codes.numel() * (16 - bits - (16 + bits) / group_size)
    if not saved:
        reasons = "; ".join(f"{reason}: {count_layers(count)}" for reason, count in Counter(dense.values()).items())
        raise QuantrustError(
            f"gptq holds no layer of this checkpoint ({reasons}); export it as compressed-tensors, which does"
        )
    bits, group_size = max(saved, key=lambda grid: saved[grid])
    held = []
    for layer in candidates:
        if (bits, group_size) in _grids(layer):
            held.append(layer)
        else:
            dense[layer.name] = f"gptq holds one grid a model, here {bits} bits in groups of {group_size}"
    first_version = all(bool((layer.weight.zero > 0).all()) for layer in held)
    names = [layer.name for layer in held]
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "sym": all(layer.is_symmetric for layer in held),
        "desc_act": any(layer.weight.order is not None for layer in held),
        "checkpoint_format": "gptq" if first_version else "gptq_v2",
        # the loader replaces the linears whose names begin with the first and end like one of the second
        "block_name_to_quantize": "",
        "modules_in_block_to_quantize": [names],
    }
    encoders = dict.fromkeys(names, partial(encode, group_size=group_size, offset=1 if first_version else 0))
    notes = [
        "quantized layers stay packed in memory; on a CPU gptqmodel computes 4 bits with bfloat16 or float16 scales"
    ]
    notes += notes_on_fused(dict.fromkeys((*unquantized_linears, *dense)) | dict.fromkeys(names, "quantized"))
    if not first_version:
        notes.append("some zeros are 0, which only the second version of the format (gptq_v2) can hold")
    return Layout(config, encoders, dense, tuple(notes))


def encode(layer: ExportLayer, group_size: int, offset: int) -> Encoded:
    """Write a layer in the format.

    Parameters
    ----------
    layer : ExportLayer
    group_size : int
        It divides the layer's own.
    offset : int
        What is subtracted from the zeros: 1 in the first version of the format, 0 in the second.

    Returns
    -------
    Encoded
    """
    weight = layer.weight
    repeats = weight.group_size // group_size
    stored = replace(
        weight,
        scale=weight.scale.half().repeat_interleave(repeats, dim=1),
        zero=weight.zero.repeat_interleave(repeats, dim=1),
        group_size=group_size,
    )
    zeros = (stored.zero - offset).to(torch.uint8)
    return Encoded(
        {
            "qweight": words(in_order(weight.codes, weight.order), weight.bits).T.contiguous(),
            "qzeros": words(zeros.T.contiguous(), weight.bits),
            "scales": stored.scale.T.contiguous(),
            "g_idx": in_order(torch.arange(layer.columns, dtype=torch.int32) // group_size, weight.order),
        },
        stored,
        f"{weight.bits} bits, {'symmetric' if layer.is_symmetric else 'asymmetric'}",
    )


def _unfit(layer: ExportLayer) -> str | None:
    """Return why the format cannot hold a layer, or None."""
    weight = layer.weight
    if layer.is_embedding:
        return "gptq holds no embedding"
    if layer.is_tied:
        return "shared by embedding and head"
    if layer.is_initialized:
        return "transformers asks for its weight while it loads the model"
    if not _grids(layer):
        return f"gptq holds no groups of {weight.group_size}"
    if layer.name.rpartition(".")[2].isdigit():
        return "the gptq loader does not find layers of a sequence"
    if any(size * weight.bits % WORD_BITS for size in weight.codes.shape):
        return "rows or columns do not fill 32-bit words"
    if not layer.has_integer_zeros:
        return "gptq holds no zero-point of a group whose values are too small for integer ones"
    if (weight.scale > LARGEST_SCALE).any():
        return "a scale exceeds float16"
    if _underflows(weight):
        return "scales are too small for float16"
    return None


def _underflows(weight: QuantizedWeight) -> bool:
    """Return whether a scale becomes zero in float16, or the rounding of small scales changes the weight notably."""
    scale = weight.scale.half()
    if torch.equal(scale.to(weight.scale.dtype), weight.scale):
        return False
    rounded = replace(weight, scale=scale).dequantize()
    return not scale.all() or relative_change(rounded, weight.dequantize()) > NOTABLE_CHANGE


def _grids(layer: ExportLayer) -> list[tuple[int, int]]:
    """Return the bits and group sizes of the format that a layer fits."""
    return [(layer.weight.bits, size) for size in GROUP_SIZES if layer.weight.group_size % size == 0]


FORMAT = Format(lay_out, float_zeros="none", requirements=("transformers", "optimum", "gptqmodel"), tokens_first=True)
