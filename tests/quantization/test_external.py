"""Checkpoints that others quantized: values are those of the libraries, and what cannot be held is refused."""

import json
import logging
import re
import shutil
import subprocess

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from safetensors.torch import load_file, save_file
from torch import nn

from exports import GPTQ_PYTHON, inputs_of, logits_of
from foreign import LAYERS, awq_layer, change, gptq_layer, grid_of, stored, write_folder
from quantrust.artifacts.folder_record import write_record
from quantrust.errors import QuantrustError
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.checkpoint import load_checkpoint, planned_bytes
from quantrust.quantization.export import export_checkpoint
from quantrust.quantization.external import import_checkpoint, open_external
from quantrust.quantization.quantize import quantize_model

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"]}


@pytest.fixture(scope="module")
def base(model_folders):
    return model_folders["qwen2_vl"]


@pytest.fixture(scope="module")
def weights(base):
    """The float weights of the layers that are quantized."""
    tensors = load_file(base / "model.safetensors")
    return {name: tensors[f"{stored(name)}.weight"] for name in LAYERS}


def imported(base, folder, tmp_path):
    """The model of a checkpoint that is made of a folder."""
    import_checkpoint(base, folder, "others", tmp_path / "checkpoint")
    return load_checkpoint(tmp_path / "checkpoint")[1]


def require_values(model, expected, dtype=torch.float32):
    for name, values in expected.items():
        assert torch.equal(model.get_submodule(name).weight.dequantize(dtype), values), name


@pytest.mark.parametrize(
    ("bits", "version", "seed", "dtype"),
    [
        (4, "gptq", None, torch.float16),
        (4, "gptq", 1, torch.float16),
        (3, "gptq_v2", 2, torch.bfloat16),
        (2, "gptq", 3, torch.float32),
        (8, "gptq_v2", None, torch.float16),
    ],
)
def test_gptq_by_its_definition(bits, version, seed, dtype, base, weights, tmp_path):
    """With a seed, `desc_act`: the groups are no runs of input channels."""
    made = {name: gptq_layer(weight, bits, 32, version, seed, dtype) for name, weight in weights.items()}
    config = GPTQ | {"bits": bits, "checkpoint_format": version, "desc_act": seed is not None}
    folder = write_folder(base, tmp_path / "folder", config, {name: parts for name, (parts, _) in made.items()})
    model = imported(base, folder, tmp_path)
    require_values(model, {name: values for name, (_, values) in made.items()})
    assert all((model.get_submodule(name).weight.order is None) == (seed is None) for name in LAYERS)


