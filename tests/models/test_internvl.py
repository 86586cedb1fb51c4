"""InternVL: the decoders that its adapter knows, how pictures become tiles, and folders that are refused."""

import json

import pytest
import torch
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.models.loading import load_model
from quantrust.models.processing import override_processor
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.folding import fold_scale
from tiny import write_tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("internvl") / "source"
    write_tiny(folder, "internvl", changes={"text_config": {"model_type": "qwen3", "head_dim": 16}})
    return folder


def test_a_decoder_of_qwen3_is_read_as_the_library_reads_it_and_folded(source):
    family, model, processor = load_model(source)
    model.double().requires_grad_(False)
    pictures = [Image.linear_gradient("L").convert("RGB").resize(size) for size in ((56, 56), (112, 50))]
    vision = family.preprocess(processor, pictures)
    with torch.inference_mode():
        prompts = family.language_inputs(model, processor, ["Is it red?"] * 2, family.encode_images(model, vision))
        before = family.logits(model, family.read_prompts(model, prompts)[0])[:, -1]
        theirs = model(
            input_ids=prompts.token_ids,
            attention_mask=prompts.attention_mask.long(),
            position_ids=prompts.position_ids,
            pixel_values=vision.tensors["pixel_values"].double(),
        ).logits[:, -1]
        torch.testing.assert_close(before, theirs, rtol=1e-9, atol=1e-9)
        for block in family.blocks(model, "language"):
            for group in family.scale_groups(model, block):
                if group.previous is not None:
                    width = model.get_submodule(group.linears[0]).in_features
                    fold_scale(model, group, torch.linspace(0.3, 3, width))
        after = family.logits(model, family.read_prompts(model, prompts)[0])[:, -1]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"text_config": {"model_type": "gemma2"}},
            r"text_config has model_type 'gemma2', but the adapter of internvl",
        ),
        ({"vision_feature_layer": -2}, r"vision_feature_layer is -2, but the adapter of internvl reads the output of"),
    ],
)
def test_models_that_the_adapter_does_not_cover_are_refused(change, message, source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(QuantrustError, match=message), torch.device("meta"):
        build_skeleton(tmp_path)


def test_a_study_sets_into_how_many_tiles_pictures_are_cut(source, tmp_path):
    family, _, _ = load_model(source)
    wide = [Image.new("RGB", (300, 60))]
    for settings, tiles in (({}, 6), ({"max_patches": 2}, 3), ({"max_patches": 1}, 1)):
        folder = tmp_path / str(tiles)
        folder.mkdir()
        for path in source.glob("*.json"):
            (folder / path.name).write_bytes(path.read_bytes())
        override_processor(folder, settings)
        processor = family.load_processor(str(folder))
        assert family.preprocess(processor, wide).tensors["num_patches"].tolist() == [tiles]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "preprocessor_config.json",
            {"size": {"height": 448, "width": 448}},
            r"tiles of 448 x 448 pixels \(size\), but the vision tower reads 56 x 56",
        ),
        ("preprocessor_config.json", {"max_patches": 10**6}, r"min_patches 1 to max_patches 1000000 tiles; expected"),
        ("preprocessor_config.json", {"max_patches": "x"}, r"min_patches 1 to max_patches 'x' tiles; expected whole"),
        ("tokenizer_config.json", {"extra_special_tokens": []}, r"does not name the tokens around an image"),
    ],
)
def test_a_processor_that_does_not_fit_is_refused_by_name(file, change, message, source, tmp_path):
    family, _, _ = load_model(source)
    for path in source.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(QuantrustError, match=message):
        family.load_processor(str(tmp_path))
