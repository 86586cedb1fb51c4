"""The language stages: a language model learns to answer questions and to write captions.

It learns alone, on image features that no longer change. The questions and the caption of one image share its prefix
(`quantrust.embedded.shared_prefix`). Matrix products of the language model run in bfloat16 or in float32, as the
settings say; attention, losses and weights are float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from quantrust.embedded.models import EmbeddedSpec
from quantrust.embedded.shared_prefix import ATTENTION, Layout
from quantrust.embedded.training import vision
from quantrust.embedded.training.settings import TrainingSettings, cosine_rate
from quantrust.embedded.training.stage import Learner, Purpose, Run, Stage
from quantrust.embedded.training.training_set import TrainingSet

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """The segments of one image, each as its token ids and the number of those that are the prompt's."""

    questions: list[tuple[np.ndarray, int]]
    captions: list[tuple[np.ndarray, int]]


def corpus(data: TrainingSet, spec: EmbeddedSpec) -> Iterator[str]:
    """Yield text for the tokenizer."""
    for questions, captions in zip(data.questions, data.captions, strict=True):
        for question, answer in (*questions, *((spec.caption_prompt, text) for text in captions)):
            yield f"user\nassistant\nUser: {question}\nAssistant: {answer}"
            yield answer


def _language_rate(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of the language model's first cycle: the cosine of the horizon, a linear cool-down."""
    start = settings.language_steps - settings.language_cooldown
    rate = cosine_rate(min(step, start), settings.language_horizon, settings, settings.language_rate)
    if step <= start:
        return rate
    floor = 0.02 * settings.language_rate
    return rate + (floor - rate) * ((step - start) / settings.language_cooldown)


def _refining_rate(step: int, settings: TrainingSettings) -> float:
    return cosine_rate(step, settings.refining_steps, settings, settings.refining_rate)


@dataclass(frozen=True)
class Cycle:
    """One pass of the language model's schedule, with an optimizer and an order of the images of its own."""

    stage: str
    steps: int
    rate: Callable[[int, TrainingSettings], float]
    stream: int
    refines: bool


def language_cycles(settings: TrainingSettings) -> list[Cycle]:
    """Return the cycles of the language model in their order."""
    cycles = [Cycle("language", settings.language_steps, _language_rate, stream=2, refines=False)]
    for number in range(settings.refining_cycles if settings.refining_steps else 0):
        name = f"refining-{number + 1}" if number else "refining"
        cycles.append(Cycle(name, settings.refining_steps, _refining_rate, stream=3 + number, refines=True))
    return cycles


def _shared_beginning(first: str, second: str) -> str:
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


class Sequences:
    """Builds batches in which the segments of an image follow its prefix."""

    def __init__(self, learner: Learner, data: TrainingSet, settings: TrainingSettings) -> None:
        family, model, processor, spec = learner.family, learner.model, learner.processor, learner.spec
        tokenizer = processor.tokenizer
        first = family.preprocess(processor, data.images[:1])
        with torch.no_grad():
            image = family.encode_images(model, first)
        prompt = family.language_inputs(model, processor, [data.questions[0][0][0]], image, template=spec.prompt)
        (question_start, question_end), (caption_start, caption_end) = (
            family.prompt_frame(processor, template) for template in (spec.prompt, "{question}")
        )
        before = _shared_beginning(question_start, caption_start)
        self.prefix = np.array(
            tokenizer(
                before.replace(family.image_token(processor), first.placeholders[0]), add_special_tokens=False
            ).input_ids
        )
        # The prefix of a real prompt gives the positions that inference will use.
        if not np.array_equal(prompt.token_ids[0, : len(self.prefix)].numpy(), self.prefix):
            raise RuntimeError("the tokenizer merges tokens across the end of the image prefix")
        self.prefix_positions = prompt.position_ids[..., 0, : len(self.prefix)]
        self.image_places = self.prefix == tokenizer.convert_tokens_to_ids(family.image_token(processor))
        self.questions_per_step, self.slots_by_length = settings.questions_per_step, settings.slots_by_length
        self.padding = tokenizer.pad_token_id
        end = family.end_token(processor)

        def segments(
            texts: list[list[tuple[str, str]]], start: str, stop: str
        ) -> Iterator[list[tuple[np.ndarray, int]]]:
            asked = [start + question + stop for pairs in texts for question, _ in pairs]
            answered = [family.answer_prefix + answer + end for pairs in texts for _, answer in pairs]
            prompts, answers = (
                tokenizer(texts, add_special_tokens=False).input_ids if texts else [] for texts in (asked, answered)
            )
            tokens = iter((np.array(p + a, dtype=np.int32), len(p)) for p, a in zip(prompts, answers, strict=True))
            for pairs in texts:
                yield [next(tokens) for _ in pairs]

        self.examples = [
            Example(questions, captions)
            for questions, captions in zip(
                segments(data.questions, question_start[len(before) :], question_end),
                segments(
                    [[(spec.caption_prompt, text) for text in captions] for captions in data.captions],
                    caption_start[len(before) :],
                    caption_end,
                ),
                strict=True,
            )
        ]

    def batch(self, rows: np.ndarray, rng: np.random.Generator, captions: bool) -> "Batch":
        """Return one batch of images: their prefix, a slot per question, and perhaps one for the caption."""
        prefix, slots = len(self.prefix), self.questions_per_step
        chosen = []
        for row in rows:
            example = self.examples[row]
            picked = [example.questions[int(k)] for k in rng.permutation(len(example.questions))[:slots]]
            if self.slots_by_length:
                picked.sort(key=lambda segment: -len(segment[0]))
            if captions:
                several = len(example.captions) > 1
                picked.append(example.captions[int(rng.integers(len(example.captions))) if several else 0])
            chosen.append(picked)
        lengths = [max(len(segments[slot][0]) for segments in chosen) for slot in range(len(chosen[0]))]
        runs = [(1, length) for length in lengths[:slots]] if self.slots_by_length else [(slots, max(lengths[:slots]))]
        runs += [(1, length) for length in lengths[slots:]]
        layout = Layout(prefix, tuple(runs))
        starts = layout.slot_starts()
        ids = np.full((len(rows), layout.length), self.padding, dtype=np.int64)
        labels = np.full((len(rows), layout.length), IGNORED, dtype=np.int64)
        ids[:, :prefix] = self.prefix
        for b, segments in enumerate(chosen):
            for start, (tokens, prompt) in zip(starts, segments, strict=True):
                stop = start + len(tokens)
                ids[b, start:stop] = tokens
                labels[b, start + prompt - 1 : stop - 1] = tokens[prompt:]
        after = layout.offsets() + int(self.prefix_positions.max()) + 1
        positions = after.expand(*self.prefix_positions.shape[:-1], -1).clone()
        positions[..., :prefix] = self.prefix_positions
        positions = positions[..., None, :].expand(*positions.shape[:-1], len(rows), -1)
        return Batch(torch.from_numpy(ids), positions, torch.from_numpy(labels), layout)


@dataclass(frozen=True)
class Batch:
    """Token ids and labels of shape (images, tokens), positions as the family wants them, and the layout."""

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    layout: Layout


def language_stage(
    learner: Learner, sequences: Sequences, features: torch.Tensor, settings: TrainingSettings, cycle: Cycle
) -> Stage:
    """Return one cycle in which the language model learns on cached image features."""
    family, model = learner.family, learner.model
    places = torch.from_numpy(np.flatnonzero(sequences.image_places))
    decoder = model.get_submodule(family.decoder)

    def loss(step: int, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch = sequences.batch(rows, rng, captions=step % settings.caption_every == 0)
        wanted = batch.labels != IGNORED
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
            embeds = model.get_submodule(family.embedding)(batch.ids)
            embeds = embeds.index_copy(1, places, features[torch.from_numpy(rows)])
            hidden = decoder(
                inputs_embeds=embeds,
                attention_mask=batch.layout.as_mask(),
                position_ids=batch.positions,
                use_cache=False,
                layout=batch.layout,
            ).last_hidden_state
            logits = family.logits(model, hidden[wanted]).float()
        loss = F.cross_entropy(logits, batch.labels[wanted])
        return loss, {"accuracy": (logits.detach().argmax(-1) == batch.labels[wanted]).float().mean()}

    return Stage(
        cycle.stage,
        cycle.steps,
        settings.language_batch,
        lambda step: cycle.rate(step, settings),
        cycle.stream,
        {"model": model},
        learner.weights_beside(vision.TRAINED),
        loss,
    )


def train(learner: Learner, data: TrainingSet, run: Run) -> None:
    """Train the language model alone, for all its cycles."""
    family, model = learner.family, learner.model
    features = _features(learner, data)
    sequences = Sequences(learner, data, run.settings)
    model.get_submodule(family.decoder).set_attn_implementation(ATTENTION)
    for cycle in language_cycles(run.settings):
        if cycle.refines and run.settings.refine_rounded:
            round_weights(model)
            features = _features(learner, data)
        run.train(language_stage(learner, sequences, features, run.settings, cycle))


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round every weight to the nearest number of bfloat16, in which the folder of a model has it."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())


def _features(learner: Learner, data: TrainingSet) -> torch.Tensor:
    """Return the image features of the whole training set, shape (images, tokens, hidden)."""
    return torch.stack([image.features for image in vision.encode_all(learner, data)])


PURPOSE = Purpose(corpus, lambda settings: tuple(cycle.stage for cycle in language_cycles(settings)), train)
