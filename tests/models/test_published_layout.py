"""Folders as the published models have them: shards under old names, real processors, special tokens at their ids."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from published_layout import FULL_WIDTH, MINI, build_tokenizer, published_name, write_model_folder
from quantrust.inference.decoding import decode_greedily
from quantrust.models.family import Role
from quantrust.models.loading import load_model
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.checkpoint import load_checkpoint, planned_bytes
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import parse_scheme

FAMILIES = ["qwen2_vl", "idefics3", "llava"]
PROMPT = "{question}\nAnswer the question using a single word or phrase."
QUESTIONS = ["What color is the large shape?", "Is it red?", "How many shapes are there?", "Which shape is it? one?"]
# Widths and heights: enlarged, reduced, narrow, and as they are.
SIZES = [(40, 60), (640, 480), (30, 300), (97, 101)]
# Pictures of at most so many pixels, or of so long an edge.
PROCESSORS = {"qwen2_vl": {"max_pixels": 112 * 112}, "idefics3": {"size": {"longest_edge": 168}}, "llava": {}}
# Log-probabilities in float32.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Mini models as they are published, and as a study prepares them under `PROCESSORS`."""
    top = tmp_path_factory.mktemp("published")
    for family in FAMILIES:
        write_model_folder(top / family, family, MINI[family])
        prepare_model(top / family, top / "prepared" / family, family, processor=PROCESSORS[family])
    return top


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, folders):
    return load_model(folders / "prepared" / request.param)


@pytest.fixture(scope="module")
def many_sizes():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


def _answer(family, model, processor, questions, images):
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, images))
        inputs = family.language_inputs(model, processor, questions, encoded, template=PROMPT)
    ends = family.end_token_ids(model, processor)
    return inputs, decode_greedily(family, model, inputs, end_token_ids=ends, max_new_tokens=6)


@pytest.mark.parametrize("family_name", FAMILIES)
def test_every_published_weight_is_loaded_under_its_new_name(family_name, folders):
    shards = sorted((folders / family_name).glob("*.safetensors"))
    assert len(shards) > 2
    stored = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    _, model, _ = load_model(folders / family_name, torch.bfloat16)
    held = {published_name(family_name, name): tensor for name, tensor in model.state_dict().items()}
    left_out = stored.keys() - held.keys()
    # the last block of LLaVA's tower never runs
    idle = "vision_tower.vision_model.encoder.layers.2."
    assert left_out == ({name for name in stored if name.startswith(idle)} if family_name == "llava" else set())
    assert bool(left_out) == (family_name == "llava")
    assert all(torch.equal(held[name], stored[name]) for name in held)


def test_special_tokens_have_their_published_ids():
    """As the published configs name them by number."""
    qwen = build_tokenizer("qwen2_vl", FULL_WIDTH["qwen2_vl"])
    named = {"<|endoftext|>": 151643, "<|im_end|>": 151645, "<|vision_start|>": 151652, "<|image_pad|>": 151655}
    assert {token: qwen.token_to_id(token) for token in named} == named
    idefics = build_tokenizer("idefics3", FULL_WIDTH["idefics3"])
    named = {"<|begin_of_text|>": 128000, "<|reserved_special_token_0|>": 128002, "<|eot_id|>": 128009}
    named |= {"<image>": 128257, "<end_of_utterance>": 128258}
    assert {token: idefics.token_to_id(token) for token in named} == named
    assert idefics.get_vocab_size() == FULL_WIDTH["idefics3"].vocabulary
    llava = build_tokenizer("llava", FULL_WIDTH["llava"])
    named = {"<s>": 1, "</s>": 2, "<0x0A>": 13, "<image>": 32000, "<pad>": 32001}
    assert {token: llava.token_to_id(token) for token in named} == named


def test_prompts_are_those_of_the_published_templates(loaded):
    family, _, processor = loaded
    short = "\nAnswer the question using a single word or phrase."
    assert (
        family.prompt_frame(processor, PROMPT)
        == {
            "qwen2_vl": (
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
                "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>",
                f"{short}<|im_end|>\n<|im_start|>assistant\n",
            ),
            "idefics3": ("<|begin_of_text|>User:<image>", f"{short}<end_of_utterance>\nAssistant:"),
            "llava": ("<s>USER: <image>\n", f"{short} ASSISTANT:"),
        }[family.name]
    )


