"""Methods through the whole chain: what they choose on a model, and every method at every width."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantrust.errors import QuantrustError
from quantrust.inference.decoding import decode_greedily
from quantrust.models.family import Role
from quantrust.quantization.calibration_samples import CALIBRATION_SCHEMA
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.grid import percent
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import BITS, COMPONENTS, METHODS, resolve_scheme

FAMILIES = ["qwen2_vl", "idefics3"]
# Relative error of the first token's logits on a random model, which has no redundancy: loose at the narrow end.
WIDEST_ERROR = {8: 0.04, 6: 0.15, 5: 0.25, 4: 0.5, 3: 0.95, 2: 1.35}
CALIBRATED = ["awq-w3g32", "mbq-w3g32", "gptq-w3g32"]


def scheme_of(method: str, *rows: tuple, group: int = 32, **more):
    table = [dict(zip(("component", "bits", "third", "layer_type"), row, strict=False)) for row in rows]
    return resolve_scheme("custom", {"method": method, "group": group, "symmetric": False, "table": table} | more)


def quantized(model_folder: Path, scheme, table: pl.DataFrame | None, out: Path) -> tuple[dict, dict]:
    """Quantize; return the record and the tensors."""
    quantize_model(model_folder, scheme, table, out)
    return json.loads((out / "quantization.json").read_text()), load_file(out / "model.safetensors")


def features(folder: Path, pictures) -> torch.Tensor:
    family, model, processor, _ = load_checkpoint(folder)
    with torch.no_grad():
        images = family.encode_images(model, family.preprocess(processor, pictures))
    return torch.cat([image.features for image in images])


def answers(folder: Path, pictures) -> tuple[list, list, torch.Tensor]:
    """Token ids, their log-probabilities, and the logits of the first token."""
    family, model, processor, _ = load_checkpoint(folder)
    with torch.no_grad():
        images = family.encode_images(model, family.preprocess(processor, pictures))
        inputs = family.language_inputs(model, processor, ["what color is the red circle?"] * len(pictures), images)
    ends = family.end_token_ids(model, processor)
    decoded = decode_greedily(family, model, inputs, end_token_ids=ends, max_new_tokens=4)
    return decoded.token_ids, decoded.token_log_probs, decoded.first_logits


@pytest.mark.parametrize("family_name", FAMILIES)
def test_awq_with_absolute_errors_is_mbq_where_no_token_is_an_answer(
    family_name, model_folders, calibration_tables, tmp_path
):
    rows = [("vision", 2), ("connector", 3)]
    results = [
        quantized(
            model_folders[family_name],
            scheme_of(method, *rows, error="mae"),
            calibration_tables[family_name],
            tmp_path / method,
        )
        for method in ("awq", "mbq")
    ]
    (awq, _), (mbq, _) = results
    assert awq["scales"] == mbq["scales"] and mbq["modality_ratios"] == []
    assert awq["sha256"] == mbq["sha256"]
    squared, _ = quantized(
        model_folders[family_name],
        scheme_of("mbq", *rows, error="mse"),
        calibration_tables[family_name],
        tmp_path / "mse",
    )
    plain, _ = quantized(
        model_folders[family_name], scheme_of("awq", *rows), calibration_tables[family_name], tmp_path / "plain"
    )
    assert squared["sha256"] == plain["sha256"] != awq["sha256"]
    assert squared["settings"]["error"] == "mse"


@pytest.mark.parametrize("family_name", FAMILIES)
def test_vision_and_connector_are_calibrated(family_name, model_folders, calibration_tables, pictures, tmp_path):
    """Data-aware methods leave image features closer to the unquantized ones than round to nearest does."""
    rows = [("vision", 3), ("connector", 3)]
    table, folder = calibration_tables[family_name], model_folders[family_name]
    quantize_model(folder, "bf16", None, tmp_path / "bf16")
    reference, errors = features(tmp_path / "bf16", pictures), {}
    for method in ("rtn", "awq", "mbq", "gptq"):
        record, _ = quantized(folder, scheme_of(method, *rows), table, tmp_path / method)
        errors[method] = float((features(tmp_path / method, pictures) - reference).norm())
        if method in ("awq", "mbq"):
            scaled = {layer["scaled_by"] for layer in record["layers"] if layer["component"] == "connector"}
            assert scaled - {None}
            searched = {scale["previous"] for scale in record["scales"]}
            assert searched == {layer["scaled_by"] for layer in record["layers"]} - {None}
    assert max(errors["awq"], errors["mbq"], errors["gptq"]) < errors["rtn"]


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_layers_that_lose_more_than_their_grid_are_named_in_plan_and_log(
    method, model_folders, calibration_tables, tmp_path, caplog
):
    folder = tmp_path / "model"
    shutil.copytree(model_folders["idefics3"], folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.text_model.layers.{}.mlp.up_proj"
    # weights of some .08: 4-bit scales of 1e-7, few steps of float16; of 1e-11; and of 1e-4, which it holds
    for block, factor in enumerate((1e-5, 1e-9, 1e-2)):
        tensors[f"{name.format(block)}.weight"] *= factor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    table = calibration_tables["idefics3"]
    rows = {row["layer"]: row for row in quantized(folder, f"{method}-w4g32", table, tmp_path / "out")[0]["layers"]}
    small, none = (rows[name.format(block)] for block in range(2))
    assert {layer for layer, row in rows.items() if "float16" in (row["note"] or "")} == {small["layer"], none["layer"]}
    for row in (small, none):
        assert f"{row['layer']}: {row['note']}" in caplog.text
    assert (
        f"are too small for float16: the layer loses {percent(small['relative_error'], 1)} where its" in small["note"]
    )
    assert none["relative_error"] == 1.0 and "the layer loses 100.0 % where its grid" in none["note"]
    wide, _ = quantized(folder, f"{method}-w8g32", table, tmp_path / "wide")
    assert all(row["note"] is None and (row["relative_error"] or 0) < 0.02 for row in wide["layers"])


@pytest.mark.parametrize("family_name", FAMILIES)
def test_gptq_quantizes_every_component(family_name, model_folders, calibration_tables, tmp_path):
    record, tensors = quantized(
        model_folders[family_name], "gptq-w3g32-full", calibration_tables[family_name], tmp_path / "gptq"
    )
    _, nearest_tensors = quantized(model_folders[family_name], "rtn-w3g32-full", None, tmp_path / "rtn")
    other = {
        layer["layer"]: layer["method"]
        for layer in record["layers"]
        if layer["bits"] is not None
        and not torch.equal(*(part[f"{layer['layer']}.weight.codes"] for part in (tensors, nearest_tensors)))
    }
    assert set(other.values()) == {"gptq"}
    assert other.keys() == {layer["layer"] for layer in record["layers"] if layer["method"] == "gptq"}
    # the grid is that of round to nearest, on the same weights
    for name in other:
        assert torch.equal(tensors[f"{name}.weight.scale"], nearest_tensors[f"{name}.weight.scale"])
    assert {layer["component"] for layer in record["layers"] if layer["method"] == "gptq"} == set(COMPONENTS) - {
        "embedding"
    }


def test_gptq_of_the_head_alone_still_reads_the_language_model(model_folders, calibration_tables, tmp_path):
    record, tensors = quantized(
        model_folders["qwen2_vl"], scheme_of("gptq", ("head", 2)), calibration_tables["qwen2_vl"], tmp_path / "gptq"
    )
    _, nearest = quantized(model_folders["qwen2_vl"], scheme_of("rtn", ("head", 2)), None, tmp_path / "rtn")
    assert [layer["layer"] for layer in record["layers"] if layer["bits"]] == ["lm_head"]
    assert not torch.equal(tensors["lm_head.weight.codes"], nearest["lm_head.weight.codes"])


def test_bits_go_to_thirds_and_layer_types(model_folders, calibration_tables, tmp_path):
    scheme = scheme_of("mbq", ("language", 2), ("language", 8, "last"), ("language", 16, "first", "attention"))
    record, tensors = quantized(model_folders["idefics3"], scheme, calibration_tables["idefics3"], tmp_path / "x")
    prefix = "model.text_model.layers"
    # 64 inputs: 16 bytes at 2 bits, 64 at 8
    assert tensors[f"{prefix}.0.mlp.up_proj.weight.codes"].shape == (192, 16)
    assert tensors[f"{prefix}.2.mlp.up_proj.weight.codes"].shape == (192, 64)
    assert tensors[f"{prefix}.0.self_attn.q_proj.weight"].dtype == torch.bfloat16
    assert record["scheme"] == "custom" and record["settings"]["table"][1]["third"] == "last"
    _, loaded, _, _ = load_checkpoint(tmp_path / "x")
    assert loaded.get_submodule(f"{prefix}.1.mlp.up_proj").weight.bits == 2


@pytest.mark.parametrize("scheme", CALIBRATED)
def test_every_calibrated_method_refuses_unfit_calibration(scheme, model_folders, calibration_tables, tmp_path):
    folder, table = model_folders["qwen2_vl"], calibration_tables["qwen2_vl"]

    def with_roles(change: dict[int, int]) -> pl.DataFrame:
        return table.with_columns(pl.col("roles").list.eval(pl.element().replace(change)).cast(pl.List(pl.Int8)))

    for unfit, message in [
        (None, f"scheme {scheme} needs a calibration table"),
        (pl.DataFrame(schema=CALIBRATION_SCHEMA), "the calibration table is empty"),
        (with_roles({int(Role.IMAGE): int(Role.TEXT)}), "has 0 image tokens: a text-only sample"),
        (with_roles({int(Role.ANSWER): int(Role.TEXT)}), "answer tokens: a short answer gives no usable gradient"),
    ]:
        with pytest.raises(QuantrustError, match=message):
            quantize_model(folder, scheme, unfit, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", CALIBRATED)
@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("layers.1.post_attention_layernorm.weight", r"language_model\.layers\.1\.mlp\."),
        ("visual.blocks.1.norm2.weight", r"visual\.blocks\.1\.mlp\.fc1"),
    ],
)
def test_activations_that_overflow_name_the_layer(scheme, weight, layer, model_folders, calibration_tables, tmp_path):
    """Weights are finite, and what they make of the calibration images is not."""
    broken = tmp_path / "model"
    broken.mkdir()
    for path in model_folders["qwen2_vl"].iterdir():
        if path.name != "model.safetensors":
            (broken / path.name).symlink_to(path)
    tensors = load_file(model_folders["qwen2_vl"] / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith(weight))
    tensors[name][:] = 3e38
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(QuantrustError, match=layer):
        quantize_model(broken, f"{scheme}-full", calibration_tables["qwen2_vl"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_at_every_width_answers(
    method, bits, family_name, model_folders, calibration_tables, pictures, tmp_path
):
    out = tmp_path / "checkpoint"
    record, _ = quantized(model_folders[family_name], f"{method}-w{bits}g32-full", calibration_tables[family_name], out)
    assert {layer["bits"] for layer in record["layers"]} - {None} == {bits}
    quantize_model(model_folders[family_name], "bf16", None, tmp_path / "bf16")
    decoded, reference = (answers(folder, pictures) for folder in (out, tmp_path / "bf16"))
    assert all(len(ids) > 0 and min(values) > -20 for ids, values in zip(*decoded[:2], strict=True))
    error = float((decoded[2] - reference[2]).norm() / reference[2].norm())
    assert error < WIDEST_ERROR[bits]
