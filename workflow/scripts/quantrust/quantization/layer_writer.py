"""Quantizing the layers of a model one by one, and writing them and all other tensors to a checkpoint."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import frexp
from operator import attrgetter
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.streamed_weights import DTYPE, StreamedWeights
from quantrust.progress import Progress
from quantrust.quantization.checkpoint import CheckpointWriter
from quantrust.quantization.grid import SMALLEST_NORMAL, QuantizedWeight, percent, relative_change
from quantrust.quantization.linear import PackedWeight, replace_layer

NOTABLE_SHARE = 0.01
"""Groups with small scales that hold less of a layer's norm cannot change it by more."""
NOTABLE_LOSS = 1.1
"""A layer that loses so many times what its grid loses says so in the layer plan."""

Quantize = Callable[..., QuantizedWeight]
KEPT_BYTES = 1 << 30
"""Quantized weights that are kept from one scheme to the next."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer that was quantized.

    Attributes
    ----------
    packed : PackedWeight
    error : float
        |dequantized - weight| / |weight|, Frobenius norms.
    note : str or None
        What a layer plan says of its scales.
    """

    packed: PackedWeight
    error: float
    note: str | None


class KeptWork:
    """What schemes have left of one model, all of which are calibrated on the same samples, if on any.

    Layers are kept of schemes in which no layer depends on another one's bits: equal settings then give equal codes.

    Parameters
    ----------
    limit : int
        Bytes of layers.

    Attributes
    ----------
    ratios : list or None
        What `quantrust.quantization.methods.mbq.modality_ratios` found, which no scheme changes.
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self.ratios: list[Any] | None = None
        self._held = 0
        self._layers: dict[object, QuantizedLayer] = {}

    def find(self, name: str, quantize: Quantize) -> QuantizedLayer | None:
        """Return a layer as this function quantizes it, None where that is not kept."""
        return self._layers.get(self._key(name, quantize))

    def keep(self, name: str, quantize: Quantize, layer: QuantizedLayer) -> None:
        """Keep a layer, as far as the limit goes."""
        size = sum(tensor.nbytes for tensor in layer.packed.buffers())
        if self._held + size <= self.limit:
            self._held += size
            self._layers[self._key(name, quantize)] = layer

    @staticmethod
    def _key(name: str, quantize: Quantize) -> object:
        # as `quantrust.quantization.method.Method.quantizers` makes them
        assert isinstance(quantize, partial)
        # what was made of a Hessian follows from layer and samples
        settings = {key: value for key, value in quantize.keywords.items() if key != "factor"}
        return name, quantize.func, *sorted(settings.items())


class LayerWriter:
    """Quantizes and writes every layer once, and the tensors of a part when the part is finished.

    Parameters
    ----------
    model : torch.nn.Module
    weights : StreamedWeights
        A layer is quantized, and a part finished, while its part is loaded.
    quantizers : mapping of str to callable
        What quantizes the weight of each layer that is selected, by dotted name.
    writer : CheckpointWriter
    bar : Progress
        Counts layers.
    replace : bool
        Whether a quantized layer takes its place in the model, so that what runs afterwards reads what it yields.
    factor : str or None
        The buffer by which the token embedding multiplies what it looks up.
    kept : KeptWork or None
        What schemes before this one have left of the same model's layers; what is quantized here is added.

    Attributes
    ----------
    quantizers : mapping of str to callable
    errors : dict of str to float
        |dequantized - weight| / |weight| of each layer that is quantized already, Frobenius norms.
    notes : dict of str to str
        What the layer plan says further of those whose scales are too small for the dtype in which they are stored.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: StreamedWeights,
        quantizers: Mapping[str, Quantize],
        writer: CheckpointWriter,
        bar: Progress,
        replace: bool,
        factor: str | None = None,
        kept: KeptWork | None = None,
    ) -> None:
        self.quantizers = quantizers
        self.errors: dict[str, float] = {}
        self.notes: dict[str, str] = {}
        self._model, self._weights, self._writer, self._bar = model, weights, writer, bar
        self._replace, self._factor, self._kept = replace, factor, kept
        # None is what lies between the parts
        self._tensors: dict[str | None, list[str]] = {}
        for name in writer.layout.tensors:
            self._tensors.setdefault(weights.part_of(name), []).append(name)
        self._finished: set[str | None] = set()

    def quantize(self, name: str, quantize: Quantize | None = None) -> None:
        """Quantize and write a layer, if the layer plan selects it and it is not done yet.

        Parameters
        ----------
        name : str
            Dotted.
        quantize : callable or None
            Maps the weight to a `QuantizedWeight`; None is the layer's own from `quantizers`.

        Raises
        ------
        QuantrustError
            If the weight cannot be quantized; the message names the layer.
        """
        if name not in self.quantizers or name in self.errors:
            return
        quantize = quantize or self.quantizers[name]
        layer = None if self._kept is None else self._kept.find(name, quantize)
        if layer is None:
            layer = self._quantized(name, quantize)
            if self._kept is not None:
                self._kept.keep(name, quantize, layer)
        self.errors[name] = layer.error
        if layer.note is not None:
            self.notes[name] = layer.note
            _log.warning("%s: %s", name, layer.note)
        self._writer.write_packed(name, layer.packed)
        if self._replace:
            replace_layer(self._model, name, layer.packed, DTYPE, self._factor)
        self._bar.update()

    def knows(self, name: str) -> bool:
        """Return whether a layer's codes are known without quantizing it: a scheme before this one has left them."""
        return self._kept is not None and self._kept.find(name, self.quantizers[name]) is not None

    def _quantized(self, name: str, quantize: Quantize) -> QuantizedLayer:
        weight = self._model.get_submodule(name).weight.detach()
        try:
            quantized = quantize(weight)
        except QuantrustError as error:
            raise QuantrustError(f"layer {name}: {error}") from error
        error_of_layer = relative_change(quantized.dequantize(), weight)
        note = note_on_scales(weight, quantized, quantize)
        return QuantizedLayer(PackedWeight.from_quantized(quantized), error_of_layer, note)

    def finish(self, part: str | None) -> None:
        """Quantize the layers of a loaded part that are not quantized yet, and write all of its other tensors."""
        for name in self.quantizers:
            if self._weights.part_of(name) == part:
                self.quantize(name)
        for name in self._tensors.get(part, []):
            if name not in self._writer.layout.packed:
                self._writer.write(name, attrgetter(name)(self._model))
        self._finished.add(part)

    def finish_block(self, block: str) -> None:
        """Finish a block that was run for calibration, and count it."""
        self.finish(block)
        self._bar.update()

    def quantize_rest(self) -> None:
        """Quantize every layer that is not quantized yet, and write every tensor that is not written."""
        for part in self._weights.parts:
            # nothing is stored of a tied head
            if part not in self._finished and part in self._tensors:
                with self._weights.loaded(part):
                    self.finish(part)
        self.finish(None)

    def completed(self, plan: pl.DataFrame) -> pl.DataFrame:
        """Return a layer plan with the notes and relative errors of its layers, once all are quantized."""
        shared = dict(plan.drop_nulls("shares").select("layer", "shares").iter_rows())
        errors = self.errors | {name: self.errors[source] for name, source in shared.items()}
        said = pl.col("layer").replace_strict(self.notes, default=None, return_dtype=pl.String)
        return plan.with_columns(
            note=pl.concat_str("note", said, separator="; ", ignore_nulls=True).replace("", None),
            relative_error=pl.col("layer").replace_strict(errors, default=None, return_dtype=pl.Float64),
        )


