"""Training an embedded model from scratch, in two stages.

First the vision tower and the connector learn, through throw-away heads, to say what stands in each cell of a scene;
then the language model alone learns to answer questions and to write captions on frozen image features. The questions
and the caption of one image share its prefix (`quantrust.embedded.shared_prefix`). Matrix products of the
language model run in bfloat16 or in float32, as the settings say; attention, losses and weights are float32.

Training takes hours. It goes on from its last checkpoint (`quantrust.embedded.checkpoints`) and then ends in the bytes
of a training that nothing interrupted.
"""

import csv
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from quantrust.artifacts.folders import artifact_folder
from quantrust.digest import source_digest
from quantrust.embedded.checkpoints import Checkpoints, Order, TrainingState
from quantrust.embedded.datasets import ANNOTATORS, AnnotatedScene, generate
from quantrust.embedded.models import SPECS, EmbeddedSpec, build_model, save_model_folder, train_tokenizer
from quantrust.embedded.scene_questions import caption
from quantrust.embedded.scenes import COLOURS, GRID, SYMBOLS, Percept
from quantrust.embedded.shared_prefix import ATTENTION, Layout
from quantrust.files import sha256, write_json
from quantrust.models.family import Family
from quantrust.models.loading import load_family
from quantrust.progress import progress

logger = logging.getLogger(__name__)
IGNORED = -100
CHECKPOINT_EVERY = 250
"""Steps between two checkpoints: a few minutes."""
FROZEN_LATER = ("vision", "connector")
"""Components that learn in the first stage, and stay as they are in the others."""


@dataclass(frozen=True)
class TrainingSettings:
    """How an embedded model is trained; the defaults made the shipped ones.

    `questions` are written for each image; each pass over the images uses `questions_per_step` of them. With
    `slots_by_length` those of an image are laid out longest first, so that less padding is computed. Captions join them
    in every `caption_every`-th step. With `people_s_captions` an image has those of five people, of which one is drawn
    each time; otherwise it has one caption. The language model's rate follows a cosine over `language_horizon` steps
    and falls linearly to 2 % of its peak over the last `language_cooldown` of the `language_steps`. A second cycle of
    `refining_steps`, with a new optimizer and a cosine of its own from `refining_rate`, goes on from there. The matrix
    products of the language model are computed in `precision`, bfloat16 or float32. A processor without instructions
    for bfloat16 takes six times as long for it as for float32.
    """

    images: int = 30_000
    questions: int = 12
    questions_per_step: int = 6
    caption_every: int = 3
    people_s_captions: bool = False
    slots_by_length: bool = False
    vision_steps: int = 3_500
    vision_batch: int = 32
    vision_rate: float = 3e-3
    language_steps: int = 4_000
    language_horizon: int = 6_000
    language_cooldown: int = 1_800
    language_batch: int = 32
    language_rate: float = 2e-3
    refining_steps: int = 5_000
    refining_rate: float = 1.5e-3
    warmup: int = 300
    weight_decay: float = 0.05
    precision: str = "bfloat16"
    seed: int = 1
    data_seed: int = 0


@dataclass(frozen=True)
class _Example:
    """The segments of one image, each as its token ids and the number of those that are the prompt's."""

    questions: list[tuple[np.ndarray, int]]
    captions: list[tuple[np.ndarray, int]]


