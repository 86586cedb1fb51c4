"""The matching stages: a Q-Former learns which caption belongs to which picture.

As in Li et al., "BLIP-2" (ICML 2023, arXiv 2301.12597), section 3.1, without its generation of texts: images and texts
are compared by their embeddings (image-text contrast), and pairs are judged (image-text matching), where the wrong
pairs are drawn by how alike the embeddings find them. Unlike there, contrast is learnt alone first. It then counts
little beside matching, whose wrong pairs are drawn at random at first and become harder step by step. With both losses
from the start and at equal weights, matching learnt nothing in 1,000 steps. The vision tower stays as it is.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from quantrust.data.queries import MOST_TOKENS, compared_text
from quantrust.embedded.models import EmbeddedSpec
from quantrust.embedded.training import vision
from quantrust.embedded.training.settings import TrainingSettings, cosine_rate
from quantrust.embedded.training.stage import Learner, Loss, Purpose, Run, Stage
from quantrust.embedded.training.training_set import TrainingSet
from quantrust.models.family import EncodedImage, MatchingFamily

CONTRAST, MATCHING = "contrast", "matching"
"""The stages, in their order."""
STREAMS = {CONTRAST: 5, MATCHING: 4}
TRAINED = ("connector",)
"""Components that learn in this stage: the Q-Former, its embeddings and its heads."""
FIRST_TEMPERATURE, LEAST_TEMPERATURE = 0.07, 0.01


class Temperature(nn.Module):
    """What similarities are divided by; it is learnt, and no model keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))

    def forward(self, similarities: torch.Tensor) -> torch.Tensor:
        """Return similarities as logits."""
        return similarities / self.log.exp().clamp(min=LEAST_TEMPERATURE)


def corpus(data: TrainingSet, spec: EmbeddedSpec) -> Iterator[str]:
    """Yield text for the tokenizer: captions as they are compared."""
    for captions in data.captions:
        yield from map(compared_text, captions)


def similarities_of(learner: Learner, images: Sequence[EncodedImage], texts: Sequence[str]) -> torch.Tensor:
    """Return how alike images and texts are by their embeddings, in [-1, 1], shape (images, texts)."""
    family = _matching(learner)
    of_images = family.image_embeddings(learner.model, list(images))
    of_texts = family.text_embeddings(learner.model, learner.processor, list(texts), MOST_TOKENS)
    return (of_images @ of_texts.T).amax(dim=1)


def hardness(step: int, settings: TrainingSettings) -> float:
    """Return how much likeness decides about wrong pairs, from 0 at the first step of matching to 1."""
    return min(1.0, step / settings.hardening_steps)


