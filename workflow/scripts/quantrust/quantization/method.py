"""Methods as the rest of the package sees them: what a record can be asked, and a method's walk through a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.family import Family, LayerRef, ScaleGroup
from quantrust.models.streamed_weights import StreamedWeights
from quantrust.named_modules import METHODS, load_module
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.layer_writer import KeptWork, LayerWriter
from quantrust.quantization.method_traits import MethodTraits, method_traits
from quantrust.quantization.scheme import Scheme


class Rounding(Protocol):
    """Quantizes a weight without looking at data."""

    def __call__(self, weight: Tensor, bits: int, group_size: int, symmetric: bool = False) -> QuantizedWeight:
        """Quantize a weight, shape (out, in), in groups of `group_size` input channels, which divides `in`."""
        ...


@dataclass(frozen=True)
class Samples:
    """What a scheme is calibrated on, as far as it takes memory.

    Attributes
    ----------
    count : int
    tokens : int
        Of the longest: prompt, picture and caption.
    patches : int
        Of the largest picture, as the vision tower reads it.
    pixel_bytes : int
        Of that picture, preprocessed.
    """

    count: int
    tokens: int
    patches: int
    pixel_bytes: int


@dataclass(frozen=True)
class CalibrationMemory:
    """What calibration takes beside loading, quantizing and writing the parts of a model.

    Attributes
    ----------
    steps : list of int
        Bytes that each of its steps takes; the largest counts.
    stored : int
        Bytes of activations between blocks.
    """

    steps: list[int]
    stored: int


@dataclass(frozen=True)
class Job:
    """One model that is quantized under one scheme.

    Attributes
    ----------
    family : Family
    model : torch.nn.Module
        Its weights are on the meta device but for the parts that `weights` has loaded.
    weights : StreamedWeights
    layers : LayerWriter
        Quantizes and writes the layers of the layer plan.
    plan : polars.DataFrame
        The layer plan.
    scheme : Scheme
    scratch : Path
        Where activations go that memory has no room for; deleted with whatever is in it.
    activation_bytes : int
        How much host memory activations between blocks may take.
    device : {"cpu", "cuda"}
    kept : KeptWork
        What other schemes have left of the model; what this one finds is added.
    """

    family: Family
    model: nn.Module
    weights: StreamedWeights
    layers: LayerWriter
    plan: pl.DataFrame
    scheme: Scheme
    scratch: Path
    activation_bytes: int
    device: str
    kept: KeptWork


class Walk(ABC):
    """The way of one kind of method through a model: in which order its parts are run and quantized."""

    def samples(self, family: Family, model: nn.Module, model_folder: str | Path) -> Samples | None:
        """Return what the calibration samples take; None where no data is read."""
        return None

    def describe_calibration(self) -> dict[str, Any] | None:
        """Return what a checkpoint's record says of the calibration samples; None where no data is read."""
        return None

    def steps(self, family: Family, model: nn.Module, plan: pl.DataFrame) -> int:
        """Return how many blocks are run for calibration, for the progress bar."""
        return 0

    @abstractmethod
    def run(self, job: Job) -> dict[str, list[dict[str, Any]]]:
        """Quantize every layer of the layer plan and write every tensor of the checkpoint.

        Returns
        -------
        dict
            What the checkpoint's record says of it: `modality_ratios` and `scales`, as far as the walk finds any.
        """


@dataclass(frozen=True, kw_only=True)
class Method(MethodTraits, ABC):
    """The record of a method: its traits, and the functions that quantize. One subclass for each kind of method."""

    @property
    def replaces_layers(self) -> bool:
        """Whether a quantized layer takes its place in the model at once, so that later ones are calibrated on it."""
        return False

    def quantizes_apart(self, scheme: Scheme) -> bool:
        """Return whether the codes of a layer depend on nothing that the scheme says of other layers."""
        return not scheme.needs_calibration

    @abstractmethod
    def layer_method(self, layer: LayerRef, group: ScaleGroup | None) -> tuple[str, list[str]]:
        """Return the name of the method that a layer's weight goes through, and why it is another one if it is.

        Parameters
        ----------
        layer : LayerRef
        group : ScaleGroup or None
            The linears that read one activation with this one, if it lies in a block.
        """

    @abstractmethod
    def rounding_of(self, name: str) -> Callable[..., QuantizedWeight]:
        """Return what quantizes a weight by the method of this name, which is one that `layer_method` returns."""

    @abstractmethod
    def walk(self, scheme: Scheme, calibration: str | Path | pl.DataFrame | None) -> Walk:
        """Return the way through a model.

        Raises
        ------
        QuantrustError
            If the method reads data and `calibration` is missing or unfit.
        """

    def scaled_by(self, group: ScaleGroup | None) -> str | None:
        """Return the operation that absorbs the inverse of a layer's channel scales; None where nothing does."""
        return None

    def calibration_memory(
        self, family: Family, model: nn.Module, scheme: Scheme, samples: Samples, budget: int
    ) -> CalibrationMemory:
        """Estimate what calibration takes; `budget` is how many bytes of activations stay in memory."""
        return CalibrationMemory([], 0)

    def quantizers(self, plan: pl.DataFrame, symmetric: bool) -> dict[str, Callable[..., QuantizedWeight]]:
        """Return what quantizes the weight of each layer of a layer plan, by the layers' names, in the plan's order."""
        chosen = plan.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null())
        return {
            row["layer"]: partial(
                self.rounding_of(row["method"]), bits=row["bits"], group_size=row["group"], symmetric=symmetric
            )
            for row in chosen.iter_rows(named=True)
        }


def load_method(name: str) -> Method:
    """Return the record of a method.

    Parameters
    ----------
    name : str
        One of `quantrust.quantization.method_traits.method_names`.

    Raises
    ------
    QuantrustError
        If its module does not end in a record, or its traits cannot be read without running it.
    """
    method_traits(name)
    method = load_module(METHODS, name, ("METHOD",)).METHOD
    if not isinstance(method, Method):
        raise QuantrustError(f"method {name}: METHOD is a {type(method).__name__}, expected the record of a method")
    return method
