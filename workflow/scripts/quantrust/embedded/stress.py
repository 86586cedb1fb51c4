"""A stress condition: outlier channels put into a model without changing its function.

Large language models have a few channels that are much larger than the rest; the embedded models have none. Here a
share of the channels of every norm, and of every linear that feeds only other linears, is multiplied by a power of two
and the columns that read them divided by it. Nothing is rounded by that, so the unquantized model answers as before;
only what a grid makes of the weights changes.
"""

import math
from pathlib import Path

import torch

from quantrust.artifacts.folders import artifact_folder
from quantrust.embedded.models import save_model_folder
from quantrust.errors import QuantrustError
from quantrust.models.loading import load_model
from quantrust.quantization.folding import fold_scale

COMPONENT = "language"


def stress_model(source: str | Path, out_dir: str | Path, *, share: float, factor: int, seed: int) -> None:
    """Write an embedded model with outlier channels in its language model.

    Parameters
    ----------
    source : str or Path
        Folder of an embedded model, unquantized.
    out_dir : str or Path
        Gets the model folder, weights in bfloat16 as in the source.
    share : float in (0, 1)
        Share of channels that become outliers, drawn for every group of linears that read the same channels.
    factor : int
        How much larger they become; a power of two, at least 2.
    seed : int

    Raises
    ------
    QuantrustError
        If `factor` is not a power of two: other factors would round the weights.
    """
    if factor < 2 or math.log2(factor) % 1:
        raise QuantrustError(f"stress: factor is {factor}; expected a power of two, at least 2, which rounds nothing")
    family, model, processor = load_model(source, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for block in family.blocks(model, COMPONENT):
        for group in family.scale_groups(model, block):
            if group.previous is None:
                continue
            channels = model.get_submodule(group.linears[0]).weight.shape[1]
            scale = torch.ones(channels)
            scale[torch.randperm(channels, generator=generator)[: round(share * channels)]] = 1 / factor
            fold_scale(model, group, scale)
    with artifact_folder(out_dir) as folder:
        save_model_folder(model, processor.tokenizer, family.name, folder, torch.bfloat16)
