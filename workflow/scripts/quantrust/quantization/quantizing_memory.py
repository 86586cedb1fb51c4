"""What quantizing takes in device and host memory and in files, estimated from shapes before any weight is read.

Everything is computed in float32, a part of the model at a time, so that its depth does not count. The largest step is
the peak: loading a part (a block, the embedding, the head) and writing it takes the part, and of its largest tensor a
copy as it is stored, or in place of that what quantizing takes: `WORKING` bytes a weight of the largest layer that is
quantized. What calibration adds, `quantrust.quantization.calibration_memory` says.

Beside a GPU host memory also holds a tensor on its way from and to the files.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from torch import nn

from quantrust.models.components import STACKS
from quantrust.models.family import Family
from quantrust.models.footprint import CUDA_LIBRARIES, LIBRARIES, SLACK, Footprint
from quantrust.quantization.method import Samples, load_method
from quantrust.quantization.scheme import Scheme

ACTIVATION_SHARE = 8
"""Activations between blocks take one part in so many of the model's size in bfloat16 before they go to files."""

LEAST_ACTIVATION_BYTES = 1 << 26

ITEMSIZE = 4

WORKING = 13
"""Bytes a weight: itself, what it is divided by its scale, its code, and the dequantized weight with its error."""

COPY = 2
"""Bytes a weight: as it is read from a file in bfloat16, and as it is written."""

SOLVER = 1 << 23
"""Bytes that a method takes for the weights that it looks at together."""


def activation_budget(sizes: Mapping[str, Any]) -> int:
    """Return how many bytes activations between blocks take in host memory before they go to files.

    Parameters
    ----------
    sizes : dict
        The checkpoint's `bytes`.
    """
    return max(LEAST_ACTIVATION_BYTES, int(sizes["bfloat16"]) // ACTIVATION_SHARE)


def quantize_footprint(
    family: Family,
    model: nn.Module,
    plan: pl.DataFrame,
    sizes: dict[str, int | float | None],
    scheme: Scheme,
    samples: Samples | None,
    device: str,
    activation_bytes: int | None = None,
) -> Footprint:
    """Estimate the memory and the files that quantizing takes.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Unquantized; its weights may be on the meta device.
    plan : polars.DataFrame
        The layer plan.
    sizes : dict
        The checkpoint's `bytes`.
    scheme : Scheme
    samples : Samples or None
        None where the scheme reads no data.
    device : {"cpu", "cuda"}
    activation_bytes : int or None
        As in `quantrust.quantization.quantize.quantize_model`.

    Returns
    -------
    Footprint
    """
    budget = activation_budget(sizes) if activation_bytes is None else activation_bytes
    chosen = plan.filter(pl.col("bits").is_not_null())
    steps = _loading(family, model, dict(chosen.select("layer", pl.col("rows") * pl.col("columns")).iter_rows()))
    stored = 0
    if samples is not None and scheme.method is not None:
        calibrating = load_method(scheme.method).calibration_memory(family, model, scheme, samples, budget)
        steps += calibrating.steps
        stored = calibrating.stored
    computing = int(SLACK * max(steps))
    held = min(stored, budget)
    scratch = max(0, stored - budget)
    if device == "cpu":
        return Footprint(0, 0, LIBRARIES + computing + held, scratch)
    tensor = ITEMSIZE * max(parameter.numel() for parameter in model.parameters())
    return Footprint(computing, computing, CUDA_LIBRARIES + held + tensor, scratch)


def _loading(family: Family, model: nn.Module, chosen: dict[str, int]) -> list[int]:
    """Return what each part takes that is loaded, quantized in as far as it is `chosen`, and written."""
    parts = [block for component in STACKS for block in family.blocks(model, component)]
    parts += [layer.name for layer in family.layers(model) if layer.component in ("embedding", "head")]
    steps = []
    for part in parts:
        weights = [parameter.numel() for parameter in model.get_submodule(part).parameters()]
        quantized = [size for name, size in chosen.items() if f"{name}.".startswith(f"{part}.")]
        taken = max((size * (WORKING - ITEMSIZE) + SOLVER for size in quantized), default=0)
        steps.append(ITEMSIZE * sum(weights) + max(COPY * max(weights), taken))
    return steps
