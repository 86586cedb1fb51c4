"""Layers whose weights are packed codes.

They compute through their weight: `PackedWeight`, the reference, unpacks and dequantizes it and goes on as the layer
that is replaced. Where a whole model is small, its weights are kept dequantized.
`quantrust.quantization.kernels.packed` has weights that are multiplied without being dequantized.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantrust.errors import QuantrustError
from quantrust.quantization.grid import QuantizedWeight, dequantize, in_order, storage_dtype
from quantrust.quantization.packing import pack, packed_width, unpack

KEPT_BYTES = 1 << 26
"""What the dequantized weights of a model's linears may take to be kept: 64 MiB, 16 million weights in float32."""


class PackedWeight(nn.Module):
    """A quantized weight with dense codes.

    Buffers: `codes` uint8 (rows, ceil(columns * bits / 8)), `scale` and `zero` (rows, columns / group_size) in
    `grid_dtype`, which is the storage dtype of the bits unless another is given, and, if the columns have an order of
    their own, `order` int32 (columns,), else None: the input channel of each column. They are memory that nothing has
    written to until a checkpoint or `from_quantized` fills them, so that a model can be built before any weight is
    read.
    """

    kernel = "reference"
    _keeps = False
    _kept: Tensor | None = None

    def __init__(
        self,
        rows: int,
        columns: int,
        bits: int,
        group_size: int,
        grid_dtype: torch.dtype | None = None,
        ordered: bool = False,
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.bits, self.group_size = rows, columns, bits, group_size
        self.register_buffer("codes", torch.empty(rows, packed_width(columns, bits), dtype=torch.uint8))
        grid = (rows, columns // group_size)
        dtype = storage_dtype(bits) if grid_dtype is None else grid_dtype
        self.register_buffer("scale", torch.empty(grid, dtype=dtype))
        self.register_buffer("zero", torch.empty(grid, dtype=dtype))
        self.register_buffer("order", torch.empty(columns, dtype=torch.int32) if ordered else None)

    @classmethod
    def from_quantized(cls, weight: QuantizedWeight) -> "PackedWeight":
        """Pack the codes of a quantized weight."""
        rows, columns = weight.codes.shape
        packed = cls(rows, columns, weight.bits, weight.group_size)
        packed.codes, packed.scale, packed.zero = pack(weight.codes, weight.bits), weight.scale, weight.zero
        packed.order = weight.order
        return packed

    def linear(self, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """Map (..., columns) to (..., rows), in the dtype of the inputs."""
        return functional.linear(inputs, self._whole(inputs.dtype), bias)

    def keep(self) -> None:
        """Keep the weight dequantized from the next product on; neither codes nor device may change any more."""
        self._keeps = True

    def dequantize(self, dtype: torch.dtype, rows: Tensor | None = None) -> Tensor:
        """Return the weight, or some of its rows.

        Parameters
        ----------
        dtype : torch.dtype
        rows : Tensor, int64, shape (k,), or None

        Returns
        -------
        Tensor, `dtype`, shape (rows or k, columns)
        """
        codes, scale, zero = self.codes, self.scale, self.zero
        if rows is not None:
            codes, scale, zero = codes[rows], scale[rows], zero[rows]
        return in_order(dequantize(unpack(codes, self.bits, self.columns), scale, zero).to(dtype), self.order)

    def extra_repr(self) -> str:
        """Return shape, bits and group size."""
        return f"{self.rows} x {self.columns}, {self.bits} bits, group {self.group_size}"

    def _whole(self, dtype: torch.dtype) -> Tensor:
        if self._kept is not None and self._kept.dtype == dtype:
            return self._kept
        weight = self.dequantize(dtype)
        if self._keeps:
            self._kept = weight
        return weight


def keep_small_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Let the quantized linears of a small model on the CPU keep their weights dequantized.

    So each is dequantized once, and nothing that they compute changes. All of them are kept or none: only where they
    take no more than `KEPT_BYTES`. On a GPU none is, because its memory is counted beforehand.

    Parameters
    ----------
    model : torch.nn.Module
        Where it computes; its codes must not change any more.
    dtype : torch.dtype
        In which it computes.
    """
    if sum(weight.rows * weight.columns for weight in _weights_of_linears(model)) * dtype.itemsize <= KEPT_BYTES:
        keep_weights(model)


def keep_weights(model: nn.Module) -> None:
    """Let all quantized linears on the CPU keep their weights dequantized; nothing that they compute changes."""
    for weight in _weights_of_linears(model):
        weight.keep()


def _weights_of_linears(model: nn.Module) -> set[PackedWeight]:
    weights = {module.weight for module in model.modules() if isinstance(module, QuantizedLinear)}
    return {weight for weight in weights if isinstance(weight, PackedWeight) and weight.codes.device.type == "cpu"}


def ordered_inputs(inputs: Tensor, order: Tensor | None) -> Tensor:
    """Return inputs, shape (..., columns), in the order of a weight's columns, which may be None: their own."""
    return inputs if order is None else inputs.index_select(-1, order)


class QuantizedLinear(nn.Module):
    """A linear layer on packed codes; it computes in the dtype of its input.

    Parameters
    ----------
    weight : PackedWeight
        Shape (out, in); may be shared with another layer.
    bias : Tensor or None, shape (out,)
    """

    def __init__(self, weight: PackedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features, self.out_features = weight.columns, weight.rows
        self.weight = weight
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return self.weight.linear(inputs, self.bias)


class QuantizedEmbedding(nn.Module):
    """A token embedding on packed codes; only the rows that are looked up are dequantized.

    Parameters
    ----------
    weight : PackedWeight
        Shape (vocabulary, hidden).
    dtype : torch.dtype
        Of the embeddings it returns.
    factor : Tensor or None, shape ()
        What embeddings are multiplied by, in their dtype; it is not a part of the state.
    """

    factor: Tensor | None

    def __init__(self, weight: PackedWeight, dtype: torch.dtype, factor: Tensor | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.rows, weight.columns
        self.weight = weight
        self.dtype = dtype
        self.register_buffer("factor", factor, persistent=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map token ids (...) to embeddings (..., hidden)."""
        rows, places = token_ids.reshape(-1).unique(return_inverse=True)
        found = self.weight.dequantize(self.dtype, rows)
        if self.factor is not None:
            found = found * self.factor.to(self.dtype)
        return found[places].reshape(*token_ids.shape, self.embedding_dim)


def replace_layer(
    model: nn.Module, name: str, weight: PackedWeight, dtype: torch.dtype, factor: str | None = None
) -> None:
    """Put a quantized layer in the place of the linear or embedding called `name`.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    name : str
        Dotted.
    weight : PackedWeight
    dtype : torch.dtype
        The dtype that the model computes in.
    factor : str or None
        The buffer of the layer by which it multiplies what it looks up, if it is an embedding that does.

    Raises
    ------
    QuantrustError
        If the layer is of a subclass that computes something else, which a quantized layer would leave out.
    """
    layer = model.get_submodule(name)
    base = nn.Embedding if isinstance(layer, nn.Embedding) else nn.Linear
    multiplier = getattr(layer, factor) if factor is not None and base is nn.Embedding else None
    if multiplier is None and isinstance(layer, base) and type(layer).forward is not base.forward:
        kind = type(layer)
        raise QuantrustError(
            f"{name} is a {kind.__module__}.{kind.__qualname__}, which computes more than {base.__name__} does; a "
            "quantized layer would leave that out. Leave the layer's component out of the scheme"
        )
    quantized = (
        QuantizedEmbedding(weight, dtype, multiplier)
        if isinstance(layer, nn.Embedding)
        else QuantizedLinear(weight, layer.bias)
    )
    model.set_submodule(name, quantized)
