"""Exported checkpoints: read by the formats' definitions, bit by bit, and loaded by `transformers`."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageTextToText

from exports import GPTQ_PYTHON, NEEDS_WHAT_LOADS, inputs_of, load_elsewhere, logits_of, save_tensors
from quantrust import named_modules
from quantrust.cli import main
from quantrust.errors import QuantrustError
from quantrust.named_modules import export_format_names
from quantrust.quantization import export
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.export import export_checkpoint, load_format
from quantrust.quantization.export_layer import Format, integer_zeros
from quantrust.quantization.grid import QuantizedWeight, percent
from quantrust.quantization.quantize import quantize_model

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ["qwen2_vl", "idefics3"]
LINES_THAT_LOAD = re.search(
    r"```python\n(from transformers import .*?)```",
    (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"),
    re.DOTALL,
)[1]
USE_WHAT_IS_LOADED = """
import json, torch
from PIL import Image
from safetensors.torch import load_file, save_file
inputs = load_file(folder + "/inputs")
text = tokenizer.decode(inputs["input_ids"][0])
assert tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids.equal(inputs["input_ids"])
pixels = image_processor(images=[[Image.open(folder + "/picture.png")]], return_tensors="pt")
assert {name for name in pixels if not pixels[name].equal(inputs[name])} == set()
with torch.no_grad():
    save_file({"logits": model(**inputs).logits.float().contiguous()}, folder + "/logits")
