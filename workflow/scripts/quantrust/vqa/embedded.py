"""The embedded datasets: scenes with ten simulated annotators, written in the official JSON formats.

`scenes` is the in-distribution set (VQAv2 format, with captions of train images in the ShareGPT4V format),
`scenes-language` its language shift (the AdVQA analogue, VQAv2 format) and `scenes-multimodal` its multimodal shift
(the VizWiz analogue, VizWiz format). Every scene has a generator of its own, seeded by the dataset's seed, the split and
the scene's number, so that a larger set begins with the scenes of a smaller one.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.files import atomic_directory
from quantrust.vqa.digits import DigitBank, digit_banks
from quantrust.vqa.scene_questions import UNANSWERABLE, SceneQuestion, ask, ask_about_absent, caption
from quantrust.vqa.scenes import (
    Degradation,
    Percept,
    Scene,
    compose_scene,
    mild_degradation,
    perceive,
    render,
    strong_degradation,
    true_percepts,
)

ANNOTATORS = 10
# Numbers of the generators' streams and of the first image; an image number says which set it belongs to.
STREAMS = {"train": 1, "dev": 2, "val": 3, "test": 4, "language": 5, "multimodal": 6}
# Share of training questions that are of a composition, or in a wording, of the language shift.
RARE_IN_TRAIN = 0.03
CAPTION_PROMPT = "describe the picture."
DESCRIPTION = "Synthetic scenes of handwritten digits (UCI optical digits, as bundled with scikit-learn) and shapes"


@dataclass(frozen=True)
class AnnotatedScene:
    """A scene, its picture, its questions, and the people who may answer them.

    Attributes
    ----------
    image_id : int
    scene : Scene
    image : PIL.Image.Image
        RGB, 64 x 64 pixels.
    truth : tuple of Percept
    questions : list of SceneQuestion
    """

    image_id: int
    scene: Scene
    image: Image.Image
    truth: tuple[Percept, ...]
    questions: list[SceneQuestion]
    seed: tuple[int, ...]

    def annotator(self, number: int) -> tuple[Percept, ...]:
        """Return what annotator `number` sees; the same person answers every question about the picture."""
        return perceive(self.scene, np.random.default_rng([*self.seed, 1 + number]))

    def answers(self) -> list[list[str]]:
        """Return the ten answers to each question."""
        people = [self.annotator(k) for k in range(ANNOTATORS)]
        return [[question.answer(person) for person in people] for question in self.questions]


def _open_scene(seed: int, split: str, number: int) -> tuple[tuple[int, ...], np.random.Generator, DigitBank]:
    key = (seed, STREAMS[split], number)
    return key, np.random.default_rng([*key, 0]), digit_banks()[split]


def _degradation(split: str, rng: np.random.Generator) -> Degradation:
    return strong_degradation(rng) if split == "multimodal" else mild_degradation(rng)


def generate(split: str, images: int, questions_per_image: int, seed: int) -> Iterator[AnnotatedScene]:
    """Yield annotated scenes.

    Parameters
    ----------
    split : {"train", "dev", "val", "test", "language", "multimodal"}
        Decides digits, degradation and wording.
    images : int
    questions_per_image : int
    seed : int
    """
    for number in range(images):
        key, rng, bank = _open_scene(seed, split, number)
        scene = compose_scene(rng, bank, _degradation(split, rng))
        truth = true_percepts(scene)
        if split == "language":
            questions = ask(truth, rng, questions_per_image, style="language", rare=0.5)
        elif split == "multimodal":
            absent = rng.random() < 0.10
            questions = [ask_about_absent(truth, rng)] if absent else ask(truth, rng, questions_per_image, style="chat")
            questions = [_answerable_by_sight(question) for question in questions]
        elif split == "train":
            questions = _train_questions(truth, rng, questions_per_image)
        else:
            questions = ask(truth, rng, questions_per_image)
        image_id = STREAMS[split] * 1_000_000 + number
        yield AnnotatedScene(image_id, scene, render(scene, bank), truth, questions, key)


def _train_questions(truth: tuple[Percept, ...], rng: np.random.Generator, n: int) -> list[SceneQuestion]:
    """Write plain questions, with a few in the words and compositions of the shifts."""
    rare = int(rng.binomial(n, RARE_IN_TRAIN))
    questions = ask(truth, rng, n - rare)
    for _ in range(rare):
        style = ("plain", "language", "chat")[int(rng.integers(3))]
        questions += ask(truth, rng, 1, style=style, rare=1.0 if style == "plain" else 0.0)
    return questions


def _answerable_by_sight(question: SceneQuestion) -> SceneQuestion:
    """Return the question, with people who missed what it is about saying so instead of guessing."""

    def answer(percepts: tuple[Percept, ...]) -> str:
        if any(not percepts[k].visible for k in question.referents):
            return UNANSWERABLE
        return question.answer(percepts)

    return SceneQuestion(question.kind, question.text, answer, question.referents)


def majority(answers: list[str]) -> str:
    """Return the most frequent answer, the alphabetically first of several."""
    counts = Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def answer_type(answer: str) -> str:
    """Return the official answer type of a majority answer."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdigit() else "other"
