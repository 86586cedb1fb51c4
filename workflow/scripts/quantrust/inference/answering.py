"""Answering questions about pictures with one variant: encoded pictures, batches of questions, and what is kept.

A batch that does not fit the memory of the device is halved.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.inference.chunks import batch_by_length
from quantrust.inference.decoding import Decoded, Prefixes, can_share, decode_greedily, read_images
from quantrust.inference.memory import Halving
from quantrust.inference.settings import DumpSettings
from quantrust.models.family import EncodedImage, Family, LanguageInputs, VisionInputs
from quantrust.quantization.linear import keep_small_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STATES = ("image_state", "question_state", "answer_state")


class Answerer:
    """One variant, ready to answer questions.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        On the device that it computes on. On the CPU the weights of a small one are kept dequantized.
    processor : object
    settings : DumpSettings
    """

    def __init__(self, family: Family, model: nn.Module, processor: Any, settings: DumpSettings) -> None:
        self.family, self.model, self.processor, self.settings = family, model, processor, settings
        self.hidden = model.get_submodule(family.head).in_features
        self.end_token_ids = family.end_token_ids(model, processor)
        self.halving = Halving()
        self.shares = can_share(family, model, settings.attention)
        keep_small_weights(model, DTYPES[settings.dtype])

    def encode_batch(
        self, inputs: VisionInputs, part: Callable[[list[int]], VisionInputs], names: Sequence[str], where: str
    ) -> list[EncodedImage]:
        """Pass pictures through the vision tower.

        Parameters
        ----------
        inputs : VisionInputs
            The pictures, preprocessed together.
        part : callable
            Preprocesses some of them again, given their places. The tensors of a batch belong together, and a batch is
            rarely halved.
        names : sequence of str
            What an error calls each.
        where : str
            Their place, for the log.
        """

        def encode(places: list[int]) -> list[EncodedImage]:
            chosen = inputs if len(places) == len(names) else part(places)
            with torch.inference_mode():
                return self.family.encode_images(self.model, chosen)

        parts = self.halving.run(encode, list(range(len(names))), where, "images", names.__getitem__)
        return [image for _, encoded in parts for image in encoded]

    @torch.inference_mode()
    def answer(self, questions: list[str], images: list[EncodedImage], read: Prefixes | None = None) -> Decoded:
        """Answer one batch of questions, an encoded image each, of which the model may have read the image."""
        return decode_greedily(
            self.family,
            self.model,
            self._prompts(questions, images),
            end_token_ids=self.end_token_ids,
            max_new_tokens=self.settings.max_new_tokens,
            read=read,
        )

    def _prompts(self, questions: list[str], images: list[EncodedImage]) -> LanguageInputs:
        return self.family.language_inputs(self.model, self.processor, questions, images, template=self.settings.prompt)

    def answer_columns(
        self, questions: list[str], images: list[EncodedImage], names: Sequence[str], where: str
    ) -> dict[str, list[Any]]:
        """Answer questions in batches of similar lengths. An image of several questions is read once, if it can be.

        Parameters
        ----------
        questions : list of str
        images : list of EncodedImage
            The image of each.
        names : sequence of str
            What an error calls each.
        where : str
            Their place, for the log.

        Returns
        -------
        dict of str to list
            What a features file holds of every answer, by its columns (`quantrust.inference.features_file`), in the
            order of the questions. States are float16.

        Raises
        ------
        QuantrustError
            If one question alone does not fit the memory of the device, or logits or states are not finite.
        """
        columns: dict[str, list[Any]] = {}
        for number, (batch, answer) in enumerate(self._batches(questions, images, names, where), start=1):
            halves = self.halving.run(answer, batch, f"{where}, batch {number}", "questions", names.__getitem__)
            for places, answered in halves:
                for column, values in answered.items():
                    kept = columns.setdefault(column, [None] * len(questions))
                    for place, value in zip(places, values, strict=True):
                        kept[place] = value
        return columns

    def _batches(
        self, questions: list[str], images: list[EncodedImage], names: Sequence[str], where: str
    ) -> Iterator[tuple[list[int], Callable[[list[int]], dict[str, list[Any]]]]]:
        """Yield batches of questions by their places, and what answers the questions of such places."""
        size = self.settings.batch_size
        asked = self.processor, questions, images, self.settings.prompt

        def answer(places: list[int], read: Prefixes | None = None, rows: Mapping[int, int] | None = None) -> Any:
            if read is not None and rows is not None:
                read = read.rows(torch.tensor([rows[place] for place in places], device=read.mask.device))
            chosen = [questions[place] for place in places], [images[place] for place in places]
            return self._columns(self.answer(*chosen, read))

        about: dict[int, list[int]] = {}
        for place, image in enumerate(images):
            about.setdefault(id(image), []).append(place)
        if not self.shares or len(about) == len(images):
            for batch in batch_by_length(self.family.prompt_lengths(*asked), size):
                yield batch, answer
            return

        groups = [*about.values()]
        lengths, shared = self.family.tokens_behind_images(*asked)

        def read(numbers: list[int]) -> Prefixes:
            firsts = [groups[number][0] for number in numbers]
            with torch.inference_mode():
                prompts = self._prompts([questions[place] for place in firsts], [images[place] for place in firsts])
                return read_images(self.family, self.model, prompts, shared)

        for start in range(0, len(groups), size):
            some = list(range(start, min(start + size, len(groups))))
            for numbers, prefixes in self.halving.run(read, some, where, "images", lambda k: names[groups[k][0]]):
                rows = {place: row for row, number in enumerate(numbers) for place in groups[number]}
                places = [*rows]
                for batch in batch_by_length([lengths[place] for place in places], size):
                    yield [places[k] for k in batch], partial(answer, read=prefixes, rows=rows)

    def _columns(self, decoded: Decoded) -> dict[str, list[Any]]:
        logits = decoded.first_logits
        if not torch.isfinite(logits).all():
            raise QuantrustError("the model produced logits that are not finite; its weights or its scheme are broken")
        k = logits.shape[-1] if self.settings.top_k is None else min(self.settings.top_k, logits.shape[-1])
        top = logits.topk(k, dim=-1)
        log_probs = torch.log_softmax(logits, dim=-1)
        states = {name: getattr(decoded, name).to("cpu", torch.float16) for name in STATES}
        for name, state in states.items():
            if not torch.isfinite(state).all():
                raise QuantrustError(
                    f"the model produced a state ({name}) that float16 cannot hold; its weights or scheme are broken"
                )
        ends = self.end_token_ids
        return {
            "answer": [
                self.processor.tokenizer.decode([t for t in ids if t not in ends], skip_special_tokens=True).strip()
                for ids in decoded.token_ids
            ],
            "token_ids": decoded.token_ids,
            "token_log_probs": decoded.token_log_probs,
            "finished": decoded.finished,
            "joint_log_prob": [float(np.sum(values, dtype=np.float64)) for values in decoded.token_log_probs],
            "top_ids": top.indices.tolist(),
            "top_logits": top.values.tolist(),
            "log_sum_exp": torch.logsumexp(logits, dim=-1).tolist(),
            "entropy": (-(log_probs.exp() * log_probs).sum(dim=-1)).tolist(),
            **{name: list(state.numpy()) for name, state in states.items()},
        }
