"""What quantizing takes in device and host memory, estimated from shapes before any weight is read.

Weights stream through in float32, a block or a layer at a time, and so the model's depth does not count.

* Quantizing a layer holds `WORKING` bytes a weight of the largest layer that is quantized.
* Calibration holds beside a block's weights the activations of a micro-batch (`Stack.activations`), and what a search
  keeps of all samples for one block: what enters and leaves it, and the input of its widest linear.
"""

import polars as pl
from torch import nn

from quantrust.models.family import Family
from quantrust.models.footprint import CUDA_LIBRARIES, LIBRARIES, SLACK, Footprint, language_stack
from quantrust.models.pictures import PictureCost
from quantrust.quantization.calibration import BATCH_STATES
from quantrust.quantization.scheme import Scheme

ITEMSIZE = 4
"""Of float32, in which everything is computed."""

WORKING = 13
"""Bytes a weight: itself, what it is divided by its scale, its code, and the dequantized weight with its error."""

CAPTION_TOKENS = 256
"""Of a calibration sample's prompt text and caption."""


def quantize_footprint(
    family: Family,
    model: nn.Module,
    layers: pl.DataFrame,
    scheme: Scheme,
    picture: PictureCost,
    samples: int,
    device: str,
) -> Footprint:
    """Estimate."""
    chosen = layers.filter(pl.col("bits").is_not_null())
    largest = int((chosen["rows"] * chosen["columns"]).max() or 0)
    computing = WORKING * largest
    if scheme.needs_calibration:
        stack = language_stack(family, model)
        length = picture.prompt_tokens + CAPTION_TOKENS
        micro = max(1, BATCH_STATES // (length * stack.hidden))
        computing += ITEMSIZE * stack.weights * 2 + stack.activations(micro * length, ITEMSIZE)
        computing += ITEMSIZE * samples * length * (2 * stack.hidden + stack.widest)
    computing = int(SLACK * computing)
    tensor = max(parameter.numel() for parameter in model.parameters())
    if device == "cpu":
        return Footprint(0, 0, LIBRARIES + computing + 2 * ITEMSIZE * tensor)
    return Footprint(computing, computing, CUDA_LIBRARIES + 2 * ITEMSIZE * tensor)
