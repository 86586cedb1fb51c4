"""Exported folders of every family, loaded by `transformers` in the environment that is made for them.

The models are tiny and random, in the layout in which each family is published.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from exports import NEEDS_WHAT_LOADS, inputs_of, load_elsewhere, logits_of, save_tensors
from published_layout import MINI, write_model_folder
from quantrust.errors import QuantrustError
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.export import export_checkpoint
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import Scheme, resolve_scheme
from tiny import NAMES, tiny, write_tiny

pytestmark = [pytest.mark.slow, NEEDS_WHAT_LOADS]

FAMILIES = sorted([*MINI, *NAMES])
# Whose towers transformers asks for weights while it loads them.
SIGLIP = ("gemma3", "llava_onevision", "paligemma")
FORMATS = ("compressed-tensors", "gptq")
# transformers loads a model in gptq only if its main input is tokens.
REFUSED = ("gptq", "blip_2")


def inputs_as_the_library_prepares_them(folder: Path, name: str, picture: Image.Image) -> dict[str, torch.Tensor]:
    if name in MINI:
        return inputs_of(folder, picture)
    processor = load_checkpoint(folder)[2]
    content = [{"type": "image"}, {"type": "text", "text": "What color is the large shape?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    pictures = [[picture]] if tiny(name).nested else [picture]
    given = processor(text=[tiny(name).given(text)], images=pictures, add_special_tokens=False, return_tensors="pt")
    given.pop("labels", None)
    return dict(given)


def blocks_at_4_bits(name: str) -> Scheme:
    """Everything that both formats hold: a head that is the embedding would be rounded to bfloat16."""
    # Gemma 3's connector has no layer
    components = ["vision", "language"] if name == "gemma3" else ["vision", "connector", "language"]
    table = [{"component": component, "bits": 4} for component in components]
    return resolve_scheme("blocks4", {"method": "rtn", "group": 64, "symmetric": True, "table": table})


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder of exports, `<format>/<family>`, each with the inputs of a prompt and the checkpoint's logits."""
    top = tmp_path_factory.mktemp("exported")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 40, 3), dtype=np.uint8))
    for name in FAMILIES:
        if name in MINI:
            write_model_folder(top / "sources" / name, name, MINI[name])
        else:
            write_tiny(top / "sources" / name, name)
        settings = {} if name in MINI else tiny(name).settings
        prepare_model(top / "sources" / name, top / "models" / name, name, processor=settings)
        checkpoint = top / "checkpoints" / name
        quantize_model(top / "models" / name, blocks_at_4_bits(name), None, checkpoint)
        inputs = inputs_as_the_library_prepares_them(checkpoint, name, picture)
        expected = logits_of(load_checkpoint(checkpoint)[1], inputs)
        halved = {key: value.bfloat16() if value.is_floating_point() else value for key, value in inputs.items()}
        rounded = logits_of(load_checkpoint(checkpoint, torch.bfloat16)[1], halved)
        for format_name in FORMATS:
            if (format_name, name) == REFUSED:
                continue
            out = top / format_name / name
            export_checkpoint(checkpoint, format_name, out)
            save_tensors(inputs, out / "inputs")
            save_tensors({"logits": expected, "rounded": rounded}, out / "expected")
    return top


@pytest.fixture(scope="module", params=FORMATS)
def loaded(request, exported) -> tuple[str, dict[str, tuple[Path, dict, list[str]]]]:
    """A format, and of each family its folder, what the loader missed or had left, and the layers that stay packed."""
    names = [name for name in FAMILIES if (request.param, name) != REFUSED]
    reports = load_elsewhere([exported / request.param / name for name in names])
    found = {folder.name: (folder, *report) for folder, report in reports.items()}
    return request.param, found


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_loads_an_export_and_computes_what_the_checkpoint_does(name, loaded):
    format_name, found = loaded
    if (format_name, name) == REFUSED:
        pytest.skip("refused, as another test pins")
    folder, keys, packed = found[name]
    assert keys == {}
    rows = json.loads((folder / "export.json").read_text())["layers"]
    held = {row["layer"] for row in rows if row["reason"] is None}
    assert {*packed} == (held if format_name == "gptq" else set())
    # all linears of the decoder's two blocks, and some of the tower, unless transformers cannot load them so
    decoder = [layer for layer in held if "language_model" in layer or "text_model" in layer]
    assert len(decoder) >= (14 if name in MINI else tiny(name).wide_linears)
    assert any("vision" in layer or "visual" in layer for layer in held) != (format_name == "gptq" and name in SIGLIP)
    logits, expected = load_file(folder / "logits")["logits"], load_file(folder / "expected")
    if format_name == "gptq":
        # gptqmodel multiplies in bfloat16 or float16 whatever the model's dtype, and attention this sharp makes much of
        # it: hardly more than of a whole model in bfloat16
        allowed = 1.5 * (expected["rounded"] - expected["logits"]).norm()
        assert (logits - expected["logits"]).norm() < allowed
    else:
        largest = float(expected["logits"].abs().max())
        torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-5 * largest)


def test_a_model_that_transformers_would_not_load_is_refused(exported, tmp_path):
    format_name, name = REFUSED
    with pytest.raises(
        QuantrustError, match=r"loads no gptq folder of a Blip2ForConditionalGeneration.*compressed-ten"
    ):
        export_checkpoint(exported / "checkpoints" / name, format_name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
