"""BLIP-2 for retrieval: embeddings and judgements are the library's, folds keep them, and methods quantize it."""

import json
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from transformers import Blip2ForImageTextRetrieval

from quantrust.errors import QuantrustError
from quantrust.models.family import Role
from quantrust.models.loading import load_family, load_model
from quantrust.models.model_folder import prepare_model
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.checkpoint import load_checkpoint, planned_bytes
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import parse_scheme, resolve_scheme
from retrieval_model import CHANNELS, QUERIES, write_retrieval

TEXTS = ["a red circle and two blue bars", "it is green", "one yellow square is on the left", "no shape at all"]
TOLERANCE = 1e-4
LINEARS = 4 * 3 + 4 * 2 + 4 * 3
"""Of self-attention in three blocks, of cross-attention in two, and two ways of two in three."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "retrieval"
    write_retrieval(folder, TEXTS)
    return folder


@pytest.fixture(scope="module")
def folder(source):
    prepare_model(source, source.parent / "prepared", "blip_2_retrieval")
    return source.parent / "prepared"


@pytest.fixture(scope="module")
def loaded(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def shapes():
    rng = np.random.default_rng(0)
    sizes = [(40, 60), (640, 480), (30, 300), (300, 97)]
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in sizes]


@pytest.fixture(scope="module")
def table(folder, shapes, tmp_path_factory):
    place = tmp_path_factory.mktemp("captions")
    records = []
    for number, (picture, caption) in enumerate(zip(shapes, TEXTS, strict=True)):
        picture.save(place / f"{number}.png")
        said = [("human", "<image>\nWhat is there?"), ("gpt", caption)]
        conversation = [{"from": who, "value": text} for who, text in said]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": conversation})
    (place / "captions.json").write_text(json.dumps(records))
    return build_calibration_table(folder, place / "captions.json", place, samples=4, seed=0)


def found(family, model, processor, pictures):
    """Return embeddings of images and texts, and the judgements on each text with its picture and with the next."""
    with torch.inference_mode():
        images = family.encode_images(model, family.preprocess(processor, pictures))
        pairs = family.pairs(model, processor, [*TEXTS, *TEXTS], [*images, *images[1:], images[0]])
        return (
            family.image_embeddings(model, images),
            family.text_embeddings(model, processor, TEXTS),
            family.matching_logits(model, pairs),
        )


def test_embeddings_and_judgements_are_those_of_the_library_s_forward(source, loaded, shapes):
    family, model, processor = loaded
    whole = Blip2ForImageTextRetrieval.from_pretrained(source, dtype=torch.float32).eval()
    images, texts, logits = found(family, model, processor, shapes)
    assert images.shape == (4, QUERIES, CHANNELS) and texts.shape == (4, CHANNELS)
    pixels = family.preprocess(processor, shapes).tensors["pixel_values"]
    differences = []
    for k, text in enumerate([*TEXTS, *TEXTS]):
        picture = k if k < 4 else (k + 1) % 4
        ids = torch.tensor([processor.tokenizer(f"[CLS]{text}[SEP]", add_special_tokens=False)["input_ids"]])
        given = {"pixel_values": pixels[picture : picture + 1], "input_ids": ids, "attention_mask": ids.ge(0).long()}
        with torch.inference_mode():
            contrast = whole(**given, use_image_text_matching_head=False)
            matching = whole(**given, use_image_text_matching_head=True)
        similarity = (images[picture] @ texts[k % 4]).amax()
        differences += [
            (images[picture] - contrast.image_embeds[0]).abs().max(),
            (texts[k % 4] - contrast.text_embeds[0]).abs().max(),
            (similarity - contrast.logits_per_image[0]).abs().max(),
            (logits[k] - matching.logits_per_image[0]).abs().max(),
        ]
    assert max(map(float, differences)) < TOLERANCE
    # what makes the comparison worth something
    assert (logits[:4] - logits[4:]).abs().min() > 10 * TOLERANCE
    assert (texts[0] - texts[1]).abs().max() > 0.1


def test_long_texts_are_cut_off_or_refused(loaded):
    family, model, processor = loaded
    ids, mask = family.text_tokens(model, processor, ["red " * 30, "Red"], most=5)
    red = processor.tokenizer.convert_tokens_to_ids("red")
    assert ids.tolist() == [[2, red, red, red, 3], [2, red, 3, 0, 0]]
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    with pytest.raises(QuantrustError, match="a text has 32 tokens, but the Q-Former has positions for 16; shorten it"):
        family.text_tokens(model, processor, ["red " * 30])
    with pytest.raises(QuantrustError, match=r"'red \[SEP\]' holds '\[SEP\]', which is a token of the model's prompts"):
        family.text_tokens(model, processor, ["red [SEP]"])


def test_a_calibration_sample_is_its_caption_beside_the_queries(table):
    for row, text in zip(table.iter_rows(named=True), TEXTS, strict=True):
        words = len(text.split())
        assert row["roles"] == [Role.IMAGE] * QUERIES + [Role.TEXT] + [Role.ANSWER] * (words + 1)


def test_every_fold_keeps_embeddings_and_judgements(folder, shapes):
    family, model, processor = load_model(folder)
    model.double().requires_grad_(False)
    before = found(family, model, processor, shapes)
    generator, folds = torch.Generator().manual_seed(0), {}
    for component in ("vision", "connector"):
        for block in family.blocks(model, component):
            groups = family.scale_groups(model, block)
            grouped = sorted(name for group in groups for name in group.linears)
            assert grouped == sorted(layer.name for layer in family.layers(model) if layer.name.startswith(f"{block}."))
            for group in groups:
                if group.previous is not None:
                    width = model.get_submodule(group.linears[0]).in_features
                    fold_scale(model, group, torch.rand(width, generator=generator) * 3 + 0.2)
                    folds[component] = folds.get(component, 0) + 1
        for one, other in zip(found(family, model, processor, shapes), before, strict=True):
            torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    # both norms and values of a block; values of three blocks and of two cross-attentions
    assert folds == {"vision": 2 * 3, "connector": 3 + 2}


@pytest.mark.parametrize("scheme", ["gptq-w8g32-full", "awq-w8g32-full", "mbq-w8g32-mixed", "hqq-w8g32-full"])
def test_every_kind_of_method_quantizes_it_to_the_planned_bytes(scheme, folder, table, shapes, loaded, tmp_path):
    quantize_model(folder, scheme, table, tmp_path / "checkpoint")
    family, model, processor, record = load_checkpoint(tmp_path / "checkpoint")
    with torch.device("meta"):
        _, unquantized = build_skeleton(folder)
    plan = build_layer_plan(family, unquantized, parse_scheme(scheme))
    assert planned_bytes(family, unquantized, plan) == record["bytes"]
    assert record["bytes"]["weights_file"] == (tmp_path / "checkpoint" / "model.safetensors").stat().st_size
    layers = pl.DataFrame(record["layers"], infer_schema_length=None).drop_nulls("bits")
    assert layers.filter(component="connector").drop_nulls("block").height == LINEARS
    method = scheme.partition("-")[0]
    if method in ("awq", "mbq"):
        assert len(record["scales"]) == 2 * 3 + 3 + 2
    if method == "gptq":
        assert set(layers.drop_nulls("block")["method"]) == {"gptq"}
    before, after = found(*loaded, shapes), found(family, model, processor, shapes)
    for one, other in zip(before, after, strict=True):
        assert 0 < float((one - other).norm() / one.norm()) < 0.2


def test_the_folder_of_a_checkpoint_is_of_the_same_family(folder, tmp_path):
    quantize_model(folder, "rtn-w4g32-full", None, tmp_path / "checkpoint")
    assert load_checkpoint(tmp_path / "checkpoint", torch.bfloat16, "packed")[0].name == "blip_2_retrieval"
    assert load_family("blip_2").name == "blip_2"


def test_a_scheme_of_the_language_model_alone_is_refused(folder):
    with torch.device("meta"):
        family, model = build_skeleton(folder)
    plan = partial(build_layer_plan, family, model)
    with pytest.raises(QuantrustError, match=r"selects no layer of this blip_2_retrieval model, which has no language"):
        plan(parse_scheme("rtn-w4g32"))
    rows = [{"component": "language", "bits": 4}]
    scheme = resolve_scheme("x", {"method": "rtn", "group": 32, "symmetric": False, "table": rows})
    with pytest.raises(QuantrustError, match=r"language: 4 bits selects no layer of this blip_2_retrieval model"):
        plan(scheme)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qformer_config": {"use_qformer_text_input": False}}, "use_qformer_text_input is not true, so that the Q-F"),
        ({"image_token_index": 5}, r"image_token_index is 5, but a text here has no place .*; set it to null"),
    ],
)
def test_what_the_library_would_run_wrongly_is_refused(change, message, source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantrustError, match=message), torch.device("meta"):
        build_skeleton(tmp_path)
