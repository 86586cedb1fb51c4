"""The whole chain from a model folder to a checkpoint and back, and what damaged checkpoints are told."""

import json
import shutil

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from quantrust.artifacts.folder_record import RECORD, write_record
from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.models.loading import load_model
from quantrust.quantization.calibration_samples import CALIBRATION_SCHEMA
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.grid import dequantize
from quantrust.quantization.kernels.cpu import WIDEST_BLOCK, block_rows
from quantrust.quantization.kernels.packed import describe_kernels
from quantrust.quantization.packing import unpack
from quantrust.quantization.quantize import quantize_model

FAMILIES = ["qwen2_vl", "idefics3"]


def logits(family, model, processor, pictures):
    encoded = family.encode_images(model, family.preprocess(processor, pictures[:2]))
    inputs = family.language_inputs(model, processor, ["what is red?", "is there a 3 below it?"], encoded)
    hidden, _ = family.read_prompts(model, inputs)
    return family.logits(model, hidden)[inputs.attention_mask].detach()


def quantized(model_folder, scheme, out, calibration=None):
    quantize_model(model_folder, scheme, calibration, out)
    return out


def read(folder):
    return json.loads((folder / "quantization.json").read_text())


@pytest.fixture(scope="module")
def hqq_folder(model_folders, tmp_path_factory):
    return quantized(model_folders["qwen2_vl"], "hqq-w3g64-mixed", tmp_path_factory.mktemp("hqq") / "checkpoint")


@pytest.fixture
def damaged(hqq_folder, tmp_path):
    """A copy of a checkpoint, and a way to change its tensors that keeps the digests right."""
    folder = tmp_path / "damaged"
    shutil.copytree(hqq_folder, folder)

    def change(edit):
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        write_record(folder)
        return folder

    return folder, change


