"""Checkpoints and what others make of their exports: the same question, and the logits of either model."""

from pathlib import Path

import torch

from quantrust.models.family import Role
from quantrust.quantization.checkpoint import load_checkpoint

GPTQ_PYTHON = Path(__file__).resolve().parents[1] / ".venv-export" / "bin" / "python"
"""Of the environment with what loads exported folders, where it was made."""


def inputs_of(folder, picture):
    """A question about a picture, as the model's own `forward` takes it."""
    family, model, processor, _ = load_checkpoint(folder)
    vision = family.preprocess(processor, [picture])
    encoded = family.encode_images(model, vision)
    prompt = family.language_inputs(model, processor, ["is there a 3 below it?"], encoded)
    inputs = {"input_ids": prompt.token_ids, "attention_mask": prompt.attention_mask.long(), **vision.tensors}
    if family.name == "qwen2_vl":
        inputs["mm_token_type_ids"] = (prompt.roles == Role.IMAGE).int()
    return inputs


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs).logits.float()
