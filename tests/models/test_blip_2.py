"""BLIP-2: captions without a prompt, the Q-Former's parts and float32, published sizes, and what is not covered."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration

from quantrust.errors import QuantrustError
from quantrust.inference.decoding import decode_greedily
from quantrust.models.loading import load_model
from quantrust.models.model_folder import prepare_model
from quantrust.models.skeleton import build_skeleton
from quantrust.planning.published import published_models
from quantrust.quantization.checkpoint import load_checkpoint, planned_bytes
from quantrust.quantization.factorial import designs_of
from quantrust.quantization.kernels.packed import describe_kernels
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import parse_scheme, resolve_scheme
from tiny import SIZES, write_tiny

TYPES = ("self_attention", "cross_attention", "mlp")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "blip_2"
    write_tiny(folder, "blip_2")
    return folder


@pytest.fixture(scope="module")
def folder(source):
    prepare_model(source, source.parent / "prepared", "blip_2")
    return source.parent / "prepared"


@pytest.fixture(scope="module")
def shapes():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


def scheme_of(*rows):
    table = [{"component": "connector", **row} for row in rows]
    return resolve_scheme("parts", {"method": "rtn", "group": 32, "symmetric": False, "table": table})


def test_without_a_prompt_it_captions_as_the_library_does(source, folder, shapes):
    family, model, processor = load_model(folder)
    whole = Blip2ForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval()
    ends = family.end_token_ids(model, processor)
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, shapes))
        together = family.language_inputs(model, processor, ["", "Is it red?", "", ""], encoded)
        decoded = decode_greedily(family, model, together, end_token_ids=ends, max_new_tokens=6)
        for k in (0, 2, 3):
            pixels = processor(images=[shapes[k]], return_tensors="pt")
            # the library puts image and begin of text in by itself
            output = whole.generate(
                **pixels, do_sample=False, max_new_tokens=6, output_logits=True, return_dict_in_generate=True
            )
            tokens = decoded.token_ids[k]
            assert output.sequences[0, 6 + 1 :].tolist() == tokens
            expected = [torch.log_softmax(output.logits[n][0], -1)[token].item() for n, token in enumerate(tokens)]
            assert decoded.token_log_probs[k] == pytest.approx(expected, abs=TOLERANCE)
    # where nothing is asked, the question's state is that of what begins a text
    assert torch.equal(decoded.question_state[0], decoded.answer_state[0])
    assert not torch.equal(decoded.question_state[1], decoded.answer_state[1])


def test_batches_are_padded_before_the_image_and_not_between_image_and_text(folder, shapes):
    family, model, processor = load_model(folder)
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, shapes[:2]))
        inputs = family.language_inputs(model, processor, ["Is it red?", ""], encoded)
    token = processor.tokenizer.convert_tokens_to_ids("<image>")
    padded = inputs.token_ids[1].tolist()
    assert padded[-7:-1] == [token] * 6 and set(padded[:-7]) == {processor.tokenizer.pad_token_id}
    assert inputs.position_ids[1][-7:].tolist() == list(range(7))


def test_the_q_former_has_thirds_and_types_of_layers(folder):
    with torch.device("meta"):
        family, model = build_skeleton(folder)
    plan = build_layer_plan(family, model, parse_scheme("rtn-w4g32-full")).filter(component="connector")
    assert dict(
        plan.drop_nulls("block").group_by("block", "layer_type").len().rows_by_key(["block", "layer_type"])
    ) == {
        **{(block, "self_attention"): [(4,)] for block in range(3)},
        **{(block, "cross_attention"): [(4,)] for block in (0, 2)},
        **{(block, "mlp"): [(2,)] for block in range(3)},
    }
    rows = [*({"layer_type": kind, "bits": 4 + k} for k, kind in enumerate(TYPES[:2])), {"third": "last", "bits": 8}]
    chosen = build_layer_plan(family, model, scheme_of(*rows)).drop_nulls("bits")
    bits = {(row["third"], row["layer_type"]): row["bits"] for row in chosen.iter_rows(named=True)}
    # the later row wins, and no row names the projection
    assert bits == {
        **{("first", kind): 4 + k for k, kind in enumerate(TYPES[:2])},
        ("middle", "self_attention"): 4,
        **{("last", kind): 8 for kind in TYPES},
    }
    assert "language_projection" not in chosen["layer"]
    attention = build_layer_plan(family, model, scheme_of({"layer_type": "attention", "bits": 4})).drop_nulls("bits")
    assert set(attention["layer_type"]) == {"self_attention", "cross_attention"}
    with pytest.raises(QuantrustError, match=r"connector, middle third, cross_attention: 4 bits selects no layer"):
        build_layer_plan(family, model, scheme_of({"third": "middle", "layer_type": "cross_attention", "bits": 4}))


def test_a_grid_names_the_parts_of_the_q_former():
    factors = [{"component": "connector", "layer_type": kind} for kind in TYPES]
    grid = {"methods": ["hqq"], "group": 64, "symmetric": False, "levels": [3, 16], "factors": factors}
    (design,) = designs_of({"factorial": {"qformer": grid}})
    assert design.labels[:2] == ["connector, self attention", "connector, cross attention"]
    assert design.scheme((3, 16, 3)) == "hqq-g64-connector-self-attention3-mlp3"
    assert resolve_scheme("x", design.table((3, 3, 16))).components == ("connector",)


def test_the_q_former_stays_in_float32_and_its_bytes_are_counted_so(source, folder, shapes, tmp_path):
    quantize_model(folder, "bf16", None, tmp_path / "bf16")
    stored = load_file(tmp_path / "bf16" / "model.safetensors")
    wide = {name for name, tensor in stored.items() if tensor.dtype == torch.float32}
    assert wide == {name for name in stored if name.startswith("qformer.")} | {"query_tokens"}
    family, model, processor, record = load_checkpoint(tmp_path / "bf16", torch.bfloat16)
    weights, kept = (sum(stored[name].numel() for name in names) for names in (stored, wide))
    assert record["bytes"]["bfloat16"] == record["bytes"]["unquantized"] == 2 * weights + 2 * kept
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == wide
    with torch.inference_mode():
        (image,) = family.encode_images(model, family.preprocess(processor, shapes[:1]))
    assert image.features.dtype == torch.bfloat16
    quantize_model(folder, "hqq-w4g32-full", None, tmp_path / "hqq")
    _, model, _, record = load_checkpoint(tmp_path / "hqq", torch.bfloat16, "packed")
    kernels = describe_kernels(model)
    # its linears multiply in float32, all others but the head's codes as the kernels of this machine do
    assert kernels["reference"] >= 26
    layers = pl.DataFrame(record["layers"], infer_schema_length=None)
    assert layers.filter(component="connector").drop_nulls("bits").height == 27


def test_the_published_model_has_its_published_numbers_of_weights(tmp_path):
    published_models()["Salesforce/blip2-opt-2.7b"].write_files(tmp_path)
    with torch.device("meta"):
        family, model = build_skeleton(tmp_path)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_744_761_856
    plan = build_layer_plan(family, model, parse_scheme("rtn-w4g128-full"))
    in_blocks = plan.drop_nulls("block").group_by("component").agg((pl.col("rows") * pl.col("columns")).sum())
    # as the component study counts them; it leaves the projection out
    assert dict(in_blocks.iter_rows()) == {
        "vision": 984_023_040,
        "connector": 104_988_672,
        "language": 2_516_582_400,
    }
    (projection,) = plan.filter(layer="language_projection").rows(named=True)
    assert (projection["bits"], projection["rows"] * projection["columns"]) == (4, 1_966_080)
    sizes = planned_bytes(family, model, build_layer_plan(family, model, parse_scheme("bf16")))
    # the Q-Former with its queries: 32 of 768, two norms of it, and twelve blocks
    in_float32 = sum(p.numel() for name, p in model.named_parameters() if family.keeps_float32(name))
    assert sizes["unquantized"] == 2 * 3_744_761_856 + 2 * in_float32
    # the Q-Former's linears, their biases, and the norms and queries
    linears = sum(m.bias.numel() for n, m in model.qformer.named_modules() if isinstance(m, torch.nn.Linear))
    norms = 2 * 768 * (1 + 12 * 2 + 6)
    assert in_float32 == 104_988_672 + linears + norms + 32 * 768


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": {"model_type": "t5"}}, r"text_config has model_type 't5', but the adapter of blip_2 knows"),
        (
            {"text_config": {"do_layer_norm_before": False}},
            r"text_config\.do_layer_norm_before is False, but the adapter of blip_2 knows only True there",
        ),
        ({"text_config": {"activation_function": "gelu"}}, r"activation_function is 'gelu', but the adapter"),
        ({"text_config": {"word_embed_proj_dim": 32}}, r"word_embed_proj_dim is 32, but the adapter of blip_2 knows"),
        ({"qformer_config": {"use_qformer_text_input": True}}, r"use_qformer_text_input is true, but a Q-Former"),
        ({"image_token_index": None}, r"image_token_index is missing, so that a prompt has no place"),
    ],
)
def test_models_that_the_adapter_does_not_cover_are_refused(change, message, source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantrustError, match=message), torch.device("meta"):
        build_skeleton(tmp_path)


def test_more_tokens_than_positions_are_refused(folder, shapes):
    family, model, processor = load_model(folder)
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, shapes[:1]))
        inputs = family.language_inputs(model, processor, ["red " * 200], encoded)
        with pytest.raises(QuantrustError, match=r"has \d+ tokens, but the decoder has positions for 128; shorten"):
            family.read_prompts(model, inputs)
