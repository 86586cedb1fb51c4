"""Methods that read no data: every part of the model is loaded, quantized and written, in any order."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.models.family import LayerRef, ScaleGroup
from quantrust.quantization.method import Job, Method, Rounding, Walk
from quantrust.quantization.method_traits import Reads
from quantrust.quantization.scheme import Scheme


class DataFreeWalk(Walk):
    """Part after part, nothing before it."""

    def run(self, job: Job) -> dict[str, list[dict[str, Any]]]:
        """Quantize and write every part."""
        job.layers.quantize_rest()
        return {}


@dataclass(frozen=True, kw_only=True)
class DataFree(Method):
    """The record of a method that maps a weight to codes and looks at nothing else.

    Attributes
    ----------
    quantize : callable
        ``quantize(weight, bits, group_size, symmetric)``; `weight` has the shape (out, in), and `group_size` divides
        `in`. It returns a `quantrust.quantization.grid.QuantizedWeight`. Rows are quantized independently of each
        other, and the weights times a power of two give the same codes.
    in_words : str
        What a layer plan says of a layer that another method leaves to this one.
    """

    quantize: Rounding
    in_words: str = "quantized without data"
    reads: Reads = field(default=Reads.NOTHING, init=False)

    def layer_method(self, layer: LayerRef, group: ScaleGroup | None) -> tuple[str, list[str]]:
        """Every layer goes through the method itself."""
        return self.name, []

    def rounding_of(self, name: str) -> Rounding:
        """Return the method's own function."""
        return self.quantize

    def walk(self, scheme: Scheme, calibration: str | Path | pl.DataFrame | None) -> Walk:
        """Return the walk; calibration samples are not looked at."""
        return DataFreeWalk()
