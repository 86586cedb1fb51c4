"""Match dumps: what one variant finds for every query of a dataset, among the images and captions of its split.

All images of a split, and all captions, are encoded once. They are compared by their embeddings, and the best of every
query are then ranked by a judgement on each pair, as in Li et al., "BLIP-2" (ICML 2023), section 4.4. Queries are taken
chunk by chunk (`quantrust.inference.chunks`); the rows of a chunk are a row group of the file.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor, nn

from quantrust.artifacts.tables import read_table
from quantrust.data.queries import MOST_TOKENS, TEXT_TO_IMAGE, compared_text
from quantrust.disk import check_disk
from quantrust.errors import QuantrustError
from quantrust.inference.answering import DTYPES
from quantrust.inference.chunks import batch_by_length, cut_into_chunks
from quantrust.inference.features_file import (
    HALVED,
    RANK,
    TEXT_COLUMNS,
    matches_schema,
    writing_features,
)
from quantrust.inference.memory import Halving
from quantrust.inference.origin import origin
from quantrust.inference.preprocessing import NeededImage, preprocess_images, preprocessed_batches
from quantrust.inference.question_check import refuse_unreadable
from quantrust.inference.settings import MatchSettings
from quantrust.inference.sizes import matches_bytes
from quantrust.models.device import check_device
from quantrust.models.family import EncodedImage, MatchingFamily, VisionInputs
from quantrust.partials import CONTENT, partial_folder
from quantrust.progress import progress
from quantrust.quantization.activation_store import ActivationStore, fetch
from quantrust.quantization.checkpoint import check_kernel, load_checkpoint
from quantrust.tasks.task import Quality, Task

KEPT = 10
"""Of what ranks first, in the file."""
COMPARED_AT_ONCE = 1 << 24
"""Similarities of embeddings in memory at a time."""
HELD = 2 << 30
"""Bytes of image features in memory; those of further images lie in files beside the output."""

Pair = tuple[int, int]
"""The place of an image in its split, and that of a text among the distinct ones."""


@dataclass(frozen=True)
class Gallery:
    """What the queries of a split look through.

    Attributes
    ----------
    image_ids : list of str
    caption_ids : list of str
    texts : list of str
        The captions as they are compared, each once: captions that are the same get the same scores, to the last bit.
    text_of : list of int
        The place of each caption's text in `texts`.
    """

    image_ids: list[str]
    caption_ids: list[str]
    texts: list[str]
    text_of: list[int]

    @classmethod
    def of(cls, queries: pl.DataFrame) -> "Gallery":
        """Return that of the questions table of a split."""
        captions = queries.filter(question_kind=TEXT_TO_IMAGE)
        texts = [compared_text(caption) for caption in captions["question"]]
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        return cls(
            queries["image_id"].unique(maintain_order=True).to_list(),
            captions["question_id"].to_list(),
            [*places],
            [places[text] for text in texts],
        )


class Matcher:
    """One variant, ready to match images with captions.

    Parameters
    ----------
    family : MatchingFamily
        With `matches`.
    model : torch.nn.Module
        On the device that it computes on.
    processor : object
    settings : MatchSettings
    """

    def __init__(self, family: MatchingFamily, model: nn.Module, processor: Any, settings: MatchSettings) -> None:
        self.family, self.model, self.processor, self.settings = family, model, processor, settings
        self.halving = Halving()

    def encode(self, images: list[NeededImage], inputs: VisionInputs, where: str) -> tuple[list[EncodedImage], Tensor]:
        """Encode images for judgements, and for comparison.

        Parameters
        ----------
        images : list of NeededImage
        inputs : VisionInputs
            The same images, preprocessed.
        where : str
            Their place, for the log.

        Returns
        -------
        encoded : list of EncodedImage
        embeddings : torch.Tensor, float32, shape (images, queries of the Q-Former, channels)
            On the CPU.
        """

        @torch.inference_mode()
        def encode(places: list[int]) -> tuple[list[EncodedImage], Tensor]:
            whole = len(places) == len(images)
            chosen = inputs if whole else preprocess_images(self.family, self.processor, [images[k] for k in places])
            encoded = self.family.encode_images(self.model, chosen)
            return encoded, self.family.image_embeddings(self.model, encoded).float().cpu()

        names = [f"image {image.path} (query {image.question_id})" for image in images]
        parts = self.halving.run(encode, list(range(len(images))), where, "images", names.__getitem__)
        found, embeddings = zip(*(part for _, part in parts), strict=True)
        return [image for part in found for image in part], torch.cat(embeddings)

    def embed(self, texts: Sequence[str], where: str) -> Tensor:
        """Return the embeddings of texts.

        Parameters
        ----------
        texts : sequence of str
            Captions as they are compared, each once.
        where : str
            Their place, for the log.

        Returns
        -------
        torch.Tensor, float32, shape (texts, channels)
            On the CPU.
        """

        @torch.inference_mode()
        def embed(places: list[int]) -> Tensor:
            chosen = [texts[k] for k in places]
            return self.family.text_embeddings(self.model, self.processor, chosen, MOST_TOKENS).float().cpu()

        lengths = [len(ids) for ids in self.processor.tokenizer([*texts], add_special_tokens=False)["input_ids"]]
        rows: dict[int, Tensor] = {}
        for number, batch in enumerate(batch_by_length(lengths, self.settings.batch_size), start=1):
            name = f"{where}, captions, batch {number}"
            for places, found in self.halving.run(embed, batch, name, "captions", texts.__getitem__):
                rows |= dict(zip(places, found, strict=True))
        return torch.stack([rows[place] for place in range(len(texts))])

    def judge(
        self, pairs: Sequence[Pair], images: Sequence[Any], texts: Sequence[str], where: str
    ) -> dict[Pair, float]:
        """Return the logit with which images and texts match, for each pair once.

        Parameters
        ----------
        pairs : sequence of Pair
        images : sequence
            All images of the split, in a store of activations.
        texts : sequence of str
            The distinct texts of the split.
        where : str
            The place of the pairs, for the log.

        Raises
        ------
        QuantrustError
            If a logit is not finite, or one pair alone does not fit the memory of the device.
        """
        # by image, so that the features of each are fetched once a batch
        order = sorted(set(pairs))

        @torch.inference_mode()
        def judge(places: list[int]) -> list[float]:
            chosen = [order[k] for k in places]
            fetched = {image: fetch(images[image]) for image in dict.fromkeys(image for image, _ in chosen)}
            inputs = self.family.pairs(
                self.model,
                self.processor,
                [texts[text] for _, text in chosen],
                [fetched[image] for image, _ in chosen],
                most=MOST_TOKENS,
            )
            logits = self.family.matching_logits(self.model, inputs)[:, 1].float().cpu()
            if not torch.isfinite(logits).all():
                raise QuantrustError(
                    "the model produced logits that are not finite; its weights or its scheme are broken"
                )
            return logits.tolist()

        size = self.settings.batch_size
        found: dict[Pair, float] = {}
        for start in range(0, len(order), size):
            batch = list(range(start, min(start + size, len(order))))
            name = f"{where}, pairs from {start + 1} on"
            for places, logits in self.halving.run(judge, batch, name, "pairs", lambda k: f"pair {order[k]}"):
                found |= dict(zip((order[k] for k in places), logits, strict=True))
        return found


def nearest(
    images: Tensor, texts: Tensor, text_of: Sequence[int], most: int, at_once: int = COMPARED_AT_ONCE
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what is nearest by its embeddings to every image, and to every caption.

    The similarity of an image and a text is the largest cosine of the text's embedding and one of the image's.

    Parameters
    ----------
    images : torch.Tensor, float32, shape (images, queries of the Q-Former, channels)
        Of unit length.
    texts : torch.Tensor, float32, shape (texts, channels)
        Of unit length.
    text_of : sequence of int
        The text of each caption by its place; a text may be that of several.
    most : int
        Of what is nearest.
    at_once : int
        Cosines, or similarities, in memory at a time, unless a single image or text has more.

    Returns
    -------
    dict
        Under ``image`` and ``text`` the places of what is nearest, the nearest first and of equals the first, and the
        similarities; each of shape (images, at most `most`) or (captions, at most `most`).
    """
    count, queries, channels = images.shape
    flat = images.reshape(-1, channels)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"image": [], "text": []}
    captions = torch.tensor(text_of)
    step = max(1, at_once // max(queries * len(texts), len(captions)))
    for start in range(0, count, step):
        part = flat[start * queries : (start + step) * queries] @ texts.T
        found["image"].append(_first(part.reshape(-1, queries, len(texts)).amax(dim=1)[:, captions], most))
    step = max(1, at_once // len(flat))
    for start in range(0, len(texts), step):
        part = flat @ texts[start : start + step].T
        found["text"].append(_first(part.reshape(count, queries, -1).amax(dim=1).T, most))
    of_images, of_texts = (
        [torch.cat([places for places, _ in parts]), torch.cat([values for _, values in parts])]
        for parts in found.values()
    )
    return {"image": (of_images[0], of_images[1]), "text": (of_texts[0][captions], of_texts[1][captions])}


def _first(similarities: Tensor, most: int) -> tuple[Tensor, Tensor]:
    ordered = similarities.sort(dim=1, descending=True, stable=True)
    return ordered.indices[:, :most].clone(), ordered.values[:, :most].clone()


def dump_matches(
    checkpoint_folder: str | Path,
    questions_path: str | Path,
    out_path: str | Path,
    settings: MatchSettings,
    task: Task,
    *,
    workers: int = 0,
) -> None:
    """Find what every query of a questions table looks for, and write the features file.

    Parameters
    ----------
    checkpoint_folder : str or Path
        A variant, as `quantrust.quantization.checkpoint` writes it.
    questions_path : str or Path
        Of queries, as `quantrust.data.queries` makes them.
    out_path : str or Path
        Parquet with the columns of `matches_schema`, and metadata as `quantrust.inference.features.dump_features`
        writes them.
    settings : MatchSettings
    task : Task
        Of the dataset: it judges what is found.
    workers : int
        Processes that prepare images ahead of the device; 0 prepares them in this one.

    Raises
    ------
    QuantrustError
        If there is no such device or attention, the disk has too little room, a split has fewer than two images or
        captions, an image is missing or broken, a caption holds a token of the model or leaves none, a pair does not
        fit the memory of the device, or a logit is not finite.
    """
    # Sums depend on the number of threads; further cores are the workers'.
    torch.set_num_threads(1)
    dtype = DTYPES[settings.dtype]
    check_kernel(settings.kernel, dtype)
    check_device(settings.device, settings.attention, dtype)
    questions = read_table(questions_path)
    galleries = {
        str(split): Gallery.of(queries) for (split,), queries in questions.group_by("split", maintain_order=True)
    }
    for split, gallery in galleries.items():
        if min(len(gallery.image_ids), len(gallery.caption_ids)) < 2:
            raise QuantrustError(
                f"{questions_path}: split {split} has {len(gallery.image_ids)} images and {len(gallery.caption_ids)} "
                "captions; expected two of each to choose from"
            )
    check_disk(out_path, matches_bytes(len(questions)), "move it to another disk")
    family, model, processor, record = load_checkpoint(
        checkpoint_folder, dtype, settings.kernel, settings.device, settings.attention
    )
    if not isinstance(family, MatchingFamily):
        raise QuantrustError(
            f"{checkpoint_folder}: models of the family {family.name} write answers; retrieval takes one that matches "
            "images with texts"
        )
    captions = questions.filter(question_kind=TEXT_TO_IMAGE)
    refuse_unreadable(captions, family, processor, "{question}", questions_path)
    matcher = Matcher(family, model, processor, settings)
    quality = task.judge(questions["answers"].to_list())
    notes = origin(record, questions_path, settings, model)
    name, out_path, schema = Path(questions_path).stem, Path(out_path), matches_schema(task.recalls)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        writing_features(out_path, schema) as writer,
        partial_folder(out_path.with_suffix(".images")) as scratch,
        progress(f"ranking for {name}", len(questions), "queries") as bar,
    ):
        store = ActivationStore(scratch / CONTENT, HELD, settings.device)
        for split, gallery in galleries.items():
            queries, where = questions.filter(split=split), f"{name}, {split}"
            images, embeddings = _encoded(matcher, queries, store, where, workers)
            best = nearest(embeddings, matcher.embed(gallery.texts, where), gallery.text_of, settings.rerank)
            for number, chunk in enumerate(cut_into_chunks(queries, settings.images_per_chunk), start=1):
                rows = _ranked(matcher, chunk, gallery, images, best, f"{where}, chunk {number}")
                rows |= _judged(rows, chunk, quality, task)
                writer.write(pa.table({key: pa.array(rows[key], schema.field(key).type) for key in schema.names}))
                bar.update(len(chunk))
            # those of a split are given up before the next ones are there
            del images
        writer.describe(notes | {HALVED: str(matcher.halving.count)})


def _encoded(
    matcher: Matcher, queries: pl.DataFrame, store: ActivationStore, where: str, workers: int
) -> tuple[list[Any], Tensor]:
    """Return all images of a split in a store, in the order of its gallery, and their embeddings."""
    first = queries.unique("image_id", keep="first", maintain_order=True)
    needed = [NeededImage(*row) for row in first.select("image", "question_id").iter_rows()]
    size = matcher.settings.images_per_batch
    batches = [needed[start : start + size] for start in range(0, len(needed), size)]
    images: list[Any] = []
    embeddings = []
    inputs = preprocessed_batches(matcher.family, matcher.processor, batches, workers)
    with progress(f"encoding {where}", len(needed), "images") as bar:
        for number, batch in enumerate(batches, start=1):
            encoded, found = matcher.encode(batch, next(inputs), f"{where}, image batch {number}")
            images += [store.put_all(image) for image in encoded]
            embeddings.append(found)
            bar.update(len(batch))
    if store.spilled:
        logging.getLogger(__name__).info("%s: %d bytes of image features lie on disk", where, store.spilled)
    return images, torch.cat(embeddings)


def _ranked(
    matcher: Matcher,
    chunk: pl.DataFrame,
    gallery: Gallery,
    images: Sequence[Any],
    best: dict[str, tuple[Tensor, Tensor]],
    where: str,
) -> dict[str, list[Any]]:
    """Return what ranks first for the queries of a chunk, and the ranks of what they look for."""
    places = {
        "image": {image_id: place for place, image_id in enumerate(gallery.image_ids)},
        "text": {caption_id: place for place, caption_id in enumerate(gallery.caption_ids)},
    }
    asked = [
        ("text", places["text"][row["question_id"]])
        if row["question_kind"] == TEXT_TO_IMAGE
        else ("image", places["image"][row["image_id"]])
        for row in chunk.iter_rows(named=True)
    ]
    found = [(side, own, best[side][0][own].tolist(), best[side][1][own].tolist()) for side, own in asked]
    pairs = [_pair(side, own, other, gallery) for side, own, others, _ in found for other in others]
    logits = matcher.judge(pairs, images, gallery.texts, where)
    columns: dict[str, list[Any]] = {name: [] for name in ("answer", "match_ids", "match_scores", RANK)}
    for (ids, scores), sought in zip(_rows(found, logits, gallery), chunk["answers"].to_list(), strict=True):
        rank = next((place for place, name in enumerate(ids, start=1) if name in sought), len(ids) + 1)
        for column, value in zip(columns.values(), (ids[0], ids[:KEPT], scores[:KEPT], rank), strict=True):
            column.append(value)
    return columns


def _judged(found: dict[str, list[Any]], chunk: pl.DataFrame, quality: Quality, task: Task) -> dict[str, list[Any]]:
    """Return the columns of a chunk's queries themselves, the quality of what they find, and whether they are hits."""
    columns = {name: chunk[name].to_list() for name in TEXT_COLUMNS if name in chunk.columns}
    columns["quality"] = [
        quality(answer, sought) for answer, sought in zip(found["answer"], chunk["answers"].to_list(), strict=True)
    ]
    for name, (kind, depth) in task.recalls.items():
        columns[name] = [
            float(rank <= depth) if own == kind else None
            for own, rank in zip(chunk["question_kind"], found[RANK], strict=True)
        ]
    return columns


def _pair(side: str, own: int, other: int, gallery: Gallery) -> Pair:
    image, caption = (own, other) if side == "image" else (other, own)
    return image, gallery.text_of[caption]


def _rows(
    found: Sequence[tuple[str, int, list[int], list[float]]], logits: dict[Pair, float], gallery: Gallery
) -> Iterator[tuple[list[str], list[float]]]:
    """Yield for each query the identifiers and scores of what was ranked, the best first."""
    for side, own, others, similarities in found:
        scores = {
            other: logits[_pair(side, own, other, gallery)] + similarity
            for other, similarity in zip(others, similarities, strict=True)
        }
        order = sorted(scores, key=lambda other: (-scores[other], other))
        ids = gallery.caption_ids if side == "image" else gallery.image_ids
        yield [ids[other] for other in order], [scores[other] for other in order]