DEQUANTIZE = """
import sys, torch
from safetensors.torch import load_file, save_file
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module
for path in sys.argv[1:]:
    parts = load_file(path)
    bits, first = (int(parts.pop(name)) for name in ("bits", "first"))
    if "g_idx" not in parts:
        weight = dequantize_gemm(parts["qweight"], parts["qzeros"], parts["scales"], bits, 32)
        save_file({"weight": weight.T.contiguous()}, path + ".read")
        continue
    rows, columns = parts["scales"].shape[1], len(parts["g_idx"])
    layer = TorchLinear(bits=bits, group_size=32, sym=False, desc_act=True, in_features=columns, out_features=rows,
                        bias=False, pack_dtype=torch.int32, register_buffers=True)
    layer.load_state_dict(parts)
    if first:
        convert_gptq_v1_to_v2_format_module(layer, bits, torch.int32)
    layer.post_init()
    save_file({"weight": layer.dequantize_weight().T.contiguous()}, path + ".read")
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not GPTQ_PYTHON.exists(), reason="needs .venv-export with requirements-export.txt: `make test-slow` makes it"
)
def test_gptq_and_awq_as_gptqmodel_reads_them(base, weights, tmp_path):
    """Bit by bit, in the float16 in which it computes."""
    paths, cases = [], []
    versions = [(2, "gptq_v2", 1), (3, "gptq", None), (4, "gptq", 2), (8, "gptq_v2", None), (4, "awq", None)]
    for bits, version, seed in versions:
        made, config = {name: awq_layer(weight, 32)[0] for name, weight in weights.items()}, AWQ
        if version != "awq":
            made = {name: gptq_layer(weight, bits, 32, version, seed)[0] for name, weight in weights.items()}
            config = GPTQ | {"bits": bits, "checkpoint_format": version, "desc_act": seed is not None}
        folder = write_folder(base, tmp_path / f"folder-{bits}-{version}", config, made)
        import_checkpoint(base, folder, "others", tmp_path / f"checkpoint-{bits}-{version}")
        model = load_checkpoint(tmp_path / f"checkpoint-{bits}-{version}")[1]
        for number, (name, parts) in enumerate(made.items()):
            said = {"bits": torch.tensor(bits), "first": torch.tensor(int(version == "gptq"))}
            paths.append(tmp_path / f"{bits}-{version}-{number}")
            save_file({key: part.contiguous() for key, part in (parts | said).items()}, paths[-1])
            cases.append(model.get_submodule(name).weight.dequantize(torch.float16))
    done = subprocess.run([GPTQ_PYTHON, "-c", DEQUANTIZE, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for path, expected in zip(paths, cases, strict=True):
        assert torch.equal(load_file(f"{path}.read")["weight"], expected), path.name


def test_awq_by_its_definition(base, weights, tmp_path):
    made = {name: awq_layer(weight, 32) for name, weight in weights.items()}
    folder = write_folder(base, tmp_path / "folder", AWQ, {name: parts for name, (parts, _) in made.items()})
    require_values(imported(base, folder, tmp_path), {name: values for name, (_, values) in made.items()})


@pytest.mark.parametrize(
    ("bits", "symmetric", "strategy", "dtype"),
    [
        (4, True, "group", torch.float16),
        (4, False, "group", torch.bfloat16),
        (3, False, "channel", torch.float16),
        (8, True, "channel", torch.bfloat16),
        (5, True, "tensor", torch.float32),
    ],
)
def test_compressed_tensors_as_its_own_library_reads_it(bits, symmetric, strategy, dtype, base, weights, tmp_path):
    """Bit by bit, in the dtype of the scales, in which the library computes."""
    sizes = {"group_size": 32} if strategy == "group" else {}
    arguments = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy, **sizes}
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    library = BaseCompressor.get_value_from_registry("pack-quantized")
    layers, expected = {}, {}
    for name, weight in weights.items():
        shaped = weight.reshape(1, -1) if strategy == "tensor" else weight
        size = 32 if strategy == "group" else shaped.shape[1]
        _, scale, zero = grid_of(shaped, bits, size, symmetric, dtype)
        state = {"weight": weight.to(dtype), "weight_scale": scale.flatten() if strategy == "tensor" else scale}
        if not symmetric:
            state["weight_zero_point"] = (zero - 2 ** (bits - 1)).to(torch.int8)
        layers[name] = library.compress(state, scheme)
        expected[name] = library.decompress(layers[name], scheme)["weight"]
        assert expected[name].dtype == dtype and (expected[name] - weight).abs().max() < weight.abs().max()
    group = {"targets": ["Linear"], "weights": arguments, "input_activations": None}
    folder = write_folder(base, tmp_path / "folder", COMPRESSED | {"config_groups": {"group_0": group}}, layers)
    require_values(imported(base, folder, tmp_path), expected, dtype)


def test_compressed_tensors_with_groups_by_activation_by_their_definition(base, weights, tmp_path):
    """The library of today no longer reads them: `weight_g_idx` gives the group of each input channel."""
    layers, expected = {}, {}
    for name, weight in weights.items():
        parts, expected[name] = gptq_layer(weight, 4, 32, "gptq_v2", seed=1)
        layers[name] = {
            "weight_packed": parts["qweight"].T,
            "weight_scale": parts["scales"].T,
            "weight_zero_point": parts["qzeros"].T,
            "weight_g_idx": parts["g_idx"],
            "weight_shape": torch.tensor(weight.shape),
        }
    arguments = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
    group = {"targets": ["Linear"], "weights": arguments | {"actorder": "group"}}
    folder = write_folder(base, tmp_path / "folder", COMPRESSED | {"config_groups": {"group_0": group}}, layers)
    require_values(imported(base, folder, tmp_path), expected)


@pytest.mark.parametrize(("bits", "dtype"), [(4, torch.bfloat16), (3, torch.float16), (8, torch.float32)])
def test_hqq_as_its_own_library_reads_it(bits, dtype, base, weights, tmp_path):
    """Bit by bit, where hqq computes in float32, whatever dtype its scales were stored in."""
    settings = BaseQuantizeConfig(nbits=bits, group_size=32, axis=1)
    layers, expected = {}, {}
    for name, weight in weights.items():
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight.data = weight.clone()
        layer = HQQLinear(linear, settings, compute_dtype=dtype, device="cpu")
        layers[name] = {key: tensor.detach() for key, tensor in layer.state_dict().items()}
        found = HQQLinear(None, None, compute_dtype=torch.float32, device="cpu")
        found.load_state_dict(dict(layers[name]))
        expected[name] = found.dequantize()
    config = {"quant_method": "hqq", "quant_config": settings, "skip_modules": ["lm_head"]}
    folder = write_folder(base, tmp_path / "folder", config, layers)
    require_values(imported(base, folder, tmp_path), expected)


@pytest.mark.parametrize(
    ("family", "scheme", "format_name"),
    [
        ("qwen2_vl", "hqq-w3g64", "hqq"),
        ("idefics3", "hqq-w4g64", "hqq"),
        ("idefics3", "rtn-w3g64s", "gptq"),
        ("qwen2_vl", "rtn-w4g64", "compressed-tensors"),
    ],
)
def test_an_export_is_read_back_to_the_same_bytes(family, scheme, format_name, model_folders, tmp_path):
    quantize_model(model_folders[family], scheme, None, tmp_path / "own")
    export_checkpoint(tmp_path / "own", format_name, tmp_path / "out")
    import_checkpoint(model_folders[family], tmp_path / "out", "others", tmp_path / "back")
    own, back = (tmp_path / name / "model.safetensors" for name in ("own", "back"))
    assert own.read_bytes() == back.read_bytes()


@pytest.fixture
def ordered(base, weights, tmp_path):
    """A checkpoint whose layers have an order of their own."""
    made = {name: gptq_layer(weight, 4, 32, seed=5)[0] for name, weight in weights.items()}
    folder = write_folder(base, tmp_path / "folder", GPTQ | {"desc_act": True}, made)
    import_checkpoint(base, folder, "others", tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_every_kernel_applies_the_order_of_inputs(ordered, pictures):
    inputs = inputs_of(ordered, pictures[0])
    model = load_checkpoint(ordered)[1]
    expected = logits_of(model, inputs)
    for name in LAYERS:
        layer = model.get_submodule(name)
        dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        dense.weight.data, dense.bias = layer.weight.dequantize(torch.float32), layer.bias
        model.set_submodule(name, dense)
    torch.testing.assert_close(logits_of(model, inputs), expected, rtol=1e-5, atol=1e-5)
    plain = load_checkpoint(ordered, torch.bfloat16)[1]
    packed = load_checkpoint(ordered, torch.bfloat16, "packed")[1]
    for name in LAYERS:
        ours, kernel = (model.get_submodule(name) for model in (plain, packed))
        assert kernel.weight.kernel == "int4"
        activations = torch.randn(90, ours.in_features, generator=torch.Generator().manual_seed(0)).bfloat16()
        wanted = ours(activations)
        for rows in (3, 90):
            # the kernel's grid is bfloat16
            torch.testing.assert_close(
                kernel(activations[:rows]), wanted[:rows], rtol=0, atol=0.03 * float(wanted.abs().max())
            )
        torch.testing.assert_close(
            kernel.weight.dequantize(torch.float32), ours.weight.dequantize(torch.float32), rtol=0.02, atol=0.02
        )


def test_gptq_carries_the_order_and_the_other_formats_refuse_it(ordered, base, tmp_path):
    export_checkpoint(ordered, "gptq", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["desc_act"] is True
    import_checkpoint(base, tmp_path / "out", "others", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (ordered / "model.safetensors").read_bytes()
    for name in ("compressed-tensors", "hqq"):
        with pytest.raises(QuantrustError, match=rf"{name} holds groups of .* of 3 layers .*q_proj.*desc_act"):
            export_checkpoint(ordered, name, tmp_path / name)


def test_an_order_that_is_none_is_refused(ordered):
    """A bundle may be anybody's: its digests prove nothing."""
    tensors = load_file(ordered / "model.safetensors")
    tensors[f"{LAYERS[0]}.weight.order"][3] = 10**6
    (ordered / "model.safetensors").unlink()
    save_file(tensors, ordered / "model.safetensors")
    write_record(ordered)
    with pytest.raises(QuantrustError, match=r"q_proj\.weight\.order is no order of input channels"):
        load_checkpoint(ordered)