@pytest.mark.parametrize("family_name", FAMILIES)
def test_the_unquantized_scheme_is_the_model_in_bfloat16(family_name, model_folders, pictures, tmp_path):
    out = quantized(model_folders[family_name], "bf16", tmp_path / "bf16")
    family, model, processor = load_model(model_folders[family_name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    loaded_family, loaded, loaded_processor, record = load_checkpoint(out)
    assert type(loaded_family) is type(family) and not loaded.training and record["scheme"] == "bf16"
    assert torch.equal(
        logits(loaded_family, loaded, loaded_processor, pictures), logits(family, model, processor, pictures)
    )
    assert record["bytes"]["quantized"] == 0 and record["bytes"]["quantized_bits_per_weight"] is None


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("scheme", ["rtn-w4g64s", "hqq-w3c-full", "mbq-w2g32-mixed", "awq-w5g64"])
def test_a_round_trip_is_the_model_with_dequantized_weights(
    family_name, scheme, model_folders, calibration_tables, pictures, tmp_path
):
    out = quantized(model_folders[family_name], scheme, tmp_path / scheme, calibration_tables[family_name])
    family, loaded, processor, record = load_checkpoint(out)
    # an independent reading of the file: plain layers with weights dequantized by the documented names
    tensors = load_file(out / "model.safetensors")
    weights = {name: tensor.float() for name, tensor in tensors.items() if tensor.dtype == torch.bfloat16}
    chosen = [layer for layer in record["layers"] if layer["bits"] is not None]
    for layer in chosen:
        name = layer["layer"]
        codes = unpack(tensors[f"{name}.weight.codes"], layer["bits"], layer["columns"])
        weights[f"{name}.weight"] = dequantize(codes, tensors[f"{name}.weight.scale"], tensors[f"{name}.weight.zero"])
    _, plain, _ = load_model(model_folders[family_name])
    plain.load_state_dict(weights, strict=True)
    assert torch.equal(logits(family, loaded, processor, pictures), logits(family, plain, processor, pictures))
    assert chosen and all(0 < layer["relative_error"] < 1 for layer in chosen)
    sizes = record["bytes"]
    assert sizes["weights_file"] == (out / "model.safetensors").stat().st_size
    assert sizes["quantized"] + sizes["unquantized"] == sum(tensor.nbytes for tensor in tensors.values())
    assert sizes["bfloat16"] == 2 * sum(weight.numel() for weight in weights.values())
    assert sizes["model_bits_per_weight"] == 8 * sizes["weights_file"] / sum(w.numel() for w in weights.values())
    _, resident, _, _ = load_checkpoint(out, torch.bfloat16)
    held = {id(tensor): tensor.nbytes for tensor in [*resident.parameters(), *resident.buffers()]}
    assert sizes["resident"] == sum(held.values())


# 2 and 3 bits are widened to 4, 5 and 6 to 8; embeddings alone, tied and untied heads; groups that no kernel takes
@pytest.mark.skipif(block_rows() != WIDEST_BLOCK, reason="states the layout of torch's int4 kernel with AVX-512")
@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
@pytest.mark.parametrize(
    "scheme", ["bf16", "rtn-w2g32-full", "rtn-w3c-full", "rtn-w4g64-mixed", "rtn-w5g32-full", "rtn-w8g64", "rtn-w4g16"]
)
def test_resident_bytes_with_packed_kernels_are_those_of_the_loaded_model(family_name, scheme, model_folders, tmp_path):
    out = quantized(model_folders[family_name], scheme, tmp_path / "out")
    _, model, _, record = load_checkpoint(out, torch.bfloat16, "packed")
    held = {id(tensor): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    assert record["bytes"]["resident_packed"] == sum(held.values())


def test_bits_per_weight_by_hand(model_folders, tmp_path):
    # 4 bits, and 16 + 16 bits of scale and zero for each 64 weights
    out = quantized(model_folders["qwen2_vl"], "rtn-w4g64", tmp_path / "rtn")
    assert read(out)["bytes"]["quantized_bits_per_weight"] == 4.5
    # 8 bits, and 32 + 32 for each 64
    out = quantized(model_folders["qwen2_vl"], "rtn-w8g64", tmp_path / "rtn8")
    assert read(out)["bytes"]["quantized_bits_per_weight"] == 9.0


@pytest.mark.parametrize("scheme", ["mbq-w3g64", "gptq-w3g64-full"])
def test_same_input_same_bytes(scheme, model_folders, calibration_tables, tmp_path):
    first, second = (
        quantized(model_folders["idefics3"], scheme, tmp_path / name, calibration_tables["idefics3"])
        for name in ("first", "second")
    )
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in second.iterdir())
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_mbq_records_ratios_and_scales(model_folders, calibration_tables, tmp_path):
    out = quantized(model_folders["qwen2_vl"], "mbq-w3g64", tmp_path / "mbq", calibration_tables["qwen2_vl"])
    record = read(out)
    assert [(entry["block"], entry["kind"]) for entry in record["modality_ratios"]] == [
        (block, kind) for block in range(3) for kind in ("attention", "mlp")
    ]
    assert record["calibration"]["samples"] == 5 and record["calibration"]["tokens"]["image"] == 5 * 16
    # q, k, v; gate, up; down in each block: nothing absorbs a scale of o under grouped-query attention
    assert len(record["scales"]) == 3 * 3
    assert all(scale["error"] <= scale["unscaled_error"] for scale in record["scales"])
    assert all(scale["error"] <= scale["runner_up_error"] for scale in record["scales"])
    assert all(scale["runner_up"] != scale["exponent"] for scale in record["scales"])
    assert {layer["scaled_by"] for layer in record["layers"] if layer["layer"].endswith("o_proj")} == {None}


def test_the_calibration_table_may_be_a_file(model_folders, calibration_tables, tmp_path):
    write_table(calibration_tables["qwen2_vl"], tmp_path / "calibration.parquet")
    from_table = quantized(model_folders["qwen2_vl"], "awq-w4g64", tmp_path / "a", calibration_tables["qwen2_vl"])
    from_file = quantized(model_folders["qwen2_vl"], "awq-w4g64", tmp_path / "b", tmp_path / "calibration.parquet")
    assert read(from_table)["sha256"] == read(from_file)["sha256"]


def test_tied_head_and_embedding_are_stored_once(tied, pictures, tmp_path):
    for scheme in ("bf16", "rtn-w4g64", "rtn-w4g64-full"):
        out = quantized(tied, scheme, tmp_path / scheme)
        family, model, processor, record = load_checkpoint(out)
        assert model.lm_head.weight is model.get_submodule(family.embedding).weight
        assert not any(name.startswith("lm_head") for name in load_file(out / "model.safetensors"))
        assert logits(family, model, processor, pictures).isfinite().all()
        head = next(layer for layer in record["layers"] if layer["layer"] == "lm_head")
        assert head["shares"] == (family.embedding if scheme.endswith("full") else None)


def test_loads_in_the_compute_dtype(hqq_folder, pictures):
    family, model, processor, _ = load_checkpoint(hqq_folder, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert logits(family, model, processor, pictures).dtype == torch.bfloat16


@pytest.mark.parametrize("family_name", FAMILIES)
def test_packed_kernels_answer_as_the_reference_does(family_name, model_folders, pictures, tmp_path):
    out = quantized(model_folders[family_name], "rtn-w4g32-mixed", tmp_path / "rtn")
    family, model, processor, _ = load_checkpoint(out, torch.bfloat16)
    expected = logits(family, model, processor, pictures).float()
    counts = describe_kernels(model)
    assert list(counts) == ["reference"]
    family, packed, processor, _ = load_checkpoint(out, torch.bfloat16, "packed")
    found = logits(family, packed, processor, pictures).float()
    kinds = describe_kernels(packed)
    assert kinds["int4"] and kinds["int4 in two planes"] and sum(kinds.values()) == counts["reference"]
    # bfloat16 keeps 8 bits; a wrong layer would be off by as much as the logits differ from each other
    assert (found - expected).norm() < 0.05 * (expected - expected.mean()).norm()


def test_kernels_that_cannot_be_had_are_refused(hqq_folder):
    with pytest.raises(QuantrustError, match=r"compute in torch\.bfloat16, not in torch\.float32"):
        load_checkpoint(hqq_folder, torch.float32, "packed")
    with pytest.raises(QuantrustError, match="kernel 'fast' is unknown; allowed: reference, packed"):
        load_checkpoint(hqq_folder, torch.bfloat16, "fast")


def test_the_folder_is_self_contained(hqq_folder):
    names = {path.name for path in hqq_folder.iterdir()}
    assert {"config.json", "tokenizer.json", "preprocessor_config.json", "chat_template.jinja"} < names
    assert str(hqq_folder.parent) not in (hqq_folder / "quantization.json").read_text()


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
@pytest.mark.parametrize("spelling", ["dtype", "torch_dtype"])
def test_the_config_says_what_the_weights_are(spelling, family_name, model_folders, tmp_path):
    """Read by the library alone, under the dtype that the config names."""
    source = shutil.copytree(model_folders[family_name], tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    del config["dtype"]
    for place in (config, config["text_config"], config["vision_config"]):
        place |= {spelling: "float16", "quantization_config": {"quant_method": "gptq"}, "_attn_implementation": "eager"}
    (source / "config.json").write_text(json.dumps(config))
    quantize_model(source, "bf16", None, tmp_path / "checkpoint")
    written = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    for place in (written, written["text_config"], written["vision_config"]):
        assert place[spelling] == "bfloat16"
        assert not place.keys() & {"quantization_config", "_attn_implementation"}
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint", output_loading_info=True)
    assert not any(info.values())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def test_a_config_that_names_no_dtype_gets_that_of_the_weights_and_a_true_one_keeps_its_bytes(model_folders, tmp_path):
    source = shutil.copytree(model_folders["qwen2_vl"], tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    del config["dtype"]
    (source / "config.json").write_text(json.dumps(config))
    quantize_model(source, "bf16", None, tmp_path / "checkpoint")
    assert json.loads((tmp_path / "checkpoint" / "config.json").read_text()) == config | {"dtype": "bfloat16"}
    (source / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=7))
    quantize_model(source, "bf16", None, tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "config.json").read_bytes() == (source / "config.json").read_bytes()


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "quantization.json", "config.json", "tokenizer.json", "preprocessor_config.json", RECORD],
)
def test_a_flipped_bit_is_noticed_in_every_file(damaged, name, place):
    folder, _ = damaged
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(QuantrustError, match=rf"{name} is damaged.*; delete .*damaged and run the same"):
        load_checkpoint(folder)


def test_a_file_that_is_no_part_of_a_checkpoint_is_named(damaged):
    folder, _ = damaged
    (folder / ".snakemake_timestamp").touch()
    load_checkpoint(folder)
    (folder / "special_tokens_map.json").write_text("{}")
    with pytest.raises(QuantrustError, match=r"holds 'special_tokens_map\.json', which its .* does not list; take"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("lm_head.weight.scale"), r"1 missing tensors \(lm_head.weight.scale\)"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), r"1 unexpected tensors \(extra\)"),
        (
            lambda tensors: tensors.update({"lm_head.weight.zero": tensors["lm_head.weight.zero"][1:]}),
            r"lm_head.weight.zero has shape \(\d+, 1\)",
        ),
        (
            lambda tensors: tensors.update(
                {"model.language_model.norm.weight": tensors["model.language_model.norm.weight"].float()}
            ),
            "norm.weight has shape .* dtype torch.float32, expected .* torch.bfloat16",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(damaged, edit, message):
    _, change = damaged
    with pytest.raises(QuantrustError, match=message):
        load_checkpoint(change(edit))


@pytest.mark.parametrize("name", ["quantization.json", "model.safetensors", "config.json", RECORD])
def test_a_missing_file_is_named(damaged, name):
    folder, _ = damaged
    (folder / name).unlink()
    with pytest.raises(QuantrustError, match=rf"{name} is missing|lacks '{name}'|there is no {name} in it"):
        load_checkpoint(folder)


def test_other_formats_are_refused(damaged):
    folder, _ = damaged
    (folder / "quantization.json").write_text(json.dumps(read(folder) | {"format": 2}))
    write_record(folder)
    with pytest.raises(QuantrustError, match="format 2, this version reads 3"):
        load_checkpoint(folder)


def test_a_damaged_weight_names_its_layer_and_leaves_nothing(model_folders, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model_folders["idefics3"], broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.text_model.layers.1.mlp.up_proj.weight"][0, 0] = float("inf")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        QuantrustError, match=r"model\.text_model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinite"
    ):
        quantize_model(broken, "rtn-w4g64", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_weight_whose_scale_overflows_names_its_layer(model_folders, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model_folders["idefics3"], broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.text_model.layers.1.mlp.up_proj.weight"][0, 0] = 1e8
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QuantrustError, match=r"layer model\.text_model\.layers\.1\.mlp\.up_proj: .* scales can hold"):
        quantize_model(broken, "rtn-w4g64", None, tmp_path / "out")


def test_a_calibrated_method_without_calibration_is_refused(model_folders, tmp_path):
    with pytest.raises(QuantrustError, match="scheme mbq-w4g64 needs a calibration table"):
        quantize_model(model_folders["qwen2_vl"], "mbq-w4g64", None, tmp_path / "out")
    with pytest.raises(QuantrustError, match="is empty"):
        quantize_model(
            model_folders["qwen2_vl"], "mbq-w4g64", pl.DataFrame(schema=CALIBRATION_SCHEMA), tmp_path / "out"
        )
