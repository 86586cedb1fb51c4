"""Answering questions about pictures with one variant: encoded pictures, batches of questions, and what is kept.

A batch that does not fit the memory of the device is halved.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.inference.chunks import batch_by_length
from quantrust.inference.decoding import Decoded, decode_greedily
from quantrust.inference.memory import Halving
from quantrust.inference.settings import DumpSettings
from quantrust.models.family import EncodedImage, Family, VisionInputs
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
    def answer(self, questions: list[str], images: list[EncodedImage]) -> Decoded:
        """Answer one batch of questions, an encoded image each."""
        inputs = self.family.language_inputs(
            self.model, self.processor, questions, images, template=self.settings.prompt
        )
        return decode_greedily(
            self.family,
            self.model,
            inputs,
            end_token_ids=self.end_token_ids,
            max_new_tokens=self.settings.max_new_tokens,
        )

    def answer_columns(
        self, questions: list[str], images: list[EncodedImage], names: Sequence[str], where: str
    ) -> dict[str, list[Any]]:
        """Answer questions in batches of similar lengths.

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

        def answer(places: list[int]) -> dict[str, list[Any]]:
            return self._columns(self.answer([questions[k] for k in places], [images[k] for k in places]))

        for number, batch in enumerate(self._batches(questions, images), start=1):
            halves = self.halving.run(answer, batch, f"{where}, batch {number}", "questions", names.__getitem__)
            for places, answered in halves:
                for column, values in answered.items():
                    kept = columns.setdefault(column, [None] * len(questions))
                    for place, value in zip(places, values, strict=True):
                        kept[place] = value
        return columns

    def _batches(self, questions: list[str], images: list[EncodedImage]) -> list[list[int]]:
        """Batch questions by the tokens of question and image; the rest of the prompt is the same for all."""
        tokens = self.processor.tokenizer(questions, add_special_tokens=False)["input_ids"]
        lengths = [len(ids) + len(image.features) for ids, image in zip(tokens, images, strict=True)]
        return batch_by_length(lengths, self.settings.batch_size)

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