class _TrainingSet:
    """Pictures, cell contents, questions and captions of the training scenes."""

    def __init__(self, settings: TrainingSettings, caption_prompt: str) -> None:
        rng = np.random.default_rng([settings.data_seed, settings.seed])
        self.images: list[Image.Image] = []
        self.cells = np.zeros((settings.images, GRID * GRID, 2), dtype=np.int64)
        self.questions: list[list[tuple[str, str]]] = []
        self.captions: list[list[tuple[str, str]]] = []
        scenes = generate("train", settings.images, settings.questions, settings.data_seed)
        with progress("composing", settings.images, "scenes") as bar:
            for k, scene in enumerate(scenes):
                self.images.append(scene.image)
                for percept in scene.truth:
                    cell = percept.row * GRID + percept.column
                    self.cells[k, cell] = 1 + SYMBOLS.index(percept.symbol), 1 + COLOURS.index(percept.colour)
                self.questions.append(self._answered(scene, rng))
                captions = scene.captions() if settings.people_s_captions else [caption(scene.truth)]
                self.captions.append([(caption_prompt, text) for text in captions])
                bar.update()

    @staticmethod
    def _answered(scene: AnnotatedScene, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Return questions and answers; one of the ten annotators answers each, so that disagreement is learnt."""
        people: dict[int, tuple[Percept, ...]] = {}
        pairs = []
        for question in scene.questions:
            person = int(rng.integers(ANNOTATORS))
            if person not in people:
                people[person] = scene.annotator(person)
            pairs.append((question.text, question.answer(people[person])))
        return pairs

    def corpus(self) -> Iterator[str]:
        """Yield text for the tokenizer."""
        for questions, captions in zip(self.questions, self.captions, strict=True):
            for question, answer in (*questions, *captions):
                yield f"user\nassistant\nUser: {question}\nAssistant: {answer}"
                yield answer


def _rate(step: int, steps: int, settings: TrainingSettings, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to 2 % of the peak."""
    if step < settings.warmup:
        return peak * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, steps - settings.warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def _language_rate(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of the language model's first cycle: the cosine of the horizon, a linear cool-down."""
    start = settings.language_steps - settings.language_cooldown
    rate = _rate(min(step, start), settings.language_horizon, settings, settings.language_rate)
    if step <= start:
        return rate
    floor = 0.02 * settings.language_rate
    return rate + (floor - rate) * ((step - start) / settings.language_cooldown)


def _refining_rate(step: int, settings: TrainingSettings) -> float:
    return _rate(step, settings.refining_steps, settings, settings.refining_rate)


@dataclass(frozen=True)
class _Cycle:
    """One pass of the language model's schedule, with an optimizer and an order of the images of its own."""

    stage: str
    steps: int
    rate: Callable[[int, TrainingSettings], float]
    stream: int


def _language_cycles(settings: TrainingSettings) -> list[_Cycle]:
    cycles = [_Cycle("language", settings.language_steps, _language_rate, 2)]
    if settings.refining_steps:
        cycles.append(_Cycle("refining", settings.refining_steps, _refining_rate, 3))
    return cycles


def _optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


class _Log:
    """The training curve: one row every `EVERY` steps, kept for the CSV and logged as it comes."""

    EVERY = 50

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = {"rows": [], "sums": {}, "count": 0} if state is None else state
        self.rows: list[dict[str, Any]] = state["rows"]
        self.sums: dict[str, float] = state["sums"]
        self.count: int = state["count"]
        self.started = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return what another log goes on from."""
        return {"rows": self.rows, "sums": self.sums, "count": self.count}

    def add(self, stage: str, step: int, steps: int, rate: float, **values: float) -> None:
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if (step + 1) % self.EVERY == 0 or step + 1 == steps:
            means = {name: round(total / self.count, 5) for name, total in self.sums.items()}
            self.rows.append({"stage": stage, "step": step + 1, "rate": round(rate, 7), **means})
            elapsed = time.monotonic() - self.started
            logger.info("%s %d/%d %s (%.0f s)", stage, step + 1, steps, means, elapsed)
            self.sums, self.count = {}, 0

    def write(self, path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, ["stage", "step", "rate", "loss", "accuracy"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


@dataclass(frozen=True)
class _Stage:
    """A part of the training, with an optimizer and an order of the images of its own.

    Attributes
    ----------
    name : str
    steps : int
    batch : int
        Images a step.
    rate : callable
        Takes the step and returns its learning rate.
    stream : int
        Number of the stage's random generator.
    modules : dict of str to Module
        What has weights, by the names under which a checkpoint keeps them.
    trained : list of Parameter
    loss : callable
        Takes the step, the rows of its images and the generator, and returns loss and accuracy.
    """

    name: str
    steps: int
    batch: int
    rate: Callable[[int], float]
    stream: int
    modules: dict[str, nn.Module]
    trained: list[nn.Parameter]
    loss: Callable[[int, np.ndarray, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]


def _train(stage: _Stage, settings: TrainingSettings, log: _Log, checkpoints: Checkpoints) -> None:
    """Train for one stage, or for what an earlier process left of it."""
    if checkpoints.is_past(stage.name):
        return
    rng = np.random.default_rng([settings.seed, stage.stream])
    state = TrainingState(
        stage.modules, stage.trained, _optimizer(stage.trained, settings), Order(settings.images, stage.batch, rng), rng
    )
    for step in range(checkpoints.resume(stage.name, state), stage.steps):
        rows = state.order.following()
        rate = stage.rate(step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        loss, accuracy = stage.loss(step, rows, rng)
        state.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stage.trained, 1.0)
        state.optimizer.step()
        log.add(stage.name, step, stage.steps, rate, loss=float(loss.detach()), accuracy=float(accuracy))
        checkpoints.after(stage.name, step + 1, stage.steps, state, log.state())


def _vision_stage(
    family: Family, model: nn.Module, processor: Any, data: _TrainingSet, settings: TrainingSettings
) -> _Stage:
    """Return the stage in which vision tower and connector learn to name symbol and colour of every cell."""
    trained = [p for name, p in model.named_parameters() if family.component_of(name)[0] in FROZEN_LATER]
    heads = nn.Linear(model.get_submodule(family.head).in_features, 2 + len(SYMBOLS) + len(COLOURS))

    def loss(step: int, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = family.preprocess(processor, [data.images[k] for k in rows])
        features = torch.stack([image.features for image in family.encode_images(model, inputs)])
        cells = torch.from_numpy(data.cells[rows])
        symbols, colours = heads(features).split([1 + len(SYMBOLS), 1 + len(COLOURS)], dim=-1)
        loss = F.cross_entropy(symbols.flatten(0, 1), cells[..., 0].flatten()) + F.cross_entropy(
            colours.flatten(0, 1), cells[..., 1].flatten()
        )
        filled = cells[..., 0] > 0
        return loss, (symbols.argmax(-1) == cells[..., 0])[filled].float().mean()

    return _Stage(
        "vision",
        settings.vision_steps,
        settings.vision_batch,
        lambda step: _rate(step, settings.vision_steps, settings, settings.vision_rate),
        1,
        {"model": model, "heads": heads},
        [*trained, *heads.parameters()],
        loss,
    )


@torch.no_grad()
def _cache_features(
    family: Family, model: nn.Module, processor: Any, images: list[Image.Image], batch: int = 64
) -> torch.Tensor:
    """Return the image features of all pictures, shape (images, tokens, hidden)."""
    parts = []
    for start in range(0, len(images), batch):
        inputs = family.preprocess(processor, images[start : start + batch])
        parts += [image.features for image in family.encode_images(model, inputs)]
    return torch.stack(parts)


def _shared_beginning(first: str, second: str) -> str:
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


class _Sequences:
    """Builds batches in which the segments of an image follow its prefix."""

    def __init__(
        self,
        family: Family,
        model: nn.Module,
        processor: Any,
        data: _TrainingSet,
        spec: EmbeddedSpec,
        settings: TrainingSettings,
    ) -> None:
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
            _Example(questions, captions)
            for questions, captions in zip(
                segments(data.questions, question_start[len(before) :], question_end),
                segments(data.captions, caption_start[len(before) :], caption_end),
                strict=True,
            )
        ]

    def batch(self, rows: np.ndarray, rng: np.random.Generator, captions: bool) -> "_Batch":
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
        return _Batch(torch.from_numpy(ids), positions, torch.from_numpy(labels), layout)


@dataclass(frozen=True)
class _Batch:
    """Token ids and labels of shape (images, tokens), positions as the family wants them, and the layout."""

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    layout: Layout


def _language_stage(
    family: Family,
    model: nn.Module,
    sequences: _Sequences,
    features: torch.Tensor,
    settings: TrainingSettings,
    cycle: _Cycle,
) -> _Stage:
    """Return one cycle in which the language model learns on cached image features."""
    places = torch.from_numpy(np.flatnonzero(sequences.image_places))
    decoder = model.get_submodule(family.decoder)

    def loss(step: int, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
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
        return loss, (logits.detach().argmax(-1) == batch.labels[wanted]).float().mean()

    return _Stage(
        cycle.stage,
        cycle.steps,
        settings.language_batch,
        lambda step: cycle.rate(step, settings),
        cycle.stream,
        {"model": model},
        [p for name, p in model.named_parameters() if family.component_of(name)[0] not in FROZEN_LATER],
        loss,
    )


def _train_language(
    family: Family,
    model: nn.Module,
    sequences: _Sequences,
    features: torch.Tensor,
    settings: TrainingSettings,
    log: _Log,
    checkpoints: Checkpoints,
) -> None:
    """Train the language model alone, for all its cycles."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(family.component_of(name)[0] not in FROZEN_LATER)
    model.get_submodule(family.decoder).set_attn_implementation(ATTENTION)
    model.train()
    for cycle in _language_cycles(settings):
        _train(_language_stage(family, model, sequences, features, settings, cycle), settings, log, checkpoints)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.eval()


def _processor_for(family: Family, model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Any:
    save_model_folder(model, tokenizer, family.name, folder, torch.float32)
    return family.load_processor(str(folder))


def train_embedded_model(
    name: str, out_dir: str | Path, settings: TrainingSettings, checkpoint_every: int = CHECKPOINT_EVERY
) -> None:
    """Train an embedded model from scratch and write its folder.

    Parameters
    ----------
    name : str
        A key of `quantrust.embedded.models.SPECS`.
    out_dir : str or Path
        Gets the model folder with bfloat16 weights, `training.csv` (the curve) and `training.json` (sizes, settings,
        digest of the code, digests of the files). Until then the last checkpoint lies beside it, in
        `<out_dir>.checkpoint`. If a checkpoint of the same training is there, the training goes on from it.
    settings : TrainingSettings
    checkpoint_every : int
        Steps between two checkpoints. No byte of the model depends on it.
    """
    spec = SPECS[name]
    family = load_family(spec.family)
    torch.use_deterministic_algorithms(True)
    record = {
        "model": name,
        "spec": asdict(spec),
        "settings": asdict(settings),
        "code": source_digest("quantrust.embedded.training"),
    }
    out_dir = Path(out_dir)
    checkpoints = Checkpoints(
        out_dir.with_name(f"{out_dir.name}.checkpoint"),
        record
        | {
            "family": source_digest(type(family).__module__),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        checkpoint_every,
        ("vision", *(cycle.stage for cycle in _language_cycles(settings))),
    )
    log = _Log(checkpoints.log)
    data = _TrainingSet(settings, spec.caption_prompt)
    tokenizer = train_tokenizer(data.corpus(), spec.family)
    model = build_model(spec, tokenizer, settings.seed)
    with artifact_folder(out_dir) as folder:
        processor = _processor_for(family, model, tokenizer, folder)
        model.train()
        _train(_vision_stage(family, model, processor, data, settings), settings, log, checkpoints)
        model.eval()
        checkpoints.restore("model", model)
        features = _cache_features(family, model, processor, data.images)
        sequences = _Sequences(family, model, processor, data, spec, settings)
        _train_language(family, model, sequences, features, settings, log, checkpoints)
        save_model_folder(model, tokenizer, family.name, folder, torch.bfloat16)
        log.write(folder / "training.csv")
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        write_json(folder / "training.json", {**record, "files": files})
    checkpoints.remove()


def settings_from(values: dict[str, Any]) -> TrainingSettings:
    """Return the settings with `values` in the place of defaults; an unknown name raises TypeError."""
    return TrainingSettings(**values)
