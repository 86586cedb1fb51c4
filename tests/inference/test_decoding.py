"""Greedy decoding: batches change nothing, and the library's own generation agrees."""

import json
import shutil

import pytest
import torch

from quantrust.inference.decoding import decode_greedily, read_images
from quantrust.models.family import Role
from quantrust.models.loading import load_model
from quantrust.models.skeleton import build_skeleton

QUESTIONS = [
    "is it?",
    "what color is the red circle?",
    "is there a 3 below it and a 4?",
    "no",
    "yes 1 2 3",
    "top left?",
]
# Sums over at most 64 channels and some 60 tokens in float32: a few dozen units in the last place.
TOLERANCE = 2e-5


@pytest.fixture(scope="module", params=["qwen2_vl", "idefics3"])
def loaded(request, model_folders):
    return load_model(model_folders[request.param])


def _decode(loaded, questions, images):
    family, model, processor = loaded
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, images))
        inputs = family.language_inputs(model, processor, questions, encoded)
    ends = family.end_token_ids(model, processor)
    return inputs, decode_greedily(family, model, inputs, end_token_ids=ends, max_new_tokens=6)


def test_a_batch_answers_as_single_questions_do(loaded, pictures):
    _, together = _decode(loaded, QUESTIONS, pictures)
    for k, question in enumerate(QUESTIONS):
        _, alone = _decode(loaded, [question], [pictures[k]])
        assert together.token_ids[k] == alone.token_ids[0]
        assert together.token_log_probs[k] == pytest.approx(alone.token_log_probs[0], abs=TOLERANCE)
        for name in ("first_logits", "image_state", "question_state", "answer_state"):
            torch.testing.assert_close(
                getattr(together, name)[k], getattr(alone, name)[0], atol=TOLERANCE, rtol=TOLERANCE
            )


def test_a_picture_about_which_nothing_is_asked_has_the_last_state_of_its_prompt_for_a_question(loaded, pictures):
    _, decoded = _decode(loaded, ["", "is it?"], pictures[:2])
    assert torch.equal(decoded.question_state[0], decoded.answer_state[0])
    assert torch.isfinite(decoded.question_state).all()
    assert not torch.equal(decoded.question_state[1], decoded.answer_state[1])


def test_prompts_that_end_with_their_image_are_read_whole(loaded, pictures):
    family, model, processor = loaded
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, pictures[:2]))
        prompts = family.language_inputs(model, processor, QUESTIONS[:2], encoded).up_to_image()
    ends = family.end_token_ids(model, processor)
    whole = decode_greedily(family, model, prompts, end_token_ids=ends, max_new_tokens=3)
    read = read_images(family, model, prompts)
    going_on = decode_greedily(family, model, prompts, end_token_ids=ends, max_new_tokens=3, read=read)
    assert going_on.token_log_probs == whole.token_log_probs
    for name in ("first_logits", "image_state", "question_state", "answer_state"):
        assert torch.equal(getattr(going_on, name), getattr(whole, name))


def test_answers_equal_those_of_the_library_s_generate(loaded, pictures):
    family, model, processor = loaded
    inputs, decoded = _decode(loaded, QUESTIONS[:2], pictures[:2])
    vision = family.preprocess(processor, pictures[:2])
    kwargs = dict(vision.tensors)
    if family.name == "qwen2_vl":
        kwargs["mm_token_type_ids"] = (inputs.roles == Role.IMAGE).int()
    output = model.generate(
        input_ids=inputs.token_ids,
        attention_mask=inputs.attention_mask.long(),
        do_sample=False,
        max_new_tokens=6,
        output_logits=True,
        return_dict_in_generate=True,
        **kwargs,
    )
    new = output.sequences[:, inputs.token_ids.shape[1] :]
    for row, tokens in enumerate(decoded.token_ids):
        assert new[row, : len(tokens)].tolist() == tokens
        expected = [
            torch.log_softmax(output.logits[k][row].float(), -1)[token].item() for k, token in enumerate(tokens)
        ]
        assert decoded.token_log_probs[row] == pytest.approx(expected, abs=TOLERANCE)