def test_pictures_take_tokens_by_their_size(loaded, many_sizes):
    family, model, processor = loaded
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, many_sizes))
    found = [len(image.features) for image in encoded]
    if family.name == "qwen2_vl":
        # A token is 28 x 28 pixels of 14 x 14 patches. The smallest grows to 56 x 84, as 3,136 pixels need; the largest
        # shrinks to 112 x 84; the others go to the nearest multiples, 28 x 308 and 84 x 112.
        assert [image.grid for image in encoded] == [(1, 6, 4), (1, 6, 8), (1, 22, 2), (1, 8, 6)]
        assert found == [6, 12, 11, 12]
    elif family.name == "llava":
        # all become squares of 56 pixels, 4 patches a side
        assert found == [16] * 4
    else:
        # The long edge becomes 168, three tiles of 56 with 4 tokens each; the short one as many as it takes; and the
        # whole picture as one more.
        tiles = [(3, 2), (3, 3), (3, 1), (3, 3)]
        assert found == [4 * (long * short + 1) for long, short in tiles]


def test_a_batch_of_pictures_of_many_sizes_answers_as_each_alone(loaded, many_sizes):
    family, model, processor = loaded
    inputs, together = _answer(family, model, processor, QUESTIONS, many_sizes)
    # of LLaVA only the questions differ in length, and two of them do not
    lengths = {int((roles != Role.PAD).sum()) for roles in inputs.roles}
    assert len(lengths) == (3 if family.name == "llava" else len(QUESTIONS))
    for k, question in enumerate(QUESTIONS):
        _, alone = _answer(family, model, processor, [question], many_sizes[k : k + 1])
        assert together.token_ids[k] == alone.token_ids[0]
        assert together.token_log_probs[k] == pytest.approx(alone.token_log_probs[0], abs=TOLERANCE)
        for name in ("image_state", "question_state", "answer_state"):
            torch.testing.assert_close(
                getattr(together, name)[k], getattr(alone, name)[0], atol=TOLERANCE, rtol=TOLERANCE
            )


def test_prompts_of_many_tiles_are_those_of_the_processor(loaded, many_sizes):
    family, model, processor = loaded
    for question, picture in zip(QUESTIONS, many_sizes, strict=True):
        with torch.inference_mode():
            images = family.encode_images(model, family.preprocess(processor, [picture]))
            inputs = family.language_inputs(model, processor, [question], images)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        pictures = [[picture]] if family.name == "idefics3" else [picture]
        # LLaVA's template leaves the token that begins a text to the tokenizer; those of the others write it
        expected = processor(text=[text], images=pictures, add_special_tokens=family.name == "llava")
        assert inputs.token_ids[0].tolist() == expected["input_ids"][0]


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("scheme", ["bf16", "hqq-w4g64", "rtn-w3g64-mixed"])
def test_checkpoints_of_published_folders_have_the_planned_size_and_answer(family_name, scheme, folders, tmp_path):
    quantize_model(folders / "prepared" / family_name, scheme, None, tmp_path / "checkpoint")
    family, model, processor, record = load_checkpoint(tmp_path / "checkpoint")
    _, unquantized, _ = load_model(folders / family_name)
    planned = planned_bytes(family, unquantized, build_layer_plan(family, unquantized, parse_scheme(scheme)))
    assert planned == record["bytes"]
    assert planned["weights_file"] == (tmp_path / "checkpoint" / "model.safetensors").stat().st_size
    copied = json.loads((tmp_path / "checkpoint" / "preprocessor_config.json").read_text())
    assert copied.items() >= PROCESSORS[family_name].items()
    picture = [Image.new("RGB", (120, 90), "red")]
    _, model_before, processor_before = load_model(folders / "prepared" / family_name)
    _, before = _answer(family, model_before, processor_before, QUESTIONS[:1], picture)
    _, after = _answer(family, model, processor, QUESTIONS[:1], picture)
    assert torch.isfinite(after.first_logits).all()
    assert torch.equal(after.first_logits, before.first_logits) == (scheme == "bf16")
