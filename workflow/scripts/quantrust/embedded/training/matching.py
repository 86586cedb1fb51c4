"""The matching stage: a Q-Former learns which caption belongs to which picture.

As in Li et al., "BLIP-2" (ICML 2023, arXiv 2301.12597), section 3.1, without its generation of texts: images and texts
are compared by their embeddings (image-text contrast), and pairs are judged (image-text matching), where the wrong
pairs are drawn by how alike the embeddings find them. The vision tower stays as it is.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from quantrust.data.queries import MOST_TOKENS, compared_text
from quantrust.embedded.models import EmbeddedSpec
from quantrust.embedded.training import vision
from quantrust.embedded.training.settings import TrainingSettings, cosine_rate
from quantrust.embedded.training.stage import Learner, Purpose, Run, Stage
from quantrust.embedded.training.training_set import TrainingSet
from quantrust.models.family import EncodedImage, MatchingFamily

NAME = "matching"
STREAM = 4
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


def hard_negatives(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
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


def matching_stage(
    learner: Learner, captions: list[list[str]], images: list[EncodedImage], settings: TrainingSettings
) -> Stage:
    """Return the stage in which the Q-Former learns on cached image features.

    Parameters
    ----------
    learner : Learner
        Its family matches images with texts.
    captions : list of list of str
        Of each image, as they are compared.
    images : list of EncodedImage
    settings : TrainingSettings
    """
    family, model, processor, temperature = _matching(learner), learner.model, learner.processor, Temperature()

    def loss(step: int, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        shown = [images[row] for row in rows]
        texts = [captions[row][int(rng.integers(len(captions[row])))] for row in rows]
        own = torch.arange(len(rows))
        # a caption in the words of another's is right for both pictures
        words = {text: number for number, text in enumerate(texts)}
        alike = torch.tensor([words[text] for text in texts])
        right = alike[:, None] == alike
        others = right & ~torch.eye(len(rows), dtype=torch.bool)
        logits = temperature(similarities_of(learner, shown, texts)).masked_fill(others, -math.inf)
        contrastive = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        with torch.no_grad():
            wrong_texts, wrong_images = hard_negatives(logits, right), hard_negatives(logits.T, right)
        # right pairs, then every image with a wrong text, then every text with a wrong image
        of_images, of_texts = torch.cat([own, own, wrong_images]), torch.cat([own, wrong_texts, own])
        pairs = family.pairs(
            model, processor, [texts[k] for k in of_texts], [shown[k] for k in of_images], most=MOST_TOKENS
        )
        judged, matches = family.matching_logits(model, pairs), (torch.arange(len(of_images)) < len(rows)).long()
        matching = F.cross_entropy(judged, matches)
        return contrastive + matching, {
            "accuracy": (judged.argmax(dim=1) == matches).float().mean(),
            "contrastive_loss": contrastive.detach(),
            "matching_loss": matching.detach(),
            "found": (logits.argmax(dim=0) == own).float().mean(),
        }

    return Stage(
        NAME,
        settings.matching_steps,
        settings.matching_batch,
        lambda step: cosine_rate(step, settings.matching_steps, settings, settings.matching_rate),
        STREAM,
        {"model": model, "temperature": temperature},
        [*learner.weights_of(TRAINED), *temperature.parameters()],
        loss,
    )


def train(learner: Learner, data: TrainingSet, run: Run) -> None:
    """Train the Q-Former and what belongs to it."""
    images = vision.encode_all(learner, data)
    captions = [[compared_text(text) for text in texts] for texts in data.captions]
    run.train(matching_stage(learner, captions, images, run.settings))


def _matching(learner: Learner) -> MatchingFamily:
    if not isinstance(learner.family, MatchingFamily):
        raise TypeError(f"models of the family {learner.family.name} match no images with texts")
    return learner.family


PURPOSE = Purpose(corpus, lambda settings: (NAME,), train)
