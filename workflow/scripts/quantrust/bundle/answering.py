"""Answers and confidences of the items of a chunk; what cannot be answered disturbs no other item."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from quantrust.bundle.items import Chunk, Failure
from quantrust.bundle.record import BundleRecord
from quantrust.confidence.catalogue import LEARNED
from quantrust.confidence.columns import confidence_columns
from quantrust.confidence.selector import Selectors, selector_confidence
from quantrust.data.texts import is_unicode, shown
from quantrust.errors import QuantrustError
from quantrust.inference.answering import Answerer
from quantrust.inference.features_file import features_schema
from quantrust.inference.question_check import faults_of_texts
from quantrust.inference.settings import DumpSettings
from quantrust.models.family import EncodedImage, VisionInputs
from quantrust.models.pictures import preprocess_pictures

Result = TypeVar("Result")


@dataclass(frozen=True)
class Usage:
    """What an answer took.

    Attributes
    ----------
    prompt_tokens : int
        Tokens that the model read, those of the image included.
    answer_tokens : int
        Tokens that it made, the end token included.
    whole : bool
        Whether the answer ended by itself; otherwise it reached the limit on its tokens.
    """

    prompt_tokens: int
    answer_tokens: int
    whole: bool


@dataclass(frozen=True)
class Answered:
    """An answer with its confidence, before a threshold decides."""

    answer: str
    confidence: float
    usage: Usage
    item_id: str | None


class BundleAnswerer:
    """Answers chunks of items.

    Parameters
    ----------
    answerer : Answerer
    record : BundleRecord
    selectors : Selectors or None
        Where the estimator is learned.
    """

    def __init__(self, answerer: Answerer, record: BundleRecord, selectors: Selectors | None) -> None:
        self._answerer, self._record, self._selectors = answerer, record, selectors

    @property
    def settings(self) -> DumpSettings:
        """With which it answers."""
        return self._answerer.settings

    def answer(self, chunk: Chunk, batch_size: int | None = None) -> list[Answered | Failure]:
        """Answer the items of a chunk, in their order.

        Parameters
        ----------
        chunk : Chunk
        batch_size : int, optional
            Questions that are decoded together; by default as in the study.
        """
        texts = [self._record.asked if item.question is None else item.question for item in chunk.items]
        faults = self._faults_of_questions(texts) | chunk.faults
        encoded, refused = self._encode(chunk)
        asked = []
        for place, key in enumerate(chunk.keys):
            if place not in faults:
                if key in refused:
                    faults[place] = refused[key]
                else:
                    asked.append(place)
        answerer = self._answerer if batch_size is None else self._with_batches_of(batch_size)

        def work(places: Sequence[int]) -> list[tuple[str, float, Usage]]:
            questions = [texts[place] for place in places]
            images = [encoded[chunk.keys[place]] for place in places]
            names = [f"question {shown(question)}" for question in questions]
            columns = answerer.answer_columns(questions, images, names, "items")
            return list(
                zip(
                    columns["answer"],
                    self._confidences(columns),
                    self._usage(questions, images, columns),
                    strict=True,
                )
            )

        answers, unanswered = _apart(work, asked)
        faults |= unanswered
        return [
            Failure(faults[place], item.item_id) if place in faults else Answered(*answers[place], item.item_id)
            for place, item in enumerate(chunk.items)
        ]

    def _with_batches_of(self, batch_size: int) -> Answerer:
        whole = self._answerer
        return Answerer(whole.family, whole.model, whole.processor, replace(whole.settings, batch_size=batch_size))

    def _faults_of_questions(self, questions: Sequence[Any]) -> dict[int, str]:
        """Return why questions cannot be asked, by the places of their items."""
        if self._record.asked is not None:
            others = {place: self._record.other_question(question) for place, question in enumerate(questions)}
            return {place: fault for place, fault in others.items() if fault is not None}
        faults = {
            place: f"question is {shown(question)}; expected a text"
            for place, question in enumerate(questions)
            if not (isinstance(question, str) and question.strip() and is_unicode(question))
        }
        texts = {place: question for place, question in enumerate(questions) if place not in faults}
        if texts:
            answerer = self._answerer
            family, processor, prompt = answerer.family, answerer.processor, answerer.settings.prompt
            for number, fault in faults_of_texts(family, processor, prompt, [*texts.values()]).items():
                faults[[*texts][number]] = f"question {fault}"
        return faults

    def _encode(self, chunk: Chunk) -> tuple[dict[Any, EncodedImage], dict[Any, str]]:
        """Return the encoded pictures by their keys, and why others cannot be encoded."""
        answerer = self._answerer
        encoded: dict[Any, EncodedImage] = {}
        refused: dict[Any, str] = {}
        keys = list(chunk.pictures)

        def work(places: Sequence[int]) -> list[EncodedImage]:
            chosen = [keys[place] for place in places]
            names = [f"image {key}" if isinstance(key, str) else "image" for key in chosen]

            def part(some: list[int]) -> VisionInputs:
                pictures = [chunk.pictures[chosen[k]] for k in some]
                return preprocess_pictures(answerer.family, answerer.processor, pictures, [names[k] for k in some])

            return answerer.encode_batch(part(list(range(len(chosen)))), part, names, "images")

        size = answerer.settings.images_per_batch
        for start in range(0, len(keys), size):
            found, faults = _apart(work, range(start, min(start + size, len(keys))))
            encoded |= {keys[place]: image for place, image in found.items()}
            refused |= {keys[place]: fault for place, fault in faults.items()}
        return encoded, refused

    def question_tokens(self, question: str) -> int:
        """Return how many tokens a question has in its prompt."""
        answerer = self._answerer
        return answerer.family.question_tokens(answerer.processor, [question], answerer.settings.prompt)[0]

    def _usage(self, questions: list[str], images: list[EncodedImage], columns: dict[str, list[Any]]) -> list[Usage]:
        answerer = self._answerer
        prompts = answerer.family.prompt_lengths(answerer.processor, questions, images, answerer.settings.prompt)
        made = map(len, columns["token_ids"])
        return [Usage(*parts) for parts in zip(prompts, made, columns["finished"], strict=True)]

    def _confidences(self, columns: dict[str, list[Any]]) -> list[float]:
        """Return the confidences of answers, from the columns that a features file would hold."""
        schema = features_schema(self._answerer.hidden)
        arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
        features = pl.DataFrame(pa.table(arrays))
        plain, _, _ = self._record.estimator.partition("+")
        if plain in LEARNED and self._selectors is not None:
            confidence = selector_confidence(self._selectors, features)[plain]
        else:
            confidence = features.select(confidence_columns([plain]))[plain].to_numpy()
        if self._record.calibrator is not None:
            confidence = self._record.calibrator(np.asarray(confidence))
        return confidence.tolist()


def _apart(
    work: Callable[[Sequence[int]], Sequence[Result]], places: Sequence[int]
) -> tuple[dict[int, Result], dict[int, str]]:
    """Do work on places together, or on each alone where it fails on them together; return results and faults."""
    if not places:
        return {}, {}
    try:
        return dict(zip(places, work(places), strict=True)), {}
    except QuantrustError as error:
        if len(places) == 1:
            return {}, {places[0]: str(error)}
    results: dict[int, Result] = {}
    faults: dict[int, str] = {}
    for place in places:
        found, fault = _apart(work, [place])
        results |= found
        faults |= fault
    return results, faults
