"""Checkpoints and what others make of their exports: the same question, and the logits of either model."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantrust.models.family import Role
from quantrust.quantization.checkpoint import load_checkpoint

GPTQ_PYTHON = Path(__file__).resolve().parents[1] / ".venv-export" / "bin" / "python"
"""Of the environment with what loads exported folders, where it was made."""
NEEDS_WHAT_LOADS = pytest.mark.skipif(
    not GPTQ_PYTHON.exists(), reason="needs .venv-export with requirements-export.txt: `make test-slow` makes it"
)
LOAD = """
import json, sys, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
for folder in sys.argv[1:]:
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    keys = {what: sorted(map(str, found)) for what, found in info.items() if found}
    packed = [name for name, module in model.named_modules() if hasattr(module, "qweight")]
    with torch.no_grad():
        logits = model(**load_file(folder + "/inputs")).logits
    save_file({"logits": logits.float().contiguous()}, folder + "/logits")
    print("REPORT", json.dumps([folder, keys, packed]))
"""


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


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def load_elsewhere(folders: Sequence[Path]) -> dict[Path, tuple[dict[str, list[str]], list[str]]]:
    """Load exported folders in the environment made for them, and write the logits of their `inputs` beside these.

    Returned is of each what the loader missed or had left, and the layers that stay packed.
    """
    done = subprocess.run([GPTQ_PYTHON, "-c", LOAD, *map(str, folders)], capture_output=True, text=True, check=False)
    reports = [json.loads(line.split(" ", 1)[1]) for line in done.stdout.splitlines() if line.startswith("REPORT")]
    found = {Path(folder): (keys, packed) for folder, keys, packed in reports}
    assert found.keys() == {*folders}, done.stderr[-3000:]
    return found