"""


def pythons():
    """This environment, and the one that the documentation names for exported folders."""
    yield pytest.param(sys.executable, id="project")
    yield pytest.param(GPTQ_PYTHON, id="export", marks=[pytest.mark.slow, NEEDS_WHAT_LOADS])


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("python", pythons())
def test_the_lines_of_the_documentation_load_a_folder(python, family_name, checkpoint, pictures, tmp_path):
    """Its tokenizer, pixels and logits are those of the checkpoint; neither environment has torchvision."""
    folder, out = checkpoint(family_name, "rtn-w3g64s-full"), tmp_path / "out"
    exported(folder, "compressed-tensors", out)
    inputs = inputs_of(folder, pictures[0])
    save_tensors(inputs, out / "inputs")
    pictures[0].save(out / "picture.png")
    placed = LINES_THAT_LOAD.replace('"exported/qwen2-vl-tiny"', repr(str(out)))
    assert placed != LINES_THAT_LOAD
    done = subprocess.run([python, "-c", placed + USE_WHAT_IS_LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = logits_of(load_checkpoint(folder)[1], inputs)
    found = load_file(out / "logits")["logits"]
    # the folder's own dtype is bfloat16
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@pytest.fixture(scope="session")
def checkpoint(model_folders, tmp_path_factory):
    """A function that quantizes a random model under a scheme, once."""
    made = {}

    def make(family, scheme, model_folder=None):
        key = (family, scheme, model_folder)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoints") / scheme
            quantize_model(model_folder or model_folders[family], scheme, None, made[key])
        return made[key]

    return make


def exported(folder, format_name, out, exact=False):
    report = export_checkpoint(folder, format_name, out, exact)
    assert report == json.loads((out / "export.json").read_text())
    return report


def loaded(folder, dtype=torch.float32):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not any(info.values()), info
    return model


def stored_weights(folder):
    """What each quantized layer of a checkpoint is, and its weight in float32."""
    record = json.loads((folder / "quantization.json").read_text())
    _, model, _, _ = load_checkpoint(folder)
    chosen = {layer["layer"]: layer for layer in record["layers"] if layer["bits"] is not None}
    return {name: (layer, model.get_submodule(name).weight.dequantize(torch.float32)) for name, layer in chosen.items()}


def stream(words, bits, count):
    """Codes of rows of 32-bit words: code i is the bits from i * bits on, least significant first."""
    rows = []
    for row in words.numpy().astype("<u4"):
        number = int.from_bytes(row.tobytes(), "little")
        rows.append([number >> i * bits & (1 << bits) - 1 for i in range(count)])
    return torch.tensor(rows)


def spread(per_group, columns):
    return per_group.repeat_interleave(columns // per_group.shape[1], dim=1).float()


def read_compressed_tensors(tensors, config, name):
    """Dequantize a layer by the definition of its format."""
    (group,) = (group for group in config["config_groups"].values() if name in group["targets"])
    arguments = group["weights"]
    bits, middle = arguments["num_bits"], 2 ** (arguments["num_bits"] - 1)
    scale = tensors[f"{name}.weight_scale"]
    if group["format"] == "pack-quantized":
        rows, columns = tensors[f"{name}.weight_shape"].tolist()
        values = stream(tensors[f"{name}.weight_packed"], bits, columns) - middle
    else:
        values = tensors[f"{name}.weight"].int()
        rows, columns = values.shape
    zeros = torch.zeros(rows, 1)
    if not arguments["symmetric"]:
        zeros = tensors[f"{name}.weight_zero_point"]
        if group["format"] == "pack-quantized":
            zeros = stream(zeros.T.contiguous(), bits, rows).T - middle
    groups = 1 if arguments["strategy"] == "channel" else columns // arguments["group_size"]
    assert scale.shape == (rows, groups) and zeros.shape[1] in (1, groups)
    return (values - spread(zeros, columns)) * spread(scale, columns)


def read_gptq(tensors, config, name):
    """Dequantize a layer by the definition of its format."""
    bits, offset = config["bits"], {"gptq": 1, "gptq_v2": 0}[config["checkpoint_format"]]
    scales, group_of = tensors[f"{name}.scales"], tensors[f"{name}.g_idx"]
    columns, rows = len(group_of), scales.shape[1]
    assert scales.dtype == torch.float16 and columns == scales.shape[0] * config["group_size"]
    codes = stream(tensors[f"{name}.qweight"].T.contiguous(), bits, columns).T
    zeros = stream(tensors[f"{name}.qzeros"], bits, rows) + offset
    return ((codes - zeros[group_of]).float() * scales[group_of].float()).T


READERS = {"compressed-tensors": read_compressed_tensors, "gptq": read_gptq}


@pytest.mark.parametrize("format_name", ["compressed-tensors", "gptq"])
@pytest.mark.parametrize("scheme", ["rtn-w4g64", "rtn-w3g64s-full", "rtn-w4g32-mixed", "rtn-w2c-full", "rtn-w8g64"])
def test_a_reader_of_the_definition_gets_the_weights_to_the_bit(format_name, scheme, checkpoint, tmp_path):
    folder = checkpoint("qwen2_vl", scheme)
    report = exported(folder, format_name, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    weights = stored_weights(folder)
    assert [row["layer"] for row in report["layers"]] == list(weights)
    held = [row["layer"] for row in report["layers"] if row["stored"] != "bfloat16"]
    assert len(held) >= (8 if format_name == "gptq" else len(weights))
    for name, (layer, weight) in weights.items():
        if name not in held:
            assert torch.equal(tensors[f"{name}.weight"], weight.bfloat16())
        elif format_name == "gptq" and layer["bits"] == 8:
            # the format has float16 scales only
            torch.testing.assert_close(read_gptq(tensors, config, name), weight, rtol=2**-11, atol=1e-7)
        else:
            assert torch.equal(READERS[format_name](tensors, config, name), weight)


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("scheme", ["rtn-w3g64s-full", "rtn-w4g32-mixed", "hqq-w8g64"])
def test_transformers_loads_compressed_tensors_and_computes_the_same(
    family_name, scheme, checkpoint, pictures, tmp_path
):
    folder = checkpoint(family_name, scheme)
    exported(folder, "compressed-tensors", tmp_path / "out")
    inputs = inputs_of(folder, pictures[0])
    expected = logits_of(load_checkpoint(folder)[1], inputs)
    assert torch.equal(logits_of(loaded(tmp_path / "out"), inputs), expected)


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("scheme", ["rtn-w4g64-full", "rtn-w3c"])
def test_packed_asymmetric_layers_differ_by_the_rounding_of_float16(
    family_name, scheme, checkpoint, pictures, tmp_path
):
    folder = checkpoint(family_name, scheme)
    report = exported(folder, "compressed-tensors", tmp_path / "out")
    assert {row["stored"] for row in report["layers"]} == {f"{scheme[5]} bits, asymmetric"}
    inputs = inputs_of(folder, pictures[0])
    expected = logits_of(load_checkpoint(folder)[1], inputs)
    found = logits_of(loaded(tmp_path / "out"), inputs)
    # transformers multiplies in the scales' float16: 2^-11 a weight, over a dozen layers
    torch.testing.assert_close(found, expected, rtol=0, atol=2**-9 * float(expected.abs().max()))
    changes = [row["relative_change"] for row in report["layers"]]
    assert all(0 < change < 2**-11 for change in changes)
    assert (
        f"float16 change the weights of {len(changes)} layers by at most {percent(max(changes), 3)}"
        in report["notes"][0]
    )


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("scheme", ["hqq-w3g64-full", "hqq-w4g64-mixed", "rtn-w4g64-full"])
def test_an_exact_export_computes_the_same(family_name, scheme, checkpoint, pictures, tmp_path):
    folder = checkpoint(family_name, scheme)
    report = exported(folder, "compressed-tensors", tmp_path / "out", exact=True)
    assert all(row["relative_change"] == 0 for row in report["layers"])
    inputs = inputs_of(folder, pictures[0])
    expected = logits_of(load_checkpoint(folder)[1], inputs)
    assert torch.equal(logits_of(loaded(tmp_path / "out"), inputs), expected)


@pytest.mark.parametrize("format_name", ["compressed-tensors", "gptq"])
def test_rounded_zeros_are_said_and_measured(format_name, checkpoint, tmp_path):
    folder = checkpoint("idefics3", "hqq-w3g64")
    report = exported(folder, format_name, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    changes = []
    for row, (layer, weight) in zip(report["layers"], stored_weights(folder).values(), strict=True):
        found = READERS[format_name](tensors, config, row["layer"])
        changes.append(float((found - weight).norm() / weight.norm()))
        assert row["zeros_rounded"] and row["relative_error"] == layer["relative_error"]
        # the reader here multiplies in float32, transformers in the float16 of the scales: 2^-11 a weight
        rounding = 2**-11 if format_name == "compressed-tensors" else 1e-6
        assert row["relative_change"] == pytest.approx(changes[-1], rel=0, abs=rounding)
    changes = [row["relative_change"] for row in report["layers"]]
    assert 0.05 < max(changes) < 0.5
    assert f"float zero-points of {len(changes)} layers are rounded to integers" in report["notes"][0]
    assert f"({percent(max(changes), 2)})" in report["notes"][0]


@pytest.mark.parametrize("exact", [False, True])
def test_the_config_names_the_widest_dtype_of_weights_that_are_not_packed(exact, tied, checkpoint, tmp_path):
    """A tied head is dequantized; exactly, that takes float32."""
    export_checkpoint(checkpoint("qwen2_vl", "rtn-w4g64-full", tied), "compressed-tensors", tmp_path / "out", exact)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    embedding = load_file(tmp_path / "out" / "model.safetensors")["model.language_model.embed_tokens.weight"]
    assert embedding.dtype == (torch.float32 if exact else torch.bfloat16)
    assert f"torch.{config['dtype']}" == str(embedding.dtype)


@pytest.mark.parametrize("format_name", ["compressed-tensors", "gptq"])
def test_a_tied_head_stays_tied_and_in_bfloat16(format_name, tied, checkpoint, pictures, tmp_path):
    folder = checkpoint("qwen2_vl", "rtn-w4g64-full", tied)
    out = tmp_path / "out"
    report = exported(folder, format_name, out)
    stored = load_file(out / "model.safetensors")
    embedding = "model.language_model.embed_tokens"
    assert "lm_head.weight" not in stored and stored[f"{embedding}.weight"].dtype == torch.bfloat16
    (row,) = (row for row in report["layers"] if row["layer"] == embedding)
    assert 0 < row["relative_change"] < 2**-8
    assert sum(note.startswith("in bfloat16 (") for note in report["notes"]) == (1 if format_name != "gptq" else 2)
    if format_name == "compressed-tensors":
        inputs = inputs_of(folder, pictures[0])
        expected = logits_of(load_checkpoint(folder)[1], inputs)
        torch.testing.assert_close(logits_of(loaded(out), inputs), expected, rtol=0, atol=0.02)


def test_linears_of_subclasses_that_are_not_quantized_are_named_to_the_reader(checkpoint, monkeypatch, tmp_path):
    name = "model.visual.blocks.0.mlp.fc1"

    class OtherLinear(nn.Linear):
        """A class of a library's own."""

    def loaded_with_other(*args):
        family, model, processor, record = load_checkpoint(*args)
        model.get_submodule(name).__class__ = OtherLinear
        return family, model, processor, record

    monkeypatch.setattr(export, "load_checkpoint", loaded_with_other)
    exported(checkpoint("qwen2_vl", "rtn-w4g64"), "compressed-tensors", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert name in config["ignore"]


def test_gptq_leaves_what_its_loader_does_not_find_and_what_is_on_another_grid(checkpoint, tmp_path):
    report = exported(checkpoint("qwen2_vl", "rtn-w4g64-mixed"), "gptq", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    reasons = {row["layer"]: row["reason"] for row in report["layers"]}
    # the language model at 4 bits would save less than vision at 8 on a model this small
    assert (config["bits"], config["group_size"], config["sym"]) == (8, 64, False)
    assert config["modules_in_block_to_quantize"] == [[name for name, reason in reasons.items() if reason is None]]
    assert reasons["model.visual.merger.mlp.0"] == "the gptq loader does not find layers of a sequence"
    assert reasons["model.language_model.embed_tokens"] == "gptq holds no embedding"
    assert reasons["model.language_model.layers.0.mlp.up_proj"] == (
        "gptq holds one grid a model, here 8 bits in groups of 64"
    )
    assert reasons["lm_head"] == "rows or columns do not fill 32-bit words"


def test_gptq_cuts_groups_to_a_size_that_all_layers_have(checkpoint, tmp_path):
    exported(checkpoint("qwen2_vl", "rtn-w2c-full"), "gptq", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["group_size"] == 64


def test_gptq_takes_its_second_version_for_zeros_of_0(model_folders, tmp_path):
    positive = tmp_path / "positive"
    shutil.copytree(model_folders["idefics3"], positive)
    tensors = load_file(positive / "model.safetensors")
    name = "model.text_model.layers.0.mlp.up_proj"
    tensors[f"{name}.weight"].abs_()
    save_file(tensors, positive / "model.safetensors", metadata={"format": "pt"})
    for model, version in ((positive, "gptq_v2"), (model_folders["idefics3"], "gptq")):
        folder, out = tmp_path / f"checkpoint-{version}", tmp_path / f"out-{version}"
        quantize_model(model, "rtn-w4g64", None, folder)
        report = exported(folder, "gptq", out)
        config = json.loads((out / "config.json").read_text())["quantization_config"]
        assert config["checkpoint_format"] == version
        assert any("gptq_v2" in note for note in report["notes"]) == (version == "gptq_v2")
        assert torch.equal(
            read_gptq(load_file(out / "model.safetensors"), config, name), stored_weights(folder)[name][1]
        )


def test_an_export_is_the_same_bytes_again(checkpoint, tmp_path):
    for name in ("one", "two"):
        exported(checkpoint("idefics3", "hqq-w4g64-mixed"), "compressed-tensors", tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "tokenizer.json" in files and "chat_template.jinja" in files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_integer_zeros_take_the_better_grid_of_each_group():
    # values of the groups: -1.4 .. 1.6 (a zero between codes) and 5 .. 8 (a zero below the codes)
    codes = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]], dtype=torch.uint8)
    weight = QuantizedWeight(codes, torch.ones(1, 2).half(), torch.tensor([[1.4, -5]]).half(), 2, 4)
    found = integer_zeros(weight)
    # in the first 1.4 becomes 1; the second is spread over 0 .. 8, as its grid has no zero of -5
    assert found.zero.tolist() == [[1, 0]]
    assert found.scale[0, 1] == torch.tensor(8 / 3).half()
    assert found.codes.tolist() == [[0, 1, 2, 3, 2, 2, 3, 3]]


def test_integer_zeros_leave_integer_zeros_alone():
    weight = QuantizedWeight(
        torch.tensor([[0, 1, 2, 3]], dtype=torch.uint8), torch.ones(1, 1).half(), torch.full((1, 1), 3.0).half(), 2, 4
    )
    assert integer_zeros(weight) is weight


def test_tiny_constant_groups_become_a_step_of_an_integer_zero():
    # 9 and -17 halves of the least float16 scale, exact by their zeros, beside a group that is on an integer grid
    least = 2.0**-24
    codes = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 0, 7, 15, 8]], dtype=torch.uint8)
    scale, zero = torch.tensor([[least, least, 0.5]]).half(), torch.tensor([[-3.5, 8.5, 4]]).half()
    found = integer_zeros(QuantizedWeight(codes, scale, zero, 4, 4))
    assert found.zero.tolist() == [[0, 1, 4]]
    assert (found.scale.float() / torch.tensor([least, least, 0.5])).tolist() == [[4, 8, 1]]
    assert found.codes.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0, 7, 15, 8]]
    # nothing but such groups: they would lose a tenth and stay as they are
    alone = QuantizedWeight(codes[:, :8], scale[:, :2], zero[:, :2], 4, 4)
    assert integer_zeros(alone) is alone


