"""What retrieval reaches on the embedded scenes for whoever reads all facts of a picture and of a caption."""

from collections.abc import Sequence

import numpy as np

from quantrust.data.queries import compared_text
from quantrust.embedded.datasets import AnnotatedScene, unique_captions
from quantrust.embedded.scene_questions import caption
from quantrust.tasks.scene_facts import fact_f1, facts_of


def perfect_reader(split: str, images: int, seed: int) -> tuple[float, float]:
    """Return the recall at 1 of a reader that knows what stands in every picture and what every caption says.

    It ranks by the F1 of the facts of picture and caption. It falls short of 1 where people saw something else than
    there is, and where a caption mentions what several pictures hold.

    Parameters
    ----------
    split, images, seed
        As in `quantrust.embedded.datasets.unique_captions`.

    Returns
    -------
    text_to_image, image_to_text : float
        The expected share of queries whose first is a right one, in [0, 1], where equals are drawn at random.
    """
    return recall_of_facts(unique_captions(split, images, seed))


def recall_of_facts(scenes: Sequence[tuple[AnnotatedScene, Sequence[str]]]) -> tuple[float, float]:
    """Return the same for scenes and their captions."""
    pictures = [facts_of(caption(scene.truth)) for scene, _ in scenes]
    captions = [(place, facts_of(compared_text(text))) for place, (_, texts) in enumerate(scenes) for text in texts]
    agreement = np.array([[fact_f1(stated, there) for there in pictures] for _, stated in captions])
    right = np.array([place for place, _ in captions])[:, None] == np.arange(len(pictures))
    return _recall(agreement, right), _recall(agreement.T, right.T)


def _recall(agreement: np.ndarray, right: np.ndarray) -> float:
    best = agreement == agreement.max(axis=1, keepdims=True)
    return float(((best & right).sum(axis=1) / best.sum(axis=1)).mean())