def wrong_columns(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Draw one wrong column for each row.

    Parameters
    ----------
    logits : torch.Tensor, shape (rows, columns)
        A column is drawn with the probability of its softmax among the wrong ones of its row.
    right : torch.Tensor, bool, shape (rows, columns)
        What is not drawn. Every row has a column that may be.

    Returns
    -------
    torch.Tensor, int64, shape (rows,)
    """
    return torch.multinomial(logits.masked_fill(right, -math.inf).softmax(dim=1), 1)[:, 0]


@dataclass(frozen=True)
class Shown:
    """Images of a step with a caption of each, and how alike they are.

    Attributes
    ----------
    images : list of EncodedImage
    texts : list of str
        One for each image.
    right : torch.Tensor, bool, shape (images, texts)
        Whether a text is right for an image: its own caption is, and so is another's in the same words.
    logits : torch.Tensor, float32, shape (images, texts)
        Likeness over the temperature; minus infinity for a caption in the words of the image's own.
    """

    images: list[EncodedImage]
    texts: list[str]
    right: torch.Tensor
    logits: torch.Tensor

    def contrastive(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of contrast, and what the training curve shows of it."""
        own = torch.arange(len(self.texts))
        loss = (F.cross_entropy(self.logits, own) + F.cross_entropy(self.logits.T, own)) / 2
        return loss, {
            "contrastive_loss": loss.detach(),
            "found": (self.logits.argmax(dim=0) == own).float().mean(),
        }


class Matching:
    """What both stages learn on: cached image features, captions as they are compared, and a temperature.

    Parameters
    ----------
    learner : Learner
        Its family matches images with texts.
    images : list of EncodedImage
    captions : list of list of str
        Of each image.
    settings : TrainingSettings
    """

    def __init__(
        self, learner: Learner, images: list[EncodedImage], captions: list[list[str]], settings: TrainingSettings
    ) -> None:
        self.learner, self.images, self.captions, self.settings = learner, images, captions, settings
        self.temperature = Temperature()

    def stage(self, name: str, steps: int, loss: Loss) -> Stage:
        """Return a stage in which all but the vision tower learns."""
        settings = self.settings
        return Stage(
            name,
            steps,
            settings.matching_batch,
            lambda step: cosine_rate(step, steps, settings, settings.matching_rate),
            STREAMS[name],
            {"model": self.learner.model, "temperature": self.temperature},
            [*self.learner.weights_of(TRAINED), *self.temperature.parameters()],
            loss,
        )

    def contrast(self) -> Stage:
        """Return the stage in which images and texts are compared by their embeddings."""

        def loss(step: int, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return self.shown(rows, rng).contrastive()

        return self.stage(CONTRAST, self.settings.contrast_steps, loss)

    def matching(self) -> Stage:
        """Return the stage in which pairs are judged, and contrast goes on with little weight."""
        family, model, processor = _matching(self.learner), self.learner.model, self.learner.processor

        def loss(step: int, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            shown = self.shown(rows, rng)
            contrastive, measured = shown.contrastive()
            own = torch.arange(len(rows))
            with torch.no_grad():
                # a text that is right for an image has no likeness to it here
                alike = shown.logits.masked_fill(shown.right, 0.0) * hardness(step, self.settings)
                wrong_texts, wrong_images = wrong_columns(alike, shown.right), wrong_columns(alike.T, shown.right)
            # right pairs, then every image with a wrong text, then every text with a wrong image
            of_images, of_texts = torch.cat([own, own, wrong_images]), torch.cat([own, wrong_texts, own])
            texts, images = [shown.texts[k] for k in of_texts], [shown.images[k] for k in of_images]
            judged = family.matching_logits(model, family.pairs(model, processor, texts, images, most=MOST_TOKENS))
            matches = (torch.arange(len(of_images)) < len(rows)).long()
            matching = F.cross_entropy(judged, matches)
            return matching + self.settings.contrast_weight * contrastive, {
                "accuracy": (judged.argmax(dim=1) == matches).float().mean(),
                "matching_loss": matching.detach(),
                **measured,
            }

        return self.stage(MATCHING, self.settings.matching_steps, loss)

    def shown(self, rows: np.ndarray, rng: np.random.Generator) -> Shown:
        """Return images by their numbers, each with one of its captions."""
        images = [self.images[row] for row in rows]
        texts = [self.captions[row][int(rng.integers(len(self.captions[row])))] for row in rows]
        words = {text: number for number, text in enumerate(texts)}
        alike = torch.tensor([words[text] for text in texts])
        right = alike[:, None] == alike
        others = right & ~torch.eye(len(rows), dtype=torch.bool)
        logits = self.temperature(similarities_of(self.learner, images, texts)).masked_fill(others, -math.inf)
        return Shown(images, texts, right, logits)


def train(learner: Learner, data: TrainingSet, run: Run) -> None:
    """Train the Q-Former and what belongs to it."""
    images = vision.encode_all(learner, data)
    captions = [[compared_text(text) for text in texts] for texts in data.captions]
    learning = Matching(learner, images, captions, run.settings)
    if run.checkpoints.is_past(CONTRAST):
        run.checkpoints.restore("temperature", learning.temperature)
    run.train(learning.contrast())
    run.train(learning.matching())


def _matching(learner: Learner) -> MatchingFamily:
    if not isinstance(learner.family, MatchingFamily):
        raise TypeError(f"models of the family {learner.family.name} match no images with texts")
    return learner.family


PURPOSE = Purpose(corpus, lambda settings: (CONTRAST, MATCHING), train)
