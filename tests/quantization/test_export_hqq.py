"""Exports to hqq: what the package itself makes of them."""

import json
import re
from pathlib import Path

import pytest
import torch
from hqq.core.quantize import HQQLinear
from torch import nn

from exports import inputs_of, logits_of
from quantrust.errors import QuantrustError
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.export import export_checkpoint
from quantrust.quantization.export_layer import ExportLayer
from quantrust.quantization.formats import hqq
from quantrust.quantization.grid import QuantizedWeight, storage_dtype
from quantrust.quantization.linear import QuantizedLinear
from quantrust.quantization.quantize import quantize_model

LINES_THAT_LOAD = re.search(
    r"```python\n(import torch\nfrom accelerate .*?)```",
    (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text(encoding="utf-8"),
    re.DOTALL,
)[1]


def loaded(folder: Path) -> nn.Module:
    """The model that the lines of the documentation make of a folder."""
    lines = LINES_THAT_LOAD.replace('"exported/qwen2-vl-tiny-hqq"', repr(str(folder)))
    assert lines != LINES_THAT_LOAD
    names: dict = {}
    exec(lines, names)
    return names["model"]


@pytest.mark.parametrize(
    ("family", "scheme"),
    [
        ("qwen2_vl", "hqq-w4g64-full"),
        ("idefics3", "hqq-w3g64"),
        ("idefics3", "hqq-w2g32-mixed"),
        ("qwen2_vl", "rtn-w5c"),
    ],
)
def test_hqq_computes_what_the_checkpoint_does(family, scheme, model_folders, pictures, tmp_path):
    folder, out = tmp_path / "checkpoint", tmp_path / "out"
    quantize_model(model_folders[family], scheme, None, folder)
    report = export_checkpoint(folder, "hqq", out)
    found = loaded(out)
    ours = load_checkpoint(folder)[1]
    linears = {name: module for name, module in ours.named_modules() if isinstance(module, QuantizedLinear)}
    assert len(linears) >= 21
    for name, module in linears.items():
        assert torch.equal(found.get_submodule(name).dequantize(), module.weight.dequantize(torch.float32))
    changes = {row["layer"]: row["relative_change"] for row in report["layers"]}
    assert {changes.pop(name) for name in linears} == {0.0}
    # what is left is an embedding, which hqq has no layer for
    assert all(0 < change < 2**-8 for change in changes.values())
    inputs = inputs_of(folder, pictures[0])
    expected = logits_of(ours, inputs)
    tolerance = 1e-5 if not changes else 2**-6
    torch.testing.assert_close(logits_of(found, inputs), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("rows", [3, 8])
def test_any_number_of_groups_is_packed_as_hqq_unpacks_it(bits, rows):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (rows, 48), generator=generator, dtype=torch.uint8)
    scale, zero = (torch.rand(2, rows, 3, generator=generator) * 3 + 0.01).to(storage_dtype(bits))
    weight = QuantizedWeight(codes, scale, zero, bits, 16)
    encoded = hqq.encode(ExportLayer("layer", weight, False, False))
    dense = rows * 3 % 4 == 0 and bits in (2, 4)
    if dense:
        assert encoded.tensors["W_q"].numel() == codes.numel() * bits // 8
    layer = HQQLinear(None, None, compute_dtype=torch.float32, device="cpu")
    bias = torch.arange(rows).bfloat16()
    layer.load_state_dict({**encoded.tensors, "bias": bias})
    assert torch.equal(layer.dequantize(), weight.dequantize())
    assert torch.equal(layer(torch.zeros(2, 48)), bias.float().expand(2, rows))
    assert (layer.in_features, layer.out_features) == (48, rows)


def test_what_is_written_are_the_entries_of_a_layer_that_hqq_quantized(model_folders, tmp_path):
    quantize_model(model_folders["qwen2_vl"], "hqq-w4g64", None, tmp_path / "checkpoint")
    export_checkpoint(tmp_path / "checkpoint", "hqq", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    settings = config["quant_config"]
    layer = HQQLinear(nn.Linear(64, 8), settings, compute_dtype=torch.float32, device="cpu")
    weight = QuantizedWeight(torch.zeros(8, 64, dtype=torch.uint8), torch.ones(8, 1), torch.ones(8, 1), 4, 64)
    written = hqq.encode(ExportLayer("layer", weight, False, False)).tensors
    own = layer.state_dict()
    assert written.keys() == own.keys() - {"bias"}
    for name, tensor in written.items():
        assert (tensor.dtype, tensor.shape) == (own[name].dtype, own[name].shape), name
        if name not in ("W_q", "scale", "zero"):
            assert torch.equal(tensor, own[name]), name
    assert "lm_head" in config["skip_modules"]


def test_layers_of_several_grids_are_told_apart_in_the_config(model_folders, tmp_path):
    quantize_model(model_folders["idefics3"], "hqq-w4g64-mixed", None, tmp_path / "checkpoint")
    export_checkpoint(tmp_path / "checkpoint", "hqq", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    bits = {name: settings["weight_quant_params"]["nbits"] for name, settings in config["quant_config"].items()}
    assert bits["lm_head"] == 8 and bits["model.text_model.layers.0.mlp.up_proj"] == 4
    assert config["skip_modules"] == ["model.text_model.embed_tokens"]


def test_a_checkpoint_without_linears_is_refused():
    weight = QuantizedWeight(torch.zeros(8, 64, dtype=torch.uint8), torch.ones(8, 1), torch.ones(8, 1), 4, 64)
    with pytest.raises(QuantrustError, match="hqq holds linears alone, and this checkpoint quantizes none"):
        hqq.lay_out([ExportLayer("embed_tokens", weight, True, False)], [], False)
