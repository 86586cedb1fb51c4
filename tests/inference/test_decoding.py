"""Greedy decoding: batches change nothing, and the library's own generation agrees."""

import pytest
import torch

from quantrust.inference.decoding import decode_greedily
from quantrust.models.family import Role
from quantrust.models.loading import load_model

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
    end = processor.tokenizer.convert_tokens_to_ids(family.end_token(processor))
    return inputs, decode_greedily(family, model, inputs, end_token_id=end, max_new_tokens=6)


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
        hidden, _ = family.decode(model, inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids)
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
