"""Exported folders against what the loaders of vLLM and SGLang read of them; neither can be run here.

The expectations were read in vllm-project/vllm (`compressed_tensors/utils.py`, `utils/gptq_utils.py` and the config of
GPTQ below `vllm/model_executor/layers/quantization`) and sgl-project/sglang (`compressed_tensors/utils.py`,
`compressed_tensors/compressed_tensors.py`, `compressed_tensors/schemes/compressed_tensors_wNa16.py` and `gptq.py` below
`python/sglang/srt/layers/quantization`). What differs in SGLang: a name of the ignore list counts as a part of a name,
in any case of letters; packed layers have 4 or 8 bits; its GPTQ has no list of quantized layers. How either server
renames the layers of each family was not followed.
"""

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.export import export_checkpoint
from quantrust.quantization.export_layer import notes_on_fused
from quantrust.quantization.quantize import quantize_model

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Their `packed_modules_mapping` of the language models here."""
PACKED_BITS = (4, 8)
"""What both have kernels for in symmetric `pack-quantized` layers; vLLM has kernels of other bits too."""


def exported(model_folder, scheme, format_name, tmp_path):
    """The linears of the model, the tensors of an export and its `quantization_config`."""
    quantize_model(model_folder, scheme, None, tmp_path / "checkpoint")
    export_checkpoint(tmp_path / "checkpoint", format_name, tmp_path / "out")
    with torch.device("meta"):
        _, model = build_skeleton(model_folder)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    return linears, load_file(tmp_path / "out" / "model.safetensors"), config


def fused_modules(linears):
    """The names of the linears that become one, for every such module of a model."""
    found = []
    for name in linears:
        parent, _, leaf = name.rpartition(".")
        found += [[f"{parent}.{part}" for part in parts] for parts in FUSED.values() if leaf == parts[0]]
    assert len(found) >= 6
    return found


def parts_of(tensors, name):
    pattern = re.compile(rf"{re.escape(name)}\.(\w+)")
    return {match[1] for key in tensors if (match := pattern.fullmatch(key))} - {"bias"}


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3"])
@pytest.mark.parametrize("scheme", ["rtn-w4g64s", "rtn-w8g32s-full"])
def test_compressed_tensors_as_servers_read_it(family, scheme, model_folders, tmp_path):
    linears, tensors, config = exported(model_folders[family], scheme, "compressed-tensors", tmp_path)
    assert config["quant_method"] == "compressed-tensors" and config["quantization_status"] == "compressed"
    groups = {name: group for group in config["config_groups"].values() for name in group["targets"]}
    assert sum(len(group["targets"]) for group in config["config_groups"].values()) == len(groups)
    for name in linears:
        # a server looks into the list first, vLLM by whole names, and SGLang by parts of names
        assert (name in groups) != (name in config["ignore"])
        assert (name in groups) != any(ignored.lower() in name.lower() for ignored in config["ignore"])
        if name not in groups:
            assert parts_of(tensors, name) == {"weight"}
            continue
        weights = groups[name]["weights"]
        assert parts_of(tensors, name) == {"weight_packed", "weight_scale", "weight_shape"}
        assert groups[name]["format"] == config["format"] == "pack-quantized" or scheme.endswith("-full")
        assert weights["type"] == "int" and weights["num_bits"] in PACKED_BITS and weights["symmetric"] is True
        assert weights["strategy"] in ("group", "channel")
        assert groups[name].get("input_activations") is None
    for names in fused_modules(linears):
        assert len({json.dumps(groups.get(name)) for name in names}) == 1


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3"])
def test_gptq_as_servers_read_it(family, model_folders, tmp_path):
    linears, tensors, config = exported(model_folders[family], "rtn-w4g64s", "gptq", tmp_path)
    # each of these is asked for by its name, and an error where it is missing
    assert (config["bits"], config["group_size"], config["desc_act"], config["sym"]) == (4, 64, False, True)
    assert config["checkpoint_format"] == "gptq" and config["quant_method"] == "gptq"
    (quantized,) = config["modules_in_block_to_quantize"]
    for name in linears:
        # a server takes a layer for quantized if one of these is a part of its name
        read = any(part in name for part in quantized)
        assert read == (name in quantized)
        assert parts_of(tensors, name) == ({"qweight", "qzeros", "scales", "g_idx"} if read else {"weight"})
        if read:
            assert tensors[f"{name}.qweight"].dtype == torch.int32 and tensors[f"{name}.scales"].dtype == torch.half
            assert tensors[f"{name}.qweight"].shape[1] % (32 // 4) == 0
    for names in fused_modules(linears):
        assert len({name in quantized for name in names}) == 1


def test_linears_that_servers_join_and_that_are_stored_in_different_ways_are_noted():
    stored = {f"block.{name}": "4 bits" for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")}
    assert notes_on_fused(stored) == []
    assert notes_on_fused(stored | {"block.down_proj": "8 bits"}) == []
    (note,) = notes_on_fused(stored | {"block.k_proj": "8 bits"})
    assert note.startswith("q_proj, k_proj, v_proj are stored in different ways in 1 modules; vLLM and SGLang join")
    (note,) = notes_on_fused(stored | {"block.up_proj": None})
    assert note.startswith("gate_proj, up_proj are stored in different ways")
