"""The compressed-tensors format: every number of bits and every component. It loads with the package
compressed-tensors.

`pack-quantized` holds, for a layer of b bits, `weight_packed` (codes as one stream of bits a row, int32),
`weight_scale` (rows by groups), `weight_shape` and, unless the grid is symmetric, `weight_zero_point` (packed along
the rows). Values are signed there: a code c of ours is c - 2^(b - 1), which has the same bits once packed.
`naive-quantized` holds codes and zero-points unpacked, codes as bytes, and zero-points of any type.

`transformers` 5.23 reads asymmetric `pack-quantized` layers only if it dequantizes while loading (it allots them
unpacked zero-points otherwise), and then takes one width and group size for the whole model, and computes in the
scales' float16. A model of one width and group size whose weights float16 can hold therefore asks for that in its
config. Any other model is written without packed zero-points, as exactly the same weights in other words: q - z of b
bits is a signed number of b + 1 bits, so such a layer becomes a symmetric one of one bit more. Layers of 8 bits,
embeddings and float zero-points are unpacked. So are the linears of towers that it asks for their weights while it
loads them (SigLIP's, in Gemma 3, PaliGemma and LLaVA-OneVision).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.quantization.export_layer import (
    Encoded,
    ExportLayer,
    Format,
    Layout,
    count_layers,
    notes_on_fused,
    require_own_order,
    words,
)
from quantrust.quantization.scheme import GROUP_SIZES

PACKED = "pack-quantized"
BYTES = "naive-quantized"


def lay_out(layers: list[ExportLayer], unquantized_linears: list[str], exact: bool) -> Layout:
    """Decide how compressed-tensors holds the layers of a model.

    Parameters
    ----------
    layers : list of ExportLayer
    unquantized_linears : list of str
        Linear layers that stay as they are.
    exact : bool
        Whether a reader that computes in float32 must get every weight exactly.

    Returns
    -------
    Layout

    Raises
    ------
    QuantrustError
        If no layer fits the format, or input channels are grouped in an order of their own.
    """
    require_own_order(layers, "compressed-tensors")
    # the format has no weight that two layers share
    dense = {layer.name: "shared by embedding and head" for layer in layers if layer.is_tied}
    held = [layer for layer in layers if layer.name not in dense]
    if not held:
        raise QuantrustError(
            "compressed-tensors holds no weight that embedding and head share, and this checkpoint quantizes nothing "
            "else; quantize the language model as well"
        )
    by_channel = all(layer.weight.group_size == layer.columns for layer in held)
    grids = {(layer.weight.bits, _group(layer, by_channel)) for layer in held}
    plain = all(layer.has_integer_zeros and not layer.is_symmetric for layer in held)
    uniform = plain and len(grids) == 1 and not exact and all(_products_fit(layer) for layer in held)
    encoders: dict[str, Callable[[ExportLayer], Encoded]] = {}
    groups: dict[tuple[int | None, str], tuple[dict[str, Any], list[str]]] = {}
    for layer in held:
        encoder, form, arguments = _choose(layer, uniform)
        encoders[layer.name] = encoder
        group = _group(layer, by_channel)
        strategy = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
        scheme = {"format": form, "weights": {"type": "int", **arguments, **strategy}}
        groups.setdefault((group, str(scheme)), (scheme, []))[1].append(layer.name)
    forms = sorted({scheme["format"] for scheme, _ in groups.values()})
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": forms[0] if len(forms) == 1 else "mixed-precision",
        "config_groups": {
            f"group_{number}": {"targets": names, **scheme} for number, (scheme, names) in enumerate(groups.values())
        },
        "ignore": unquantized_linears + list(dense),
    }
    notes = []
    widened = sum(encoder is encode_widened for encoder in encoders.values())
    if widened:
        notes.append(
            f"one bit a weight more in {count_layers(widened)}: asymmetric, they are written as symmetric ones of the "
            "same values, because transformers reads packed asymmetric layers of one width and group size only"
        )
    bytewise = sum(encoders[layer.name] is encode_bytes and layer.weight.bits < 8 for layer in held)
    if bytewise:
        notes.append(
            f"a byte a weight in {count_layers(bytewise)} of less than 8 bits: transformers reads no packed embedding "
            "and no packed tower of SigLIP, and packed layers have no float zero-points"
        )
    scheme_of = {name: number for number, (_, names) in enumerate(groups.values()) for name in names}
    notes += notes_on_fused(dict.fromkeys((*unquantized_linears, *dense)) | scheme_of)
    if uniform:
        config["dequantize"] = True
        notes.append("transformers dequantizes it while loading, to the memory of the unquantized model")
    else:
        notes.append("transformers dequantizes it in the first forward pass, to the memory of the unquantized model")
    return Layout(config, encoders, dense, tuple(notes))


def _choose(layer: ExportLayer, uniform: bool) -> tuple[Callable[[ExportLayer], Encoded], str, dict[str, Any]]:
    """Return how a layer is encoded, the format's name for that, and what is said about its numbers."""
    bits = layer.weight.bits
    if uniform:
        return encode_asymmetric, PACKED, {"num_bits": bits, "symmetric": False}
    if not layer.has_integer_zeros:
        return encode_bytes, BYTES, {"num_bits": 8, "symmetric": False, "zp_dtype": "torch.float32"}
    # transformers asks these for their weight, which packed layers do not have
    if layer.is_embedding or layer.is_initialized or (bits == 8 and not layer.is_symmetric):
        return encode_bytes, BYTES, {"num_bits": 8, "symmetric": False}
    if layer.is_symmetric:
        return encode_symmetric, PACKED, {"num_bits": bits, "symmetric": True}
    return encode_widened, PACKED, {"num_bits": bits + 1, "symmetric": True}


