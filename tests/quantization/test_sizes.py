"""What checkpoints take, from shapes alone: held to written checkpoints, and worked out at the size of a real model."""

import json

import polars as pl
import pytest
import torch
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLConfig

from quantrust.models.loading import family_of, load_model
from quantrust.quantization.checkpoint import planned_bytes
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import parse_scheme


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
@pytest.mark.parametrize("scheme", ["bf16", "rtn-w3g64", "rtn-w4g32-mixed", "hqq-w5c-full", "rtn-w8g64-full"])
def test_planned_bytes_are_those_of_the_checkpoint(family_name, scheme, model_folders, tmp_path):
    quantize_model(model_folders[family_name], scheme, None, tmp_path / "checkpoint")
    written = json.loads((tmp_path / "checkpoint" / "quantization.json").read_text())["bytes"]
    family, model, _ = load_model(model_folders[family_name])
    planned = planned_bytes(family, model, build_layer_plan(family, model, parse_scheme(scheme)))
    assert planned == written
    assert planned["weights_file"] == (tmp_path / "checkpoint" / "model.safetensors").stat().st_size


@pytest.fixture
def qwen2_vl_7b(model_folders):
    """Qwen2-VL-7B-Instruct in its published shape, without weights."""
    family = family_of(model_folders["qwen2_vl"])
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "mlp_ratio": 4},
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return family, family.model_class(config)


@pytest.mark.parametrize(
    ("scheme", "least", "bits", "widened"),
    [
        # the language model's linears alone: 4 bits and two float16 numbers for each 128 weights
        ("mbq-w4g128", 0.57, 4.25, 1.0),
        ("mbq-w4g128-mixed", 0.67, None, 1.0),
        ("mbq-w4g128-full", 0.72, 4.25, 1.0),
        # nearly all weights: 4 bits and two bfloat16 numbers for each 64 in memory
        ("hqq-w3g64-full", 0.77, 3.5, 4.5 / 3.5),
    ],
)
def test_sizes_at_the_shape_of_a_7b_model(scheme, least, bits, widened, qwen2_vl_7b):
    family, model = qwen2_vl_7b
    plan = build_layer_plan(family, model, parse_scheme(scheme))
    sizes = planned_bytes(family, model, plan)
    assert 16.5e9 < sizes["bfloat16"] < 16.65e9
    saved = 1 - (sizes["quantized"] + sizes["unquantized"]) / sizes["bfloat16"]
    assert least <= saved < least + 0.02
    assert 1 - sizes["resident"] / sizes["resident_bfloat16"] == pytest.approx(saved, abs=1e-4)
    # the untied embedding is only looked up and stays as it is on disk
    assert sizes["resident_packed"] / sizes["resident"] == pytest.approx(widened, rel=0.03)
    if bits is not None:
        assert sizes["quantized_bits_per_weight"] == pytest.approx(bits, rel=1e-3)


def test_the_plan_of_a_7b_model(qwen2_vl_7b):
    family, model = qwen2_vl_7b
    plan = build_layer_plan(family, model, parse_scheme("mbq-w4g128-mixed"))
    chosen = plan.filter(pl.col("bits").is_not_null())
    assert dict(chosen.group_by("component").len().iter_rows()) == {
        "vision": 32 * 4,
        "connector": 2,
        "language": 28 * 7,
        "embedding": 1,
        "head": 1,
    }
    # grouped-query attention: no scale for o; nothing linear feeds fc2 and the connector's second linear
    unscaled = chosen.filter(pl.col("note").str.starts_with("unscaled grid: no operation"))
    assert len(unscaled) == 28 + 32 + 1
    assert set(chosen["group"]) == {128}
