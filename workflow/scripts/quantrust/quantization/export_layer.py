"""What the exported formats share: a layer as the checkpoint holds it, an integer grid for it, and 32-bit words."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.quantization.grid import QuantizedWeight, dequantize, encode, in_order, relative_change, storable_scale
from quantrust.quantization.methods.rtn import quantize_rtn
from quantrust.quantization.packing import pack

BYTES_PER_WORD = 4
NAMED_LAYERS = 8
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Linears of one module that servers join into one, and must therefore find stored alike."""
NOTABLE_CHANGE = 0.01
"""From this share of a layer's weights on, what an export adds to the loss of quantization is no mere rounding."""


@dataclass(frozen=True)
class ExportLayer:
    """A quantized layer on its way into another format.

    Attributes
    ----------
    name : str
        Dotted.
    weight : QuantizedWeight
        As the format is to hold it: with integer zeros from 0 to 2^bits - 1, unless they must stay floats.
    is_embedding : bool
    is_tied : bool
        Whether another layer uses the same weight.
    is_initialized : bool
        Whether transformers asks the layer for its weight while it loads the model.
    """

    name: str
    weight: QuantizedWeight
    is_embedding: bool
    is_tied: bool
    is_initialized: bool = False

    @property
    def columns(self) -> int:
        """Input channels."""
        return self.weight.codes.shape[1]

    @property
    def has_integer_zeros(self) -> bool:
        """Whether every zero is an integer from 0 to 2^bits - 1."""
        return torch.equal(self.weight.zero, _nearest_codes(self.weight))

    @property
    def is_symmetric(self) -> bool:
        """Whether every zero is the middle code."""
        return bool((self.weight.zero == 2 ** (self.weight.bits - 1)).all())


@dataclass(frozen=True)
class Encoded:
    """A layer in another format.

    Attributes
    ----------
    tensors : dict of str to Tensor
        By the parameter names of the layer.
    weight : QuantizedWeight
        What a reader of the tensors gets.
    stored : str
        How the format holds it, in words.
    read_in : torch.dtype
        In which a reader multiplies codes and scales.
    """

    tensors: dict[str, Tensor]
    weight: QuantizedWeight
    stored: str
    read_in: torch.dtype = torch.float32

    def read(self) -> Tensor:
        """Return the weight that a reader gets, float32, shape (out, in)."""
        values = dequantize(self.weight.codes, self.weight.scale, self.weight.zero, self.read_in).float()
        return in_order(values, self.weight.order)


@dataclass(frozen=True)
class Layout:
    """How a format holds a model.

    Attributes
    ----------
    quantization_config : dict
        What `config.json` says under that key.
    encoders : dict of str to callable
        By layer; an `ExportLayer` becomes an `Encoded`.
    dense : dict of str to str
        Layers that the format cannot hold quantized, each with the reason.
    notes : tuple of str
        What a user of the folder must know.
    """

    quantization_config: dict[str, Any]
    encoders: dict[str, Callable[[ExportLayer], Encoded]]
    dense: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Format:
    """The record that the module of a format ends in.

    Attributes
    ----------
    lay_out : callable
        ``lay_out(layers, unquantized_linears, exact)`` decides how the format holds a model; it returns a `Layout`.
        `layers` are `ExportLayer`s, `unquantized_linears` the names of linears that stay as they are, and `exact` says
        whether every weight must stay what it is.
    float_zeros : {"packed", "unpacked", "none"}
        Whether the format holds float zero-points beside packed codes, or beside unpacked ones alone, or nowhere.
    requirements : tuple of str
        The packages that read it.
    tokens_first : bool
        Whether they read models alone whose main input is tokens.
    """

    lay_out: Callable[[list[ExportLayer], list[str], bool], Layout]
    float_zeros: Literal["packed", "unpacked", "none"]
    requirements: tuple[str, ...]
    tokens_first: bool = False