def encode_symmetric(layer: ExportLayer) -> Encoded:
    """Pack a layer whose zeros are the middle code."""
    weight = layer.weight
    return Encoded(
        {**_packed(weight.codes, weight.bits), "weight_scale": weight.scale},
        weight,
        f"{weight.bits} bits, symmetric",
    )


def encode_asymmetric(layer: ExportLayer) -> Encoded:
    """Pack a layer and its zero-points."""
    weight = layer.weight
    zeros = weight.zero.to(torch.uint8).T.contiguous()
    return Encoded(
        {
            **_packed(weight.codes, weight.bits),
            "weight_scale": weight.scale,
            "weight_zero_point": words(zeros, weight.bits).T.contiguous(),
        },
        weight,
        f"{weight.bits} bits, asymmetric",
        # it is dequantized while it is loaded, in the dtype of its scales
        weight.scale.dtype,
    )


def encode_widened(layer: ExportLayer) -> Encoded:
    """Pack an asymmetric layer of less than 8 bits as a symmetric one of one bit more, with the same values."""
    weight = layer.weight
    grouped = weight.codes.to(torch.int16).unflatten(1, (-1, weight.group_size))
    shifted = grouped - weight.zero.to(torch.int16).unsqueeze(-1) + 2**weight.bits
    return Encoded(
        {**_packed(shifted.flatten(1).to(torch.uint8), weight.bits + 1), "weight_scale": weight.scale},
        weight,
        f"{weight.bits + 1} bits, symmetric",
    )


def encode_bytes(layer: ExportLayer) -> Encoded:
    """Store codes as signed bytes, and zero-points as such or as floats.

    Both are shifted by the middle code, which leaves small zero-points: readers may round them to the dtype in which
    they compute.
    """
    weight = layer.weight
    middle = 2 ** (weight.bits - 1)
    zeros = weight.zero.float() - middle
    return Encoded(
        {
            "weight": (weight.codes.to(torch.int16) - middle).to(torch.int8),
            "weight_scale": weight.scale,
            "weight_zero_point": zeros.to(torch.int8) if layer.has_integer_zeros else zeros,
        },
        weight,
        f"{weight.bits} bits, asymmetric, a byte each" + ("" if layer.has_integer_zeros else ", float zero-points"),
    )


def _products_fit(layer: ExportLayer) -> bool:
    """Return whether every weight fits the dtype of the scales, in which a reader of packed zero-points computes."""
    scale, zero = layer.weight.scale, layer.weight.zero.float()
    furthest = torch.maximum(zero, 2**layer.weight.bits - 1 - zero)
    return bool((furthest * scale.float() <= torch.finfo(scale.dtype).max).all())


def _packed(codes: Tensor, bits: int) -> dict[str, Tensor]:
    return {"weight_packed": words(codes, bits), "weight_shape": torch.tensor(codes.shape)}


def _group(layer: ExportLayer, by_channel: bool) -> int | None:
    """Return the group size, or None for one group a channel."""
    size = layer.weight.group_size
    whole = size == layer.columns and (by_channel or size not in GROUP_SIZES)
    return None if whole else size


FORMAT = Format(lay_out, float_zeros="unpacked", requirements=("transformers", "compressed-tensors"))
