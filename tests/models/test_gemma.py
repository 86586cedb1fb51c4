"""Gemma 3 and PaliGemma: which tokens of a prompt see each other, crops, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.models.family import Role
from quantrust.models.loading import load_model
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.scheme import parse_scheme, resolve_scheme
from tiny import write_tiny

ASKED = "Is it red?"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("gemma")
    for family in ("gemma3", "paligemma"):
        write_tiny(top / family, family)
    return top


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 97, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["gemma3", "paligemma"])
def test_what_a_prompt_s_tokens_see(name, folders, picture):
    family, model, processor = load_model(folders / name)
    with torch.inference_mode():
        images = family.encode_images(model, family.preprocess(processor, [picture]))
        inputs = family.language_inputs(model, processor, [ASKED], images, answers=["red"])
        roles = inputs.roles[0]

        def changed(place: int) -> torch.Tensor:
            """Return which tokens' states change with one token's embedding."""
            embeds = inputs.inputs_embeds.clone()
            embeds[0, place] += 1
            both = [family.read_prompts(model, replace(inputs, inputs_embeds=some))[0][0] for some in (embeds, plain)]
            return (both[0] - both[1]).abs().amax(dim=-1) > 0

        plain = inputs.inputs_embeds
        image, question, answer = ((roles == role).nonzero()[:, 0] for role in (Role.IMAGE, Role.QUESTION, Role.ANSWER))
        # the last token of the image reaches the first one
        by_image = changed(int(image[-1]))
        assert by_image[image].all() and by_image[question].all() and by_image[answer].all()
        by_question = changed(int(question[-1]))
        # in PaliGemma a question reaches the image before it, in Gemma 3 nothing that comes before
        assert by_question[image].all() == by_question[image].any() == (name == "paligemma")
        assert by_question[answer].all()
        # an answer reaches no token before it: what is taught is what is generated
        by_answer = changed(int(answer[1]))
        assert by_answer[answer[1]] and not by_answer[: int(answer[1])].any()


def test_crops_of_a_picture_are_read_as_the_library_reads_them(folders, picture):
    family, model, processor = load_model(folders / "gemma3")
    settings = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
    for key, value in settings.items():
        setattr(processor.image_processor, key, value)
    square = picture.resize((50, 50))
    content = [{"type": "image"}, {"type": "text", "text": ASKED}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    given = processor(
        text=[text, text],
        images=[[picture], [square]],
        images_kwargs=settings,
        text_kwargs={"padding": True, "add_special_tokens": False},
        return_tensors="pt",
    )
    with torch.inference_mode():
        images = family.encode_images(model, family.preprocess(processor, [picture, square]))
        inputs = family.language_inputs(model, processor, [ASKED, ASKED], images)
        hidden, _ = family.read_prompts(model, inputs)
        positions = inputs.position_ids
        theirs = model(**given, position_ids=positions, output_hidden_states=True).hidden_states[-1]
    # three crops of the tall picture beside the whole, none of the square
    assert [len(image.features) for image in images] == [4 * 16, 16]
    assert torch.equal(inputs.token_ids, given["input_ids"])
    torch.testing.assert_close(hidden[inputs.attention_mask], theirs[inputs.attention_mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gemma3", "paligemma"])
def test_an_attention_without_masks_is_refused(name, folders):
    with pytest.raises(QuantrustError, match=r"parts that flash_attention_2 cannot run .* set compute\.attention"):
        build_skeleton(folders / name, "flash_attention_2")


def test_paligemma_2_is_refused_by_name(tmp_path):
    write_tiny(tmp_path / "model", "paligemma")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"text_config": config["text_config"] | {"model_type": "gemma2"}}))
    with pytest.raises(QuantrustError, match=r"text_config has model_type 'gemma2', but the adapter of paligemma .*2 "):
        build_skeleton(tmp_path / "model")


def test_a_connector_that_is_no_layer_is_left_out_of_presets_and_refused_in_a_table(folders):
    family, model = build_skeleton(folders / "gemma3")
    plan = build_layer_plan(family, model, parse_scheme("rtn-w4g32-full"))
    assert set(plan.drop_nulls("bits")["component"]) == {"vision", "language", "embedding", "head"}
    rows = [{"component": component, "bits": 4} for component in ("language", "connector")]
    table = resolve_scheme("custom", {"method": "rtn", "group": 32, "symmetric": False, "table": rows})
    with pytest.raises(
        QuantrustError, match=r"connector: 4 bits selects no layer of this gemma3 model \(the model has"
    ):
        build_layer_plan(family, model, table)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("tokenizer_config.json", {"extra_special_tokens": {}}, r"does not say which token is boi_token, image_token"),
        ("preprocessor_config.json", {"size": {"height": 56, "width": 56}}, r"makes pictures of 56 x 56 pixels .* 112"),
        ("preprocessor_config.json", {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 0}, r"crop_size 0; expec"),
    ],
)
def test_files_that_do_not_fit_are_refused(file, change, message, tmp_path):
    write_tiny(tmp_path / "model", "gemma3")
    path = tmp_path / "model" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    family, _ = build_skeleton(tmp_path / "model")
    with pytest.raises(QuantrustError, match=message):
        family.load_processor(str(tmp_path / "model"))
