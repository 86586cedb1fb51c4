"""What a model is trained on is what it is asked later: the same tokens in the same places."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from quantrust.embedded.models import SPECS, build_model, train_tokenizer
from quantrust.embedded.shared_prefix import ATTENTION
from quantrust.embedded.training.language import IGNORED, Sequences, corpus, language_cycles, language_stage
from quantrust.embedded.training.settings import TrainingSettings
from quantrust.embedded.training.stage import Learner
from quantrust.embedded.training.train import processor_for
from quantrust.embedded.training.training_set import TrainingSet
from quantrust.embedded.training.vision import encode_all
from quantrust.models.loading import load_family

SMALL = {"layers": 1, "vision_layers": 2}
SETTINGS = TrainingSettings(images=3, questions=4, questions_per_step=2, people_s_captions=True, slots_by_length=True)


@pytest.fixture(scope="module")
def scenes():
    return TrainingSet(SETTINGS)


def learner_of(spec, scenes, folder):
    family = load_family(spec.family)
    tokenizer = train_tokenizer(corpus(scenes, spec), spec.family)
    model = build_model(spec, tokenizer, 0)
    return Learner(family, spec, model, processor_for(family, model, tokenizer, folder))


@pytest.mark.parametrize("name", ["qwen2-vl-tiny", "idefics3-tiny", "llava-tiny", "blip2-tiny"])
@pytest.mark.parametrize("by_length", [True, False])
def test_segments_are_the_prompts_and_answers_of_the_family(name, by_length, scenes, tmp_path):
    spec, settings = replace(SPECS[name], **SMALL), replace(SETTINGS, slots_by_length=by_length)
    learner = learner_of(spec, scenes, tmp_path)
    family, model, processor = learner.family, learner.model, learner.processor
    sequences = Sequences(learner, scenes, settings)
    batch = sequences.batch(np.array([0, 2]), np.random.default_rng(0), captions=True)
    starts = [*batch.layout.slot_starts(), batch.layout.length]
    with torch.no_grad():
        images = family.encode_images(model, family.preprocess(processor, [scenes.images[0], scenes.images[2]]))
    seen = []
    for row, image in zip((0, 2), images, strict=True):
        asked = [(spec.prompt, *pair) for pair in scenes.questions[row]]
        asked += [("{question}", spec.caption_prompt, text) for text in scenes.captions[row]]
        expected = {}
        for template, question, answer in asked:
            inputs = family.language_inputs(model, processor, [question], [image], template=template, answers=[answer])
            expected[tuple(inputs.token_ids[0].tolist())] = (inputs, len(family.answer_tokens(processor, answer)))
        place = 0 if row == 0 else 1
        for start, stop in pairwise(starts):
            learned = (batch.labels[place, start:stop] != IGNORED).nonzero()
            end = start + int(learned.max()) + 2
            tokens = [*sequences.prefix.tolist(), *batch.ids[place, start:end].tolist()]
            inputs, answer_tokens = expected[tuple(tokens)]
            assert len(learned) == answer_tokens
            positions = batch.positions[..., place, [*range(len(sequences.prefix)), *range(start, end)]]
            assert torch.equal(positions, inputs.position_ids[..., 0, :])
            seen.append(tuple(tokens))
    assert len(set(seen)) == 2 * (settings.questions_per_step + 1)


def test_products_are_computed_in_the_precision_of_the_settings(scenes, tmp_path):
    learner = learner_of(replace(SPECS["llava-tiny"], **SMALL), scenes, tmp_path)
    family, model = learner.family, learner.model
    sequences = Sequences(learner, scenes, SETTINGS)
    features = torch.stack([image.features for image in encode_all(learner, scenes)])
    model.get_submodule(family.decoder).set_attn_implementation(ATTENTION)
    dtypes = {}
    for precision in ("bfloat16", "float32"):
        seen = dtypes.setdefault(precision, set())
        hook = model.get_submodule(family.head).register_forward_hook(lambda *call, seen=seen: seen.add(call[2].dtype))
        settings = replace(SETTINGS, precision=precision)
        stage = language_stage(learner, sequences, features, settings, language_cycles(settings)[0])
        loss, _ = stage.loss(0, np.array([0, 2]), np.random.default_rng(0))
        hook.remove()
        assert loss.dtype == torch.float32
    assert dtypes == {"bfloat16": {torch.bfloat16}, "float32": {torch.float32}}
