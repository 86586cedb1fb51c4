"""The first stage: vision tower and connector learn, through throw-away heads, what stands in each cell of a scene."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from quantrust.embedded.scenes import COLOURS, SYMBOLS
from quantrust.embedded.training.settings import TrainingSettings, cosine_rate
from quantrust.embedded.training.stage import Learner, Stage
from quantrust.embedded.training.training_set import TrainingSet
from quantrust.models.family import EncodedImage, MatchingFamily

NAME = "vision"
TRAINED = ("vision", "connector")
"""Components that learn in this stage."""
STREAM = 1


def vision_stage(learner: Learner, data: TrainingSet, settings: TrainingSettings) -> Stage:
    """Return the stage in which vision tower and connector learn to name symbol and colour of every cell."""
    with torch.no_grad():
        width = _seen(learner, data, np.array([0])).shape[-1]
    heads = nn.Linear(width, 2 + len(SYMBOLS) + len(COLOURS))

    def loss(step: int, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        cells = torch.from_numpy(data.cells[rows])
        symbols, colours = heads(_seen(learner, data, rows)).split([1 + len(SYMBOLS), 1 + len(COLOURS)], dim=-1)
        loss = F.cross_entropy(symbols.flatten(0, 1), cells[..., 0].flatten()) + F.cross_entropy(
            colours.flatten(0, 1), cells[..., 1].flatten()
        )
        filled = cells[..., 0] > 0
        return loss, {"accuracy": (symbols.argmax(-1) == cells[..., 0])[filled].float().mean()}

    return Stage(
        NAME,
        settings.vision_steps,
        settings.vision_batch,
        lambda step: cosine_rate(step, settings.vision_steps, settings, settings.vision_rate),
        STREAM,
        {"model": learner.model, "heads": heads},
        [*learner.weights_of(TRAINED), *heads.parameters()],
        loss,
    )


def _seen(learner: Learner, data: TrainingSet, rows: np.ndarray) -> torch.Tensor:
    """Return what the last of the trained components says of each cell, shape (images, cells, hidden)."""
    images = encode(learner, data, rows)
    if isinstance(learner.family, MatchingFamily):
        return learner.family.image_states(learner.model, images)
    return torch.stack([image.features for image in images])


def encode(learner: Learner, data: TrainingSet, rows: np.ndarray) -> list[EncodedImage]:
    """Return images as the rest of the model gets them.

    Parameters
    ----------
    learner : Learner
    data : TrainingSet
    rows : numpy.ndarray, int64, shape (images,)
        Their places in the training set.
    """
    inputs = learner.family.preprocess(learner.processor, [data.images[k] for k in rows])
    return learner.family.encode_images(learner.model, inputs)


@torch.no_grad()
def encode_all(learner: Learner, data: TrainingSet, batch: int = 64) -> list[EncodedImage]:
    """Return all images of the training set as the rest of the model gets them."""
    places = np.arange(len(data.images))
    return [
        image
        for start in range(0, len(places), batch)
        for image in encode(learner, data, places[start : start + batch])
    ]