@pytest.mark.parametrize(
    ("scheme", "format_name", "exact", "message"),
    [
        ("bf16", "compressed-tensors", False, "scheme bf16 quantizes nothing"),
        ("rtn-w5g64", "gptq", False, r"gptq holds 2, 3, 4, 8 bits, but \S+ has 5; export it as compressed-tensors"),
        ("rtn-w4g16", "gptq", False, "gptq holds no groups of 16: 21 layers"),
        ("rtn-w4g64", "gptq", True, "gptq rounds .* so an export cannot be exact; choose compressed-tensors"),
        ("rtn-w4g64", "onnx", False, "format 'onnx' does not exist; allowed: compressed-tensors, gptq, hqq"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(scheme, format_name, exact, message, checkpoint, tmp_path):
    with pytest.raises(QuantrustError, match=message):
        export_checkpoint(checkpoint("qwen2_vl", scheme), format_name, tmp_path / "out", exact)
    assert not list(tmp_path.iterdir())


LAYER = "model.text_model.layers.{}.mlp.up_proj"


@pytest.fixture(scope="session")
def damaged(model_folders, tmp_path_factory):
    """A function that puts other weights into a random model and quantizes it: by layer, what a weight becomes."""

    def make(scheme, **changes):
        folder = tmp_path_factory.mktemp("damaged")
        shutil.copytree(model_folders["idefics3"], folder / "model")
        tensors = load_file(folder / "model" / "model.safetensors")
        for block, change in changes.items():
            name = f"{LAYER.format(block.removeprefix('block_'))}.weight"
            tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, folder / "model" / "model.safetensors", metadata={"format": "pt"})
        quantize_model(folder / "model", scheme, None, folder / "checkpoint")
        return folder / "checkpoint"

    return make


@pytest.fixture(scope="session")
def extreme(damaged):
    """A checkpoint of 8 bits whose blocks have scales of 1e-12, of 1e-6 and of 1e7: float16 has none of them."""
    return damaged(
        "rtn-w8g64", **{f"block_{block}": lambda w, f=f: w * f for block, f in enumerate((1e-9, 1e-3, 1e10))}
    )


def read_back(folder, out, format_name, name):
    """The relative change of a layer, and what there is of it in the file, as a reader of the definition gets it."""
    tensors = load_file(out / "model.safetensors")
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    weight = stored_weights(folder)[name][1].double()
    dense = tensors.get(f"{name}.weight")
    held = dense is not None and dense.dtype == torch.bfloat16
    found = dense if held else READERS[format_name](tensors, config, name)
    return float((found.double() - weight).norm() / weight.norm()), held


def test_layers_whose_scales_float16_cannot_hold_stay_in_bfloat16_and_are_named(extreme, tmp_path):
    report = exported(extreme, "gptq", tmp_path / "out")
    small, large = "scales are too small for float16", "a scale exceeds float16"
    reasons = {row["layer"]: row["reason"] for row in report["layers"]}
    assert [reasons[LAYER.format(block)] for block in range(3)] == [small, small, large]
    assert sum(reason is None for reason in reasons.values()) > 10
    (said,) = (note for note in report["notes"] if small in note)
    assert f"2 layers ({LAYER.format(0)}, {LAYER.format(1)})" in said
    (said,) = (note for note in report["notes"] if large in note)
    assert f"1 layer ({LAYER.format(2)})" in said
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert all(scales.all() and scales.isfinite().all() for name, scales in tensors.items() if "scales" in name)
    for row in report["layers"]:
        change, held = read_back(extreme, tmp_path / "out", "gptq", row["layer"])
        assert held == (row["reason"] is not None) and change < 2**-8
        assert row["relative_change"] == pytest.approx(change, rel=0.01, abs=1e-6)


def test_scales_of_any_size_pass_compressed_tensors(extreme, tmp_path):
    report = exported(extreme, "compressed-tensors", tmp_path / "out")
    assert {row["relative_change"] for row in report["layers"]} == {0.0}
    for block in range(3):
        assert read_back(extreme, tmp_path / "out", "compressed-tensors", LAYER.format(block)) == (0.0, False)


def some_tiny_groups(weight):
    weight = weight.clone()
    weight[:5, :64], weight[5:9, :64] = 1e-6, -3e-5
    return weight


def a_tiny_value_a_row(weight):
    return torch.linspace(-2e-7, 3e-7, len(weight)).bfloat16().float()[:, None].expand_as(weight)


@pytest.mark.parametrize("format_name", ["compressed-tensors", "gptq"])
def test_tiny_constant_groups_are_read_as_they_are_reported(format_name, damaged, tmp_path):
    """Their zero-points are floats in every checkpoint of 4 bits, far outside the codes."""
    folder = damaged("rtn-w4g64", block_0=some_tiny_groups, block_1=a_tiny_value_a_row)
    report = exported(folder, format_name, tmp_path / "out")
    few, only = (next(row for row in report["layers"] if row["layer"] == LAYER.format(block)) for block in range(2))
    # a few groups are not worth the whole layer; where there is nothing else the format must hold floats, or it stays
    assert few["stored"].startswith("4 bits" if format_name == "gptq" else "5 bits")
    assert only["stored"] == (
        "bfloat16" if format_name == "gptq" else "4 bits, asymmetric, a byte each, float zero-points"
    )
    for row in (few, only):
        change, held = read_back(folder, tmp_path / "out", format_name, row["layer"])
        assert held == (row["stored"] == "bfloat16") and change < 1e-6
        assert row["relative_change"] == pytest.approx(change, rel=0, abs=1e-6)


def test_weights_beyond_float16_are_not_left_to_a_reader_that_computes_in_it(damaged, tmp_path):
    folder = damaged("rtn-w4g64", block_0=lambda weight: weight * 1e6)
    assert float(stored_weights(folder)[LAYER.format(0)][1].abs().max()) > torch.finfo(torch.float16).max
    report = exported(folder, "compressed-tensors", tmp_path / "out")
    assert {(row["stored"], row["relative_change"]) for row in report["layers"]} == {("5 bits, symmetric", 0.0)}


def offer(monkeypatch, form):
    """Let a format be found under the name `lossy`."""
    known = load_format
    monkeypatch.setattr(export, "load_format", lambda name: form if name == "lossy" else known(name))


def lossy(factor):
    """The compressed-tensors format with a scale in one layer that is wrong by a factor."""

    def lay_out(layers, linears, exact):
        layout = load_format("compressed-tensors").lay_out(layers, linears, exact)
        name = LAYER.format(1)
        encode = layout.encoders[name]

        def damage(layer):
            encoded = encode(layer)
            return replace(encoded, weight=replace(encoded.weight, scale=encoded.weight.scale * factor))

        return replace(layout, encoders=layout.encoders | {name: damage})

    return replace(load_format("compressed-tensors"), lay_out=lay_out)


@pytest.mark.parametrize("scheme", ["rtn-w4g64", "hqq-w3g64"])
def test_a_layer_that_changes_by_more_than_a_tenth_is_an_error(scheme, checkpoint, monkeypatch, tmp_path):
    folder = checkpoint("idefics3", scheme)
    offer(monkeypatch, lossy(1.2))
    with pytest.raises(
        QuantrustError, match=rf"1 layer would change by more than 10 %.*{LAYER.format(1)} \(20 %\).*--force"
    ):
        export_checkpoint(folder, "lossy", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    report = export_checkpoint(folder, "lossy", tmp_path / "out", force=True)
    (said,) = (note for note in report["notes"] if note.startswith("more than 1 % on top of quantization"))
    assert f"changes in {1 if scheme.startswith('rtn') else len(report['layers'])} layer" in said
    assert LAYER.format(1) in said


def test_a_layer_that_changes_by_more_than_a_hundredth_is_named(checkpoint, monkeypatch, tmp_path):
    offer(monkeypatch, lossy(1.02))
    report = export_checkpoint(checkpoint("idefics3", "rtn-w4g64"), "lossy", tmp_path / "out")
    assert f"more than 1 % on top of quantization changes in 1 layer: {LAYER.format(1)} (2.00 %)" in report["notes"]


def test_what_a_reader_would_not_find_finite_is_never_written(checkpoint, monkeypatch, tmp_path):
    offer(monkeypatch, lossy(float("inf")))
    with pytest.raises(QuantrustError, match=rf"cannot hold the weights of {LAYER.format(1)}"):
        export_checkpoint(checkpoint("idefics3", "rtn-w4g64"), "lossy", tmp_path / "out", force=True)
    assert not list(tmp_path.iterdir())


def test_the_command_offers_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = capsys.readouterr().out
    assert (
        "{compressed-tensors,gptq,hqq}" in shown
        and "\n  gptq                The GPTQ format: 2, 3, 4 or 8 bits" in shown
    )
    assert all(isinstance(load_format(name), Format) for name in export_format_names())


def test_a_format_is_its_module(monkeypatch):
    """Found by its name alone, with hyphens for underscores."""
    monkeypatch.setattr(named_modules, "module_names", lambda package: ["other_form"])
    with pytest.raises(QuantrustError, match="format 'gptq' does not exist; allowed: other-form"):
        load_format("gptq")
    module = SimpleNamespace(FORMAT="none")
    monkeypatch.setattr(export, "load_module", lambda package, name, required: module if name == "other_form" else None)
    with pytest.raises(QuantrustError, match="format other-form: FORMAT is a str, expected the record of a format"):
        load_format("other-form")


def pins_of(path):
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("-r"))


def test_the_environment_that_loads_exports_has_the_pins_of_its_requirements_and_of_the_project():
    declared = yaml.safe_load((ROOT / "envs" / "export.yaml").read_text())["dependencies"]
    conda = dict(entry.split("=") for entry in declared if "=" in entry)
    assert conda.pop("python") == "3.11"
    (pip,) = (entry["pip"] for entry in declared if isinstance(entry, dict))
    required = pins_of(ROOT / "requirements-export.txt")
    assert conda | dict(entry.split("==") for entry in pip) == required
    own = pins_of(ROOT / "requirements.txt") | pins_of(ROOT / "requirements-dev.txt")
    # gptqmodel asks for this very version, which is why the environment is a separate one
    differing = {package for package, version in required.items() if own.get(package, version) != version}
    assert differing == {"numpy"}


@pytest.mark.slow
@NEEDS_WHAT_LOADS
def test_transformers_loads_gptq_and_computes_the_same(checkpoint, pictures, tmp_path):
    schemes = ["rtn-w4g64-full", "rtn-w3g64s-full", "rtn-w2g32-mixed", "rtn-w8g64", "rtn-w4c"]
    expected = {}
    for family, scheme in product(FAMILIES, schemes):
        folder, out = checkpoint(family, scheme), tmp_path / f"{family}-{scheme}"
        report = exported(folder, "gptq", out)
        inputs = inputs_of(folder, pictures[0])
        save_tensors(inputs, out / "inputs")
        layers = sorted(row["layer"] for row in report["layers"] if row["reason"] is None)
        expected[out] = layers, logits_of(load_checkpoint(folder)[1], inputs)
    for out, (keys, packed) in load_elsewhere([*expected]).items():
        layers, logits = expected[out]
        assert keys == {}
        assert sorted(packed) == layers
        # gptqmodel computes in bfloat16 or float16 whatever the model's dtype
        found = load_file(out / "logits")["logits"]
        torch.testing.assert_close(found, logits, rtol=0, atol=0.03 * float(logits.abs().max()))


def test_scales_of_8_bits_that_gptq_rounds_are_said_and_measured(checkpoint, tmp_path):
    report = exported(checkpoint("qwen2_vl", "rtn-w8g64-full"), "gptq", tmp_path / "out")
    changes = [row["relative_change"] for row in report["layers"] if row["reason"] is None]
    assert all(0 < change < 2**-11 for change in changes)
    assert (
        f"float16 change the weights of {len(changes)} layers by at most {percent(max(changes), 3)}"
        in report["notes"][0]
    )
