"""A model without its weights: for loading packed checkpoints, and for tokenizing without loading anything."""

import logging
from pathlib import Path

from torch import nn
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from quantrust.models.family import Family
from quantrust.models.loading import family_of
from quantrust.models.model_config import build_model
from quantrust.models.named_errors import blaming


def build_skeleton(folder: str | Path, attention: str = "sdpa") -> tuple[Family, nn.Module]:
    """Build the model that a folder's `config.json` describes, with float32 weights that nothing has written to.

    The weights' memory is reserved and never touched, so that a model of any size takes none until its weights are
    assigned. Buffers that no checkpoint stores (rotary frequencies) are computed as usual, and weights that the config
    ties are tied.

    Parameters
    ----------
    folder : str or Path
    attention : {"eager", "sdpa", "flash_attention_2"}
        How its vision tower and language model attend.

    Returns
    -------
    family : Family
    model : torch.nn.Module
        In evaluation mode, on the CPU.

    Raises
    ------
    QuantrustError
        If there is no config, it or the generation config is damaged, there is no adapter for it, or the library runs
        its model with another attention.
    """
    family = family_of(folder)
    logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)
    model = build_model(folder, family, attention)
    if (Path(folder) / GENERATION_CONFIG_NAME).is_file():
        with blaming(f"{Path(folder) / GENERATION_CONFIG_NAME}: cannot be read", "get the file again"):
            model.generation_config = GenerationConfig.from_pretrained(folder)
    return family, model.eval()
