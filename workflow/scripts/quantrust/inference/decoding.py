"""Batched greedy decoding, with log-probabilities and the hidden states that confidence estimators read."""

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from quantrust.models.family import Family, LanguageInputs, Role

SHARE_OF_ROWS = 0.5
"""Of a batch, at most so much is unanswered when the answered rest is left out, which copies the keys of the others."""


@dataclass(frozen=True)
class Decoded:
    """Answers to a batch of prompts.

    Attributes
    ----------
    token_ids : list of list of int
        Generated tokens of each answer, the end token included.
    token_log_probs : list of list of float
        Natural log-probability of each of them, from a float32 log-softmax.
    finished : list of bool
        False where the token limit came before the end token.
    first_logits : torch.Tensor, float32, shape (batch, vocabulary)
        Logits of the first answer token.
    image_state, question_state : torch.Tensor, float32, shape (batch, hidden)
        Last-layer states, after the final norm, of the image and of the question tokens, max-pooled. Where nothing is
        asked about a picture, the question's is that of the last prompt position.
    answer_state : torch.Tensor, float32, shape (batch, hidden)
        The state that produces the first answer token: the last prompt position.
    """

    token_ids: list[list[int]]
    token_log_probs: list[list[float]]
    finished: list[bool]
    first_logits: torch.Tensor
    image_state: torch.Tensor
    question_state: torch.Tensor
    answer_state: torch.Tensor


@dataclass(frozen=True)
class Prefixes:
    """What a model has read of images: prompts up to the end of their images, or to some tokens behind it.

    Attributes
    ----------
    cache : transformers.DynamicCache
        Keys and values, a row for each image.
    mask : torch.Tensor, bool, shape (images, tokens)
        Which tokens are not padding.
    image_state : torch.Tensor, float32, shape (images, hidden)
        As in `Decoded`.
    behind : int
        Tokens behind the image that are read.
    """

    cache: DynamicCache
    mask: torch.Tensor
    image_state: torch.Tensor
    behind: int

    def rows(self, rows: torch.Tensor) -> "Prefixes":
        """Return those of some images by their numbers, int64, as often as they stand there."""
        cache = copy.copy(self.cache)
        # layers of their own, which point to new tensors; those of this cache stay as they are
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(rows)
        return Prefixes(cache, self.mask[rows], self.image_state[rows], self.behind)


def can_share(family: Family, model: nn.Module, attention: str) -> bool:
    """Return whether prompts about one image can go on from one reading of it.

    No token of an image may see later ones. Layers with a sliding window count what lies between two tokens, and so
    they count the padding behind an image; flash attention has not been tried.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
    attention : str
        That of the model.
    """
    cache = _empty_cache(family, model)
    return family.reads_in_parts and attention != "flash_attention_2" and not any(cache.is_sliding)


@torch.inference_mode()
def read_images(family: Family, model: nn.Module, inputs: LanguageInputs, behind: int = 0) -> Prefixes:
    """Read prompts up to the end of their images, and what comes before all questions.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        One that `can_share`.
    inputs : LanguageInputs
        A prompt about each image.
    behind : int
        Tokens behind the image that are the same whatever is asked (`Family.tokens_behind_images`).
    """
    inputs = inputs.up_to_image(behind)
    hidden, cache = family.read_prompts(model, inputs, _empty_cache(family, model))
    return Prefixes(cache, inputs.attention_mask, _max_pool(hidden, inputs.roles == Role.IMAGE), behind)


def _empty_cache(family: Family, model: nn.Module) -> Any:
    return DynamicCache(config=model.get_submodule(family.decoder).config)


def _max_pool(hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Maximum over the chosen tokens of each row; (batch, tokens, hidden) and (batch, tokens) to (batch, hidden)."""
    return hidden.masked_fill(~chosen[..., None], -torch.inf).amax(dim=1).float()


@torch.inference_mode()
def decode_greedily(
    family: Family,
    model: nn.Module,
    inputs: LanguageInputs,
    *,
    end_token_ids: Collection[int],
    max_new_tokens: int,
    read: Prefixes | None = None,
) -> Decoded:
    """Answer a batch of left-padded prompts with the most probable token at every step.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
    inputs : LanguageInputs
        Prompts without answers.
    end_token_ids : collection of int
        Each ends an answer; its probability belongs to the answer's.
    max_new_tokens : int
        Limit on generated tokens, the end token included.
    read : Prefixes, optional
        What the model has read of the image of each prompt: the prompts go on from there, and its cache grows.

    Returns
    -------
    Decoded
    """
    rest = inputs if read is None else inputs.after_image(read.behind)
    # a prompt may end with its image, so that nothing of it follows
    if read is None or not rest.roles.numel():
        rest, mask = inputs, inputs.attention_mask
        hidden, cache = family.read_prompts(model, inputs, _empty_cache(family, model))
        image_state = _max_pool(hidden, inputs.roles == Role.IMAGE)
    else:
        mask, image_state = torch.cat([read.mask, rest.attention_mask], dim=1), read.image_state
        hidden, cache = family.decode(model, rest.inputs_embeds, mask, rest.position_ids, read.cache)
    questions = rest.roles == Role.QUESTION
    # of a picture about which nothing is asked, the last token of the prompt takes the place of the question
    questions[:, -1] |= ~questions.any(dim=1)
    states = {
        "image_state": image_state,
        "question_state": _max_pool(hidden, questions),
        "answer_state": hidden[:, -1].float(),
    }
    embedding = model.get_submodule(family.embedding)
    # New tokens continue after the largest position of the prompt, in every rotary section.
    spatial = inputs.position_ids.dim() == 3
    position = inputs.position_ids.amax(dim=(0, 2) if spatial else 1)
    logits = family.logits(model, hidden[:, -1]).float()
    first_logits = logits
    batch = len(mask)
    token_ids: list[list[int]] = [[] for _ in range(batch)]
    log_probs: list[list[float]] = [[] for _ in range(batch)]
    finished = [False] * batch
    rows = list(range(batch))
    for step in range(max_new_tokens):
        best = torch.log_softmax(logits, dim=-1).max(dim=-1)
        for row, token, value in zip(rows, best.indices.tolist(), best.values.tolist(), strict=True):
            if not finished[row]:
                token_ids[row].append(token)
                log_probs[row].append(value)
                finished[row] = token in end_token_ids
        if all(finished) or step + 1 == max_new_tokens:
            break
        tokens = best.indices
        places = [place for place, row in enumerate(rows) if not finished[row]]
        # most answers are one or two tokens long, and few batches have none that is longer
        if len(places) <= SHARE_OF_ROWS * len(rows):
            rows = [rows[place] for place in places]
            kept = torch.tensor(places, device=mask.device)
            cache.batch_select_indices(kept)
            mask, position, tokens = mask[kept], position[kept], tokens[kept]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        position = position + 1
        positions = position[:, None].expand(3, -1, -1) if spatial else position[:, None]
        hidden, cache = family.decode(model, embedding(tokens[:, None]), mask, positions, cache)
        logits = family.logits(model, hidden[:, -1]).float()
    return Decoded(token_ids, log_probs, finished, first_logits, **states)