def note_on_scales(weight: Tensor, quantized: QuantizedWeight, quantize: Quantize) -> str | None:
    """Return what the layer plan must say of a layer whose scales are too small for float16, or None.

    Below 2^-14 float16 has fewer significant bits, and below 2^-24 it has nothing. What that costs is seen by
    quantizing the same weights times a power of two: the grid is the same then but for the rounding of its scales.
    """
    small = quantized.scale < SMALLEST_NORMAL
    if quantized.scale.dtype != torch.float16 or not small.any():
        return None
    # the largest becomes a sixteenth at most: HQQ shrinks errors alike as long as none is large
    _, exponent = frexp(float(weight.abs().max()))
    enlarged = weight * 2.0 ** max(0, -4 - exponent)
    energy = enlarged.square().unflatten(1, (-1, quantized.group_size)).sum(dim=2)
    if float(energy[small].sum()) <= NOTABLE_SHARE**2 * float(energy.sum()):
        return None
    error, grid = (
        relative_change(quantized.dequantize(), weight),
        relative_change(quantize(enlarged).dequantize(), enlarged),
    )
    if error <= NOTABLE_LOSS * grid:
        return None
    return (
        f"scales down to {float(quantized.scale.min()):.1e} are too small for float16: the layer loses "
        f"{percent(error, 1)} where its grid alone loses {percent(grid, 1)}; at 8 bits scales are float32"
    )