def integer_zeros(weight: QuantizedWeight) -> QuantizedWeight:
    """Move a weight to a grid whose zeros are integers from 0 to 2^bits - 1.

    Each group takes the better of two grids, by its squared error: its own with the zero rounded, and a new one from
    rounding its values to nearest (the only one that fits where the zero lies outside the code range). Groups of one
    value that is too small for a scale of its own (see `encode`) become one step of the nearest scale that there is.

    Parameters
    ----------
    weight : QuantizedWeight
        Returned as it is where its zeros are such integers, or where the tiny groups of one value would lose more than
        `NOTABLE_CHANGE` of it.

    Returns
    -------
    QuantizedWeight
    """
    rounded = _nearest_codes(weight)
    if torch.equal(rounded, weight.zero):
        return weight
    # in the order of the codes, as all that follows
    values = dequantize(weight.codes, weight.scale, weight.zero)
    shifted = encode(values, weight.scale, rounded, weight.bits, weight.group_size)
    anew = quantize_rtn(values, weight.bits, weight.group_size)
    better = _group_error(anew, values) < _group_error(shifted, values)
    columnwise = better.repeat_interleave(weight.group_size, dim=1)
    moved = replace(
        weight,
        codes=torch.where(columnwise, anew.codes, shifted.codes),
        scale=torch.where(better, anew.scale, shifted.scale),
        zero=torch.where(better, anew.zero, shifted.zero),
    )
    # a tiny constant group keeps a float zero on either grid, which holds it exactly
    tiny = moved.zero != _nearest_codes(moved)
    stepped = _one_step(moved, tiny, values[:, :: weight.group_size]) if tiny.any() else moved
    return weight if relative_change(stepped.dequantize(), moved.dequantize()) > NOTABLE_CHANGE else stepped


def _one_step(weight: QuantizedWeight, constant: Tensor, value: Tensor) -> QuantizedWeight:
    """Put constant groups one step from an integer zero; masks and values have a column a group."""
    scale = torch.where(constant, storable_scale(value.abs(), weight.bits), weight.scale)
    zero = torch.where(constant, (value < 0).to(weight.zero.dtype), weight.zero)
    chosen, code = (part.repeat_interleave(weight.group_size, dim=1) for part in (constant, 1 - zero))
    return replace(weight, codes=torch.where(chosen, code.to(torch.uint8), weight.codes), scale=scale, zero=zero)


def require_own_order(layers: list[ExportLayer], format_name: str) -> None:
    """Raise if the input channels of a layer are grouped in an order of their own, which a format cannot say."""
    if ordered := [layer.name for layer in layers if layer.weight.order is not None]:
        raise QuantrustError(
            f"{format_name} holds groups of neighbouring input channels, but those of {count_layers(len(ordered))} "
            f"({name_layers(ordered)}) are grouped in another order (desc_act); export the checkpoint as gptq"
        )


def name_layers(names: list[str]) -> str:
    """Return the names of layers in a line: the first `NAMED_LAYERS`, and how many more there are."""
    rest = len(names) - NAMED_LAYERS
    return ", ".join(names[:NAMED_LAYERS]) + (f" and {rest} more" if rest > 0 else "")


def notes_on_fused(stored: Mapping[str, Hashable]) -> list[str]:
    """Return what to say of linears that vLLM and SGLang join into one and that are not stored alike.

    Parameters
    ----------
    stored : mapping of str to hashable
        How each linear is stored, by its dotted name; those that are not quantized are alike.
    """
    notes = []
    for names in FUSED:
        parents = {name.rpartition(".")[0] for name in stored if name.rpartition(".")[2] == names[0]}
        differing = [
            parent
            for parent in parents
            if len({stored[f"{parent}.{name}"] for name in names if f"{parent}.{name}" in stored}) > 1
        ]
        if differing:
            notes.append(
                f"{', '.join(names)} are stored in different ways in {len(differing)} modules; vLLM and SGLang join "
                "them into one layer and refuse that"
            )
    return notes


def words(codes: Tensor, bits: int) -> Tensor:
    """Pack codes densely along the last dimension into 32-bit words.

    The bits of a row are one stream, least significant first, as in `quantrust.quantization.packing`; its last word
    is filled up with zeros.

    Parameters
    ----------
    codes : Tensor, uint8, shape (rows, n)
    bits : int

    Returns
    -------
    Tensor, int32, shape (rows, ceil(n * bits / 32))
    """
    packed = pack(codes, bits)
    filled = torch.nn.functional.pad(packed, (0, -packed.shape[-1] % BYTES_PER_WORD))
    # the first byte is the low end of a word whatever the machine's own byte order
    parts = filled.unflatten(-1, (-1, BYTES_PER_WORD)).to(torch.int32)
    return (parts << torch.arange(0, 32, 8, dtype=torch.int32)).sum(dim=-1, dtype=torch.int32)


def count_layers(count: int) -> str:
    """Return a number of layers in words."""
    return f"{count} layer" + ("" if count == 1 else "s")


def _nearest_codes(weight: QuantizedWeight) -> Tensor:
    return weight.zero.round().clamp(0, 2**weight.bits - 1)


def _group_error(weight: QuantizedWeight, values: Tensor) -> Tensor:
    change = dequantize(weight.codes, weight.scale, weight.zero) - values
    return change.square_().unflatten(1, (-1, weight.group_size)).sum(dim=-1)
