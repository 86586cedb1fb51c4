"""What the training scenes hold, and what is asked and said about them."""

import numpy as np
from PIL import Image

from quantrust.embedded.datasets import ANNOTATORS, AnnotatedScene, generate
from quantrust.embedded.scene_questions import caption
from quantrust.embedded.scenes import COLOURS, GRID, SYMBOLS, Percept
from quantrust.embedded.training.settings import TrainingSettings
from quantrust.progress import progress


class TrainingSet:
    """Pictures, cell contents, questions and captions of the training scenes.

    Attributes
    ----------
    images : list of PIL.Image.Image
    cells : numpy.ndarray, int64, shape (images, cells, 2)
        Numbers of the symbol and the colour in each cell, from 1; 0 where a cell is empty.
    questions : list of list of (str, str)
        Questions and answers about each image.
    captions : list of list of str
        Of each image.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        rng = np.random.default_rng([settings.data_seed, settings.seed])
        self.images: list[Image.Image] = []
        self.cells = np.zeros((settings.images, GRID * GRID, 2), dtype=np.int64)
        self.questions: list[list[tuple[str, str]]] = []
        self.captions: list[list[str]] = []
        scenes = generate("train", settings.images, settings.questions, settings.data_seed)
        with progress("composing", settings.images, "scenes") as bar:
            for k, scene in enumerate(scenes):
                self.images.append(scene.image)
                for percept in scene.truth:
                    cell = percept.row * GRID + percept.column
                    self.cells[k, cell] = 1 + SYMBOLS.index(percept.symbol), 1 + COLOURS.index(percept.colour)
                self.questions.append(self._answered(scene, rng))
                self.captions.append(scene.captions() if settings.people_s_captions else [caption(scene.truth)])
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