def test_pooled_states_are_maxima_over_the_tokens_of_their_role(loaded, pictures):
    family, model, _ = loaded
    inputs, decoded = _decode(loaded, QUESTIONS[1:3], pictures[1:3])
    with torch.inference_mode():
        hidden, _ = family.read_prompts(model, inputs)
    for row in range(2):
        for role, name in ((Role.IMAGE, "image_state"), (Role.QUESTION, "question_state")):
            expected = torch.stack([h for h, r in zip(hidden[row], inputs.roles[row], strict=True) if r == role]).amax(
                0
            )
            torch.testing.assert_close(getattr(decoded, name)[row], expected, atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(decoded.answer_state[row], hidden[row, -1], atol=TOLERANCE, rtol=TOLERANCE)


def test_question_tokens_spell_the_question_and_image_tokens_are_as_many_as_features(loaded, pictures):
    _, _, processor = loaded
    inputs, _ = _decode(loaded, QUESTIONS[1:2], pictures[:1])
    question = processor.tokenizer.decode(inputs.token_ids[0][inputs.roles[0] == Role.QUESTION])
    assert question.strip() == QUESTIONS[1]
    assert int((inputs.roles[0] == Role.IMAGE).sum()) == 16


def test_an_answer_ends_at_the_first_of_any_end_token(loaded, pictures):
    family, model, processor = loaded
    inputs, unended = _decode(loaded, QUESTIONS, pictures)
    tokens = max(unended.token_ids, key=len)
    assert len(tokens) > 2
    ends = (*family.end_token_ids(model, processor), tokens[1])
    decoded = decode_greedily(family, model, inputs, end_token_ids=ends, max_new_tokens=6)
    row = unended.token_ids.index(tokens)
    assert decoded.token_ids[row] == tokens[: tokens.index(tokens[1]) + 1]
    assert decoded.finished[row]
    assert len(decoded.token_log_probs[row]) == len(decoded.token_ids[row])


def test_rows_whose_answer_has_ended_are_left_out_and_the_others_go_on_as_before(loaded, pictures, monkeypatch):
    family, model, processor = loaded
    with torch.inference_mode():
        encoded = family.encode_images(model, family.preprocess(processor, pictures))
        inputs = family.language_inputs(model, processor, QUESTIONS, encoded)
    endless = decode_greedily(family, model, inputs, end_token_ids=(), max_new_tokens=6)
    # ends the first answer, and every other one in which it comes up, at its first place
    ends = {endless.token_ids[0][1], endless.token_ids[1][1], endless.token_ids[2][1], endless.token_ids[3][2]}
    rows, decode = [], type(family).decode

    def spied(self, model, inputs_embeds, *rest):
        rows.append(len(inputs_embeds))
        return decode(self, model, inputs_embeds, *rest)

    monkeypatch.setattr(type(family), "decode", spied)
    decoded = decode_greedily(family, model, inputs, end_token_ids=ends, max_new_tokens=6)
    lengths = [
        next((place + 1 for place, token in enumerate(tokens) if token in ends), 6) for tokens in endless.token_ids
    ]
    assert decoded.token_ids == [tokens[:length] for tokens, length in zip(endless.token_ids, lengths, strict=True)]
    for found, whole, length in zip(decoded.token_log_probs, endless.token_log_probs, lengths, strict=True):
        assert found == pytest.approx(whole[:length], abs=TOLERANCE)
    assert decoded.finished == [tokens[-1] in ends for tokens in decoded.token_ids]
    expected, now = [6], 6
    for step in range(1, max(lengths)):
        unanswered = sum(length > step for length in lengths)
        # half of a batch may be answered before it gets smaller
        now = unanswered if unanswered <= now / 2 else now
        expected.append(now)
    assert rows == expected
    assert rows[-1] < 6


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
def test_the_end_tokens_are_the_turn_s_and_those_of_the_folder(family_name, model_folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folders[family_name], folder)
    _, model, processor = load_model(folder)
    family, skeleton = build_skeleton(folder)
    own = processor.tokenizer.eos_token_id
    assert family.end_token_ids(model, processor) == family.end_token_ids(skeleton, processor) == (own,)

    # as Qwen2-VL-7B-Instruct has it
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [own, 0]}))
    _, model, _ = load_model(folder)
    _, skeleton = build_skeleton(folder)
    assert family.end_token_ids(model, processor) == family.end_token_ids(skeleton, processor) == (own, 0)

    # as Idefics3-8B-Llama3 has it: no such file, and the end tokens of Llama, without its own, in the text model's part
    path.unlink()
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = [3, 4]
    (folder / "config.json").write_text(json.dumps(config))
    _, model, _ = load_model(folder)
    _, skeleton = build_skeleton(folder)
    assert family.end_token_ids(model, processor) == family.end_token_ids(skeleton, processor) == (own, 3, 4)