def gptq_folder(base, weights, out, config=None):
    made = {name: gptq_layer(weight, 4, 32)[0] for name, weight in weights.items()}
    return write_folder(base, out, GPTQ if config is None else config, made)


def test_the_record_says_what_was_read(base, weights, tmp_path):
    folder = gptq_folder(base, weights, tmp_path / "folder")
    import_checkpoint(base, folder, "others", tmp_path / "checkpoint")
    record = json.loads((tmp_path / "checkpoint" / "quantization.json").read_text())
    assert record["scheme"] == "others" and record["settings"]["method"] == "gptq"
    assert record["settings"]["external"].keys() == {"config.json", "model.safetensors"}
    taken = {row["layer"]: row for row in record["layers"] if row["bits"] is not None}
    assert taken.keys() == set(LAYERS)
    assert {(row["bits"], row["group"], row["method"], row["relative_error"]) for row in taken.values()} == {
        (4, 32, "gptq", None)
    }
    family, model = build_skeleton(base)
    plan = open_external(folder, base, family, model).plan
    sizes = planned_bytes(family, model, plan)
    assert sizes == record["bytes"]
    assert sizes["weights_file"] == (tmp_path / "checkpoint" / "model.safetensors").stat().st_size


def test_the_same_folder_gives_the_same_bytes(base, weights, tmp_path):
    folder = gptq_folder(base, weights, tmp_path / "folder")
    for name in ("one", "two"):
        import_checkpoint(base, folder, "others", tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_component_that_the_folder_does_not_have_is_the_base_models(base, weights, tmp_path, caplog):
    folder = gptq_folder(base, weights, tmp_path / "folder")
    change(
        folder, **{key.replace(".", "__"): None for key in load_file(folder / "model.safetensors") if "visual" in key}
    )
    with caplog.at_level(logging.INFO):
        model = imported(base, folder, tmp_path)
    assert "has no tensor of vision and connector, which is the base model's" in caplog.text
    expected = load_file(base / "model.safetensors")["visual.blocks.0.mlp.fc1.weight"].bfloat16().float()
    assert torch.equal(model.get_submodule("model.visual.blocks.0.mlp.fc1").weight, expected)
    # of a component that is there nothing may be missing
    shutil.copytree(folder, tmp_path / "lacking")
    change(tmp_path / "lacking", model__norm__weight=None)
    with pytest.raises(QuantrustError, match=r"lacking: 1 missing key .*language_model\.norm\.weight"):
        import_checkpoint(base, tmp_path / "lacking", "others", tmp_path / "never")


def test_a_stale_quantization_config_is_ignored_with_a_note(base, tmp_path, caplog):
    folder = write_folder(base, tmp_path / "folder", GPTQ, {})
    model = imported(base, folder, tmp_path)
    assert "quantization_config is ignored, because all weights are floats" in caplog.text
    assert not any(hasattr(module, "codes") for module in model.modules())


def test_names_of_today_are_read_as_well(base, weights, tmp_path):
    """Published Qwen2-VL folders name the language model `model.layers`, as the library once did; new ones do not."""
    made = {name: gptq_layer(weight, 4, 32) for name, weight in weights.items()}
    folder = write_folder(base, tmp_path / "folder", GPTQ, {name: parts for name, (parts, _) in made.items()})
    renamed = {}
    for old, tensor in load_file(folder / "model.safetensors").items():
        new = re.sub(r"^visual\.", "model.visual.", re.sub(r"^model\.", "model.language_model.", old))
        renamed |= {old.replace(".", "__"): None, new.replace(".", "__"): tensor} if old != new else {}
    change(folder, **renamed)
    assert f"{LAYERS[0]}.qweight" in load_file(folder / "model.safetensors")
    require_values(imported(base, folder, tmp_path), {name: values for name, (_, values) in made.items()})


GROUP = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}


