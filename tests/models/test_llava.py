"""LLaVA 1.5: it answers as the library does, without the vision block that never runs, under every method."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from published_layout import MINI, published_name, write_model_folder
from quantrust.errors import QuantrustError
from quantrust.inference.decoding import decode_greedily
from quantrust.models.components import STACKS
from quantrust.models.loading import load_model
from quantrust.models.model_folder import prepare_model
from quantrust.models.pictures import picture_cost, preprocess_pictures
from quantrust.models.skeleton import build_skeleton
from quantrust.models.trial import try_processor
from quantrust.planning.published import published_models
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.checkpoint import load_checkpoint, planned_bytes
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import parse_scheme

PROMPT = "{question}\nAnswer the question using a single word or phrase."
QUESTIONS = ["What color is the large shape?", "Is it red?", "How many shapes are there? Is the café open?"]
TOLERANCE = 1e-4
IDLE = "model.vision_tower.encoder.layers.2."


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "llava"
    write_model_folder(folder, "llava", MINI["llava"])
    return folder


@pytest.fixture(scope="module")
def folder(source) -> Path:
    prepare_model(source, source.parent / "prepared", "llava")
    return source.parent / "prepared"


@pytest.fixture(scope="module")
def loaded(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def shapes() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(40, 60), (640, 480), (97, 101)]
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in sizes]


@pytest.fixture(scope="module")
def table(folder, shapes, tmp_path_factory):
    place = tmp_path_factory.mktemp("captions")
    records = []
    for number, picture in enumerate(shapes):
        picture.save(place / f"{number}.png")
        said = [("human", "<image>\nWhat is there?"), ("gpt", "a red circle and two blue bars"[: 20 + 4 * number])]
        conversation = [{"from": who, "value": text} for who, text in said]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": conversation})
    (place / "captions.json").write_text(json.dumps(records))
    return build_calibration_table(folder, place / "captions.json", place, samples=3, seed=0)


def features(family, model, processor, pictures):
    return family.encode_images(model, family.preprocess(processor, pictures))


def test_answers_probabilities_and_states_are_those_of_the_library_s_whole_model(source, loaded, shapes):
    family, model, processor = loaded
    whole = LlavaForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval()
    assert len(whole.model.vision_tower.encoder.layers) == 3
    ends = family.end_token_ids(model, processor)
    for question, picture in zip(QUESTIONS, shapes, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": PROMPT.format(question=question)}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        given = processor(text=[text], images=[picture], return_tensors="pt")
        with torch.inference_mode():
            images = features(family, model, processor, [picture])
            inputs = family.language_inputs(model, processor, [question], images, template=PROMPT)
            hidden, _ = family.read_prompts(model, inputs)
            theirs = whole(**given, output_hidden_states=True)
            output = whole.generate(
                **given, do_sample=False, max_new_tokens=6, output_logits=True, return_dict_in_generate=True
            )
        assert inputs.token_ids.tolist() == given["input_ids"].tolist()
        torch.testing.assert_close(hidden, theirs.hidden_states[-1], atol=TOLERANCE, rtol=TOLERANCE)
        decoded = decode_greedily(family, model, inputs, end_token_ids=ends, max_new_tokens=6)
        (tokens,), (found,) = decoded.token_ids, decoded.token_log_probs
        assert output.sequences[0, inputs.token_ids.shape[1] :].tolist() == tokens
        expected = [torch.log_softmax(output.logits[k][0].float(), -1)[token].item() for k, token in enumerate(tokens)]
        assert found == pytest.approx(expected, abs=TOLERANCE)


def test_an_answer_continues_the_turn_as_the_tokenizer_would_write_both(loaded, shapes):
    family, model, processor = loaded
    with torch.inference_mode():
        images = features(family, model, processor, shapes[:1])
        inputs = family.language_inputs(model, processor, ["Is it red?"], images, answers=["two blue bars"])
    image = "<image>" * len(images[0].features)
    written = f"<s>USER: {image}\nIs it red? ASSISTANT: two blue bars</s>"
    assert inputs.token_ids[0].tolist() == processor.tokenizer(written, add_special_tokens=False)["input_ids"]


def test_the_block_that_never_runs_is_in_no_plan_and_no_checkpoint(source, folder, tmp_path):
    family, model = build_skeleton(folder)
    plan = build_layer_plan(family, model, parse_scheme("rtn-w4g64-full"))
    assert set(plan.filter(component="vision")["block"].drop_nulls()) == {0, 1}
    # with two blocks there is no middle third
    assert set(plan.filter(component="vision")["third"].drop_nulls()) == {"first", "middle"}
    quantize_model(folder, "bf16", None, tmp_path / "checkpoint")
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert stored.keys() == model.state_dict().keys()
    assert not any(name.startswith(IDLE) for name in stored)
    # the config of the checkpoint describes what it holds, to the library as well
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert (config["vision_feature_layer"], config["vision_config"]["num_hidden_layers"]) == (2, 2)
    whole, found = LlavaForConditionalGeneration.from_pretrained(tmp_path / "checkpoint", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    pixels = torch.randn(1, 3, MINI["llava"].tile, MINI["llava"].tile, generator=torch.Generator().manual_seed(0))
    original = LlavaForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        for one, other in zip(
            whole.float().get_image_features(pixels).pooler_output,
            original.get_image_features(pixels).pooler_output,
            strict=True,
        ):
            assert torch.equal(one, other)
    assert planned_bytes(family, model, build_layer_plan(family, model, parse_scheme("bf16")))["weights_file"] == (
        (tmp_path / "checkpoint" / "model.safetensors").stat().st_size
    )


def one_file(source: Path, target: Path) -> dict[str, torch.Tensor]:
    """Copy a folder in shards but for its weights, which are returned."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    return {name: tensor for shard in sorted(source.glob("*.safetensors")) for name, tensor in load_file(shard).items()}


def test_a_folder_may_lack_the_block_that_never_runs_and_no_other(source, loaded, tmp_path):
    tensors = one_file(source, tmp_path / "source")
    idle = published_name("llava", IDLE)
    less = {name: tensor for name, tensor in tensors.items() if not name.startswith(idle)}
    assert len(less) < len(tensors)
    path = tmp_path / "source" / "model.safetensors"
    save_file(less, path, metadata={"format": "pt"})
    _, model, _ = load_model(tmp_path / "source")
    for name, tensor in loaded[1].state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    beyond = {name.replace(".2.", ".3."): tensor for name, tensor in tensors.items() if name.startswith(idle)}
    save_file(less | beyond, path, metadata={"format": "pt"})
    with pytest.raises(QuantrustError, match=r"16 unexpected keys in the weights"):
        load_model(tmp_path / "source")
    running = published_name("llava", IDLE.replace("2", "1"))
    save_file({name: less[name] for name in less if not name.startswith(running)}, path, metadata={"format": "pt"})
    with pytest.raises(QuantrustError, match=r"16 missing keys in the weights"):
        load_model(tmp_path / "source")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_layer": [-2, -3]}, r"vision_feature_layer is \[-2, -3\], but the adapter of llava reads"),
        ({"vision_feature_layer": -5}, r"vision_feature_layer is -5, but the vision tower has 3 blocks; expected"),
        ({"vision_feature_layer": 0}, r"vision_feature_layer is 0, but the vision tower has 3 blocks; expected"),
        (
            {"vision_config": {"model_type": "siglip_vision_model"}},
            r"vision_config has model_type 'siglip_vision_model'",
        ),
        ({"text_config": {"model_type": "opt"}}, r"text_config has model_type 'opt', but the adapter of llava knows"),
    ],
)
def test_models_that_the_adapter_does_not_cover_are_refused(change, message, source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(QuantrustError, match=message), torch.device("meta"):
        build_skeleton(tmp_path)


def test_the_output_of_the_last_block_needs_all_of_them(source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    for layer, running in ((-1, 3), (3, 3), (1, 1), (-3, 1)):
        (tmp_path / "config.json").write_text(json.dumps(config | {"vision_feature_layer": layer}))
        with torch.device("meta"):
            family, model = build_skeleton(tmp_path)
        assert len(family.blocks(model, "vision")) == running


def test_the_published_model_has_its_published_number_of_weights(tmp_path):
    facts = published_models()["llava-hf/llava-1.5-7b-hf"]
    facts.write_files(tmp_path)
    with torch.device("meta"):
        family, model = build_skeleton(tmp_path)
        config = LlavaForConditionalGeneration.config_class.from_pretrained(tmp_path)
        whole = LlavaForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in whole.parameters()) == 7_063_427_072
    # a block of 1,024 channels: four projections, two of the MLP, two norms
    block = 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_063_427_072 - block
    plan = build_layer_plan(family, model, parse_scheme("rtn-w4g128-full"))
    in_blocks = plan.drop_nulls("block").group_by("component").agg((pl.col("rows") * pl.col("columns")).sum())
    # the component study counts the 301,989,888 of all 24 vision blocks
    linears = 4 * 1024 * 1024 + 2 * 1024 * 4096
    assert dict(in_blocks.iter_rows()) == {"vision": 301_989_888 - linears, "language": 6_476_005_376}
    assert planned_bytes(family, model, plan)["bfloat16"] == 2 * (7_063_427_072 - block)
    processor = family.load_processor(str(tmp_path))
    try_processor(str(tmp_path), family, model, processor)
    # 336 pixels in patches of 14, without the class token
    assert picture_cost(family, model, processor, PROMPT, 640, 480).tokens == 24 * 24


@pytest.mark.parametrize("component", ["vision", "language"])
def test_every_fold_keeps_the_logits(component, folder, shapes):
    family, model, processor = load_model(folder)
    # in double precision, because attention this sharp makes much of the rounding of float32
    model.double().requires_grad_(False)
    # weights of one would hide what a norm multiplies by
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.add_(torch.rand(parameter.shape, generator=generator) - 0.5)

    def logits():
        images = features(family, model, processor, shapes)
        inputs = family.language_inputs(model, processor, QUESTIONS, images, template=PROMPT)
        hidden, _ = family.read_prompts(model, inputs)
        return family.logits(model, hidden)[inputs.attention_mask]

    before = logits()
    folded = 0
    for block in family.blocks(model, component):
        for group in family.scale_groups(model, block):
            if group.previous is not None:
                width = model.get_submodule(group.linears[0]).in_features
                fold_scale(model, group, torch.rand(width, generator=generator) * 3 + 0.2)
                folded += 1
    # of a vision block three, of a decoder block without grouped queries all four
    assert folded == 2 * {"vision": 3, "language": 4}[component]
    torch.testing.assert_close(logits(), before, rtol=TOLERANCE, atol=TOLERANCE * float(before.abs().max()))


def test_groups_cover_each_linear_of_a_block_once(loaded):
    family, model, _ = loaded
    for component in STACKS:
        for block in family.blocks(model, component):
            grouped = [name for group in family.scale_groups(model, block) for name in group.linears]
            linears = [layer.name for layer in family.layers(model) if layer.name.startswith(f"{block}.")]
            assert sorted(grouped) == sorted(linears)


def test_nothing_absorbs_a_scale_of_the_connector(loaded):
    family, model, _ = loaded
    (block,) = family.blocks(model, "connector")
    assert [group.previous for group in family.scale_groups(model, block)] == [None, None]


@pytest.mark.parametrize(
    "scheme", ["rtn-w4g32-full", "hqq-w3g64-full", "awq-w4g32-full", "mbq-w4g32", "gptq-w4g32-full"]
)
def test_every_method_quantizes_it(scheme, folder, table, shapes, tmp_path):
    quantize_model(folder, scheme, table, tmp_path / "checkpoint")
    family, model, processor, record = load_checkpoint(tmp_path / "checkpoint")
    with torch.device("meta"):
        _, unquantized = build_skeleton(folder)
    planned = planned_bytes(family, unquantized, build_layer_plan(family, unquantized, parse_scheme(scheme)))
    assert planned == record["bytes"]
    assert planned["weights_file"] == (tmp_path / "checkpoint" / "model.safetensors").stat().st_size
    if scheme.startswith(("awq", "mbq")):
        # q, k and v; o, which takes as many channels as v yields; gate and up; down
        assert [len(entry["linears"]) for entry in record["scales"][-4:]] == [3, 1, 2, 1]
    with torch.inference_mode():
        images = features(family, model, processor, shapes)
        inputs = family.language_inputs(model, processor, QUESTIONS, images, template=PROMPT)
    ends = family.end_token_ids(model, processor)
    decoded = decode_greedily(family, model, inputs, end_token_ids=ends, max_new_tokens=4)
    assert torch.isfinite(decoded.first_logits).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"crop_size": {"height": 10**6, "width": 10**6}},
            "crops pictures to 1000000 x 1000000 pixels (crop_size), but",
        ),
        ({"crop_size": {"height": "x", "width": 56}}, "crop_size has height 'x'; expected a number above 0"),
        ({"size": {"shortest_edge": 10**6}}, "scales pictures to 1,000,000 pixels a side (size), but the vision tower"),
        ({"size": {"height": 10**6, "width": 56}}, "scales pictures to 1,000,000 pixels a side (size), but the vision"),
    ],
    ids=["crop", "no crop", "shorter side", "height"],
)
def test_sizes_of_pictures_are_bounded_by_the_tower_s(source, setting, message, tmp_path):
    folder = shutil.copytree(source, tmp_path / "llava")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **setting}))
    with pytest.raises(QuantrustError) as caught:
        prepare_model(folder, tmp_path / "out", "llava")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_too_thin_to_be_scaled_is_refused_by_its_name(loaded):
    family, _, processor = loaded
    with pytest.raises(QuantrustError, match=r"thin, 2010 x 10, is refused by the model's processor \(its longer side"):
        preprocess_pictures(family, processor, [Image.new("RGB", (2010, 10))], ["thin"])
    assert preprocess_pictures(family, processor, [Image.new("RGB", (2000, 10))], ["thin"]).placeholders