def compressed(**changes):
    return COMPRESSED | {"config_groups": {"group_0": GROUP | changes}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "fp8"}, r"says fp8, which is not read; allowed: awq, compressed-tensors, gptq, hqq"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "says modelopt, NVFP4, which is not read"),
        ({"quant_method": "bitsandbytes"}, "says bitsandbytes, which is not read"),
        ({"bits": 4}, "says no quant_method, which is not read"),
        (GPTQ | {"checkpoint_format": "marlin"}, r"\(gptq\): checkpoint_format 'marlin' is not read"),
        (GPTQ | {"bits": 5}, r"\(gptq\): 5 bits cannot be held; expected 2, 3, 4, 8"),
        (GPTQ | {"bits": "4"}, "quantization_config.bits is '4'; get the folder again"),
        (AWQ | {"version": "gemv"}, "version 'gemv' is not read; expected gemm"),
        (AWQ | {"zero_point": False}, "zero_point is false"),
        (compressed(input_activations={"num_bits": 8}), "input_activations is given; quantized activations"),
        (compressed(weights=GROUP["weights"] | {"type": "float", "num_bits": 8}), "weights of floats, such as FP8 and"),
        (compressed(format="naive-quantized"), "format 'naive-quantized' is not read; expected pack-quantized"),
        (compressed(weights=GROUP["weights"] | {"num_bits": 1}), "1 bits cannot be held"),
        (compressed(weights=GROUP["weights"] | {"strategy": "block"}), "weights.strategy is 'block'"),
        (compressed() | {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme is given"),
        (compressed() | {"sparsity_config": {"format": "marlin-24"}}, "sparsity_config.format is 'marlin-24'"),
        (COMPRESSED, "config_groups is missing or empty"),
        (compressed(weights=GROUP["weights"] | {"num_bits": 4.0}), "4.0 bits cannot be held"),
        (compressed(weights=GROUP["weights"] | {"symmetric": "false"}), "symmetric is 'false'; expected true or false"),
        (compressed(weights=GROUP["weights"] | {"group_size": True}), "group_size is True; expected a number"),
        (compressed(targets=["re:("]), r"targets names 're:\(', which is no pattern"),
        (compressed(targets=["re:([a-z._0-9]+)+!"]), "targets names .* may take very long to compare with names"),
        (compressed(targets=["re:" + ".*" * 9 + "!"]), "may take very long"),
        (compressed(targets=["re:" + ".?" * 40 + "!"]), "may take very long"),
        (compressed(targets=["re:" + "(.|.)" * 40 + "!"]), "may take very long"),
        (None, "has no quantization_config, so that nobody quantized this folder"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(config, message, base, tmp_path):
    folder = write_folder(base, tmp_path / "folder", config, {})
    with pytest.raises(QuantrustError, match=message):
        import_checkpoint(base, folder, "others", tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_gguf_is_refused_by_name(base, tmp_path):
    folder = write_folder(base, tmp_path / "folder", GPTQ, {})
    (folder / "model.safetensors").rename(folder / "model-q4_k_m.gguf")
    with pytest.raises(QuantrustError, match=r"model-q4_k_m\.gguf is not read; only safetensors are, no GGUF"):
        import_checkpoint(base, folder, "others", tmp_path / "checkpoint")


def key(part, layer=LAYERS[0]):
    return f"{stored(layer)}.{part}".replace(".", "__")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({key("scales"): None}, "q_proj: scales is missing"),
        ({key("scales"): torch.ones(2, 64).double()}, "q_proj: scales is stored as F64, expected F16 or BF16 or F32"),
        ({key("scales"): torch.full((2, 64), torch.nan).half()}, "q_proj.scales holds NaN"),
        ({key("scales"): torch.tensor(1.0).half()}, r"q_proj: scales has shape \[\], expected rows and columns"),
        ({key("qweight"): torch.tensor(1).int()}, r"q_proj: qweight has shape \[\], expected rows and columns"),
        (
            {key("scales"): torch.ones(0, 64).half(), key("qzeros"): torch.zeros(0, 8).int()},
            "q_proj: its 64 input channels lie in 0 groups of different sizes",
        ),
        ({"a\nerror: b": torch.ones(1)}, r"holds a tensor named a\\nerror: b; expected names of at most 1000"),
        ({key("scales"): torch.ones(3, 64).half()}, r"q_proj: qzeros has shape \[2, 8\], expected \[3, 8\]"),
        ({key("qweight"): torch.zeros(8, 56).int()}, r"q_proj: qweight has shape \[8, 56\], expected \[8, 64\]"),
        ({key("qweight"): torch.zeros(7, 64).int()}, "q_proj: qweight has 7 rows of 32 bits for 64 input channels"),
        ({key("qweight"): torch.zeros(4, 64).int(), key("qzeros"): torch.zeros(2, 4).int()}, "it has 2 bits in groups"),
        ({key("qzeros"): torch.full((2, 8), -1).int()}, "qzeros holds 15, which in the first version .* gptq_v2"),
        ({key("g_idx"): torch.zeros(64).int()}, "g_idx gives groups of 0 to 64 input channels"),
        ({key("g_idx"): torch.full((64,), 7).int()}, "g_idx names groups from 7 to 7, expected 0 to 1"),
        ({key("input_scale"): torch.ones(1)}, "q_proj.input_scale stands beside a weight that gptq quantized"),
        ({"stray": torch.ones(1)}, "1 unexpected key in the weights"),
        ({"model__norm__weight": torch.ones(64).char()}, "is stored as I8, expected F64"),
        ({"model__norm__weight": torch.full((64,), torch.inf)}, "norm.weight holds NaN or infinite"),
        ({"model__norm__weight": torch.ones(65)}, "1 mismatched key"),
    ],
)
def test_nothing_in_a_folder_is_trusted(changed, message, base, weights, tmp_path):
    folder = gptq_folder(base, weights, tmp_path / "folder")
    change(folder, **changed)
    with pytest.raises(QuantrustError, match=message):
        import_checkpoint(base, folder, "others", tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_groups_that_do_not_divide_the_inputs_are_refused(base, tmp_path):
    """Of 48 in 64 there would be one group, or two of different sizes."""
    parts = {
        "weight_packed": torch.zeros(64, 8).int(),
        "weight_scale": torch.ones(64, 1).half(),
        "weight_shape": torch.tensor([64, 64]),
    }
    for size in (48, 10**30):
        config = compressed(weights=GROUP["weights"] | {"group_size": size})
        folder = write_folder(base, tmp_path / str(size), config, {LAYERS[0]: parts})
        with pytest.raises(QuantrustError, match=rf"q_proj: groups of {size} do not divide its 64 input channels"):
            import_checkpoint(base, folder, "others", tmp_path / "checkpoint")


def shards_of(index):
    """A change of a folder to shards, of which its index says this."""

    def change_folder(folder):
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change_folder


def rewritten(content):
    """A change of the bytes of a folder's weights."""

    def change_folder(folder):
        path = folder / "model.safetensors"
        before = path.read_bytes()
        path.unlink()
        path.write_bytes(content(before))

    return change_folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewritten(lambda content: content[:-1]), "model.safetensors is not a complete safetensors file"),
        (rewritten(lambda content: content[:100]), "model.safetensors is not a complete safetensors file"),
        (rewritten(lambda content: b""), "model.safetensors is not a complete safetensors file"),
        (rewritten(lambda content: b"\xff" * 8 + content[8:]), "model.safetensors is not a complete safetensors file"),
        (rewritten(lambda content: b"\x02" + 7 * b"\x00" + b"{}"), "holds no tensor of the model"),
        (shards_of({"weight_map": {"a": "../model.safetensors"}}), r"names the shard \.\./model\.safetensors"),
        (shards_of({"weight_map": {"a": "/etc/passwd"}}), "names the shard /etc/passwd"),
        (shards_of({"weight_map": {"a": ".."}}), r"\.\."),
        (shards_of({"weight_map": {"a": "b\n.safetensors"}}), "backslash or a control character"),
        (shards_of({"weight_map": {"a": 1}}), "weight_map is missing or no map"),
        (shards_of({"weight_map": {"a": "model-1.safetensors"}}), "lacks a, which model.safetensors.index.json says"),
        (lambda folder: (folder / "config.json").write_text("[" * 10**5), r"config\.json: is nested too deeply"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: is not valid JSON"),
    ],
)
def test_a_damaged_or_hostile_folder_is_refused_in_one_line(damage, message, base, weights, tmp_path):
    folder = gptq_folder(base, weights, tmp_path / "folder")
    damage(folder)
    with pytest.raises(QuantrustError, match=message) as caught:
        import_checkpoint(base, folder, "others", tmp_path / "checkpoint")
    assert "\n" not in str(caught.value) and not (tmp_path / "checkpoint").exists()


def test_a_quantized_embedding_is_refused(base, weights, tmp_path):
    name = "model.language_model.embed_tokens"
    weight = load_file(base / "model.safetensors")[f"{stored(name)}.weight"]
    rows = len(weight) - len(weight) % 8
    parts = gptq_layer(weight[:rows], 4, 32)[0]
    folder = write_folder(base, tmp_path / "folder", GPTQ, {name: parts})
    with pytest.raises(QuantrustError, match=r"embed_tokens is quantized, but is no linear layer of this model"):
        import_checkpoint(base, folder, "others", tmp_path / "checkpoint")


def test_a_folder_of_another_model_is_refused(base, weights, tmp_path):
    folder = gptq_folder(base, weights, tmp_path / "folder")
    content = json.loads((folder / "config.json").read_text())
    content["text_config"]["rms_norm_eps"] = 0.5
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(QuantrustError, match=r"describes another model .*: text_config\.rms_norm_eps \(0\.5, base"):
        import_checkpoint(base, folder, "others", tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": torch.tensor(0, dtype=torch.int32)}, "its groups go along axis 0, over output channels"),
        ({"group_size": torch.tensor(48, dtype=torch.int32)}, "groups of 48 do not divide its 64 input channels"),
        ({"nbits": torch.tensor(1, dtype=torch.int32)}, "1 bits cannot be held"),
        ({"quant_zero": torch.tensor(1, dtype=torch.uint8)}, "quant_zero is set, which is not read"),
        (
            {"packing": torch.tensor([ord(letter) for letter in "9bit"], dtype=torch.uint8)},
            "packing '9bit' is not read",
        ),
        ({"packing": torch.zeros(10**6, dtype=torch.uint8)}, "packing is no short text"),
        ({"shape": torch.tensor([32, 128])}, "shape is not the shape that the model calls for"),
        ({"W_q": torch.zeros(1, 1, dtype=torch.uint8)}, r"W_q has shape \[1, 1\], expected \[64, 32\]"),
    ],
)
def test_hqq_entries_are_not_trusted(changes, message, base, weights, tmp_path):
    linear = nn.Linear(64, 64, bias=False)
    linear.weight.data = weights[LAYERS[0]].clone()
    settings = BaseQuantizeConfig(nbits=4, group_size=32, axis=1)
    layer = HQQLinear(linear, settings, compute_dtype=torch.float16, device="cpu")
    parts = {name: tensor.detach() for name, tensor in layer.state_dict().items()} | changes
    folder = write_folder(base, tmp_path / "folder", {"quant_method": "hqq"}, {LAYERS[0]: parts})
    with pytest.raises(QuantrustError, match=message):
        import_checkpoint(base, folder, "others", tmp_path / "checkpoint")
