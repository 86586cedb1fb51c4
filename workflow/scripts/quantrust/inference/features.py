"""Feature dumps: the answers of one variant to one dataset, and everything that confidence estimators read.

Questions are taken chunk by chunk, as `quantrust.inference.chunks` plans them: the images of a chunk pass the vision
tower once, its questions are decoded in batches of similar lengths, and its rows, in the order of the questions table,
are a row group of the file.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
import pyarrow as pa
import torch
from torch import nn

from quantrust.artifacts.tables import read_table
from quantrust.disk import check_disk
from quantrust.inference.answering import DTYPES, Answerer
from quantrust.inference.chunks import cut_into_chunks, shard_chunks
from quantrust.inference.features_file import (
    HALVED,
    SHARD,
    features_schema,
    place_of_shard,
    writing_features,
)
from quantrust.inference.origin import about, origin
from quantrust.inference.pictures_kept import EncodedChunk, KeptPictures
from quantrust.inference.preprocessing import NeededImage, open_image, preprocess_images, preprocessed_batches
from quantrust.inference.question_check import refuse_unreadable
from quantrust.inference.settings import DumpSettings
from quantrust.inference.sizes import features_bytes
from quantrust.inference.working_memory import require_device
from quantrust.models.device import check_device
from quantrust.models.family import EncodedImage, Family, VisionInputs
from quantrust.models.loading import family_of
from quantrust.models.model_config import read_model_config
from quantrust.progress import progress
from quantrust.quantization.checkpoint import check_kernel, load_checkpoint, read_record
from quantrust.quantization.linear import keep_weights
from quantrust.tasks.task import Quality, Task


class FeatureDumper(Answerer):
    """One variant, ready to answer the questions of a dataset.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        On the device that it computes on.
    processor : object
    settings : DumpSettings
    quality : callable
        What an answer is worth, given the reference answers of its question.
    corpus_metrics : mapping of str to mapping of str to callable
        For each metric of all answers to a split together, and each split, what an answer adds to it.
    """

    def __init__(
        self,
        family: Family,
        model: nn.Module,
        processor: Any,
        settings: DumpSettings,
        quality: Quality,
        corpus_metrics: Mapping[str, Mapping[str, Quality]] = MappingProxyType({}),
    ) -> None:
        super().__init__(family, model, processor, settings)
        self.quality = quality
        self.corpus_metrics = corpus_metrics

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the features."""
        return features_schema(self.hidden, self.corpus_metrics)

    def encode(self, images: list[NeededImage], inputs: VisionInputs, where: str) -> list[EncodedImage]:
        """Pass images through the vision tower.

        Parameters
        ----------
        images : list of NeededImage
        inputs : VisionInputs
            The same images, preprocessed.
        where : str
            Their place, for the log.
        """

        def part(places: list[int]) -> VisionInputs:
            return preprocess_images(self.family, self.processor, [images[k] for k in places])

        names = [f"image {image.path} (question {image.question_id})" for image in images]
        return self.encode_batch(inputs, part, names, where)

    def chunk_table(self, chunk: pl.DataFrame, encoded: dict[str, EncodedImage], where: str) -> pa.Table:
        """Return the features of a chunk of the questions table, in its order.

        Parameters
        ----------
        chunk : polars.DataFrame
        encoded : dict of str to EncodedImage
            Its images by their paths.
        where : str
            The chunk's place, for the log.
        """
        names = [f"question {question_id}" for question_id in chunk["question_id"]]
        images = [encoded[path] for path in chunk["image"]]
        columns = self.answer_columns(chunk["question"].to_list(), images, names, where)
        judged = list(zip(columns["answer"], chunk["answers"].to_list(), chunk["split"], strict=True))
        columns["quality"] = [self.quality(answer, references) for answer, references, _ in judged]
        for name, of_split in self.corpus_metrics.items():
            columns[name] = [of_split[split](answer, references) for answer, references, split in judged]
        schema = self.schema
        kept = {name: chunk[name].to_list() for name in schema.names if name in chunk.columns}
        return pa.table({name: pa.array((kept | columns)[name], schema.field(name).type) for name in schema.names})


def dump_features(
    checkpoint_folder: str | Path,
    questions_path: str | Path,
    out_path: str | Path,
    settings: DumpSettings,
    task: Task,
    *,
    workers: int = 0,
    shard: tuple[int, int] = (1, 1),
    kept: KeptPictures | None = None,
    dequantize_once: bool = False,
) -> None:
    """Answer the questions of a questions table with a variant and write the features file.

    A batch that does not fit the memory of the device is halved, which is logged; its log-probabilities may then differ
    in their last bits from those of a device with more memory. Otherwise neither workers nor shards change a byte.

    Parameters
    ----------
    checkpoint_folder : str or Path
        A variant, as `quantrust.quantization.checkpoint` writes it.
    questions_path : str or Path
    out_path : str or Path
        Parquet with the columns of `features_schema`, those of the corpus metrics of the task among them: what each
        answer adds to the metric of its split. Its metadata name the scheme, the digest of the weights and of the plan
        of chunks, the settings, the attention of the model that ran, the device, the kernels by the quantized layers
        that use them, the batches that were halved, the library versions, and what `about` says of the items.
    settings : DumpSettings
    task : Task
        Of the dataset: it judges the answers.
    workers : int
        Processes that prepare images ahead of the device; 0 prepares them in this one.
    shard : tuple of int
        Only the chunks of the shard with this number, from 1 on, of so many are answered; `gather_features` puts the
        files together.
    kept : KeptPictures or None
        What variants of this model that answered the same questions before have left of the pictures; what is kept of
        them here is added. Without shards only. It changes no byte.
    dequantize_once : bool
        On a CPU, whether weights are dequantized once and not at every product, which is faster and takes the memory of
        the unquantized model. Those of a small model are in any case. It changes no byte.

    Raises
    ------
    QuantrustError
        If there is no such device or attention, disk or GPU have too little room, an image is missing or broken, a
        question holds a token of the model's prompts, leaves no token or does not fit the memory of the device, or the
        model's logits or states are not finite.
    """
    # Sums depend on the number of threads. A job's further cores are its workers', whose number must not matter.
    torch.set_num_threads(1)
    dtype = DTYPES[settings.dtype]
    check_kernel(settings.kernel, dtype)
    check_device(settings.device, settings.attention, dtype)
    questions = read_table(questions_path)
    chunks = cut_into_chunks(questions, settings.images_per_chunk)
    chosen = shard_chunks([len(chunk) for chunk in chunks], *shard)
    count = sum(len(chunks[number]) for number in chosen)
    needed = _bytes_needed(checkpoint_folder, count, settings)
    number_of_shards = shard[1]
    if number_of_shards > 1:
        # the other shards and the file that all are gathered in, less what lies there already
        written = sum(path.stat().st_size for path in Path(out_path).parent.glob("[!.]*.parquet"))
        whole = _bytes_needed(checkpoint_folder, sum(map(len, chunks)), settings)
        needed = max(needed, 2 * whole - written)
    check_disk(out_path, needed, "keep fewer logits (features.top_k)")
    if settings.device == "cuda" and count:
        # all chunks have as many pictures, but for the last one
        (images,) = _image_batches(chunks[chosen[0]], settings.images_per_chunk)
        asked = replace(settings, images_per_chunk=len(images))
        require_device(checkpoint_folder, read_record(checkpoint_folder), open_image(images[0]).size, asked)
    family, model, processor, record = load_checkpoint(
        checkpoint_folder, dtype, settings.kernel, settings.device, settings.attention
    )
    kept = KeptPictures(0, 0) if kept is None else kept
    kept.read_by(family, model)
    for number in chosen:
        # of chunks whose pictures are kept, a variant before was asked the same
        if kept.inputs(number) is None:
            worded = chunks[number].filter(pl.col("question") != "") if task.may_be_mute else chunks[number]
            refuse_unreadable(worded, family, processor, settings.prompt, questions_path)
    # A task may learn from the whole dataset, whichever of its chunks are answered here.
    quality = task.judge(questions["answers"].to_list())
    references = {split: part["answers"].to_list() for (split,), part in questions.group_by("split")}
    corpus_metrics = {
        name: {split: judge(own) for split, own in references.items()} for name, judge in task.corpus_metrics.items()
    }
    dumper = FeatureDumper(family, model, processor, settings, quality, corpus_metrics)
    notes = origin(record, questions_path, settings, model) | about(task, questions)
    if dequantize_once:
        keep_weights(model)
    name, place = Path(questions_path).stem, place_of_shard(*shard)
    if number_of_shards > 1:
        notes[SHARD] = place
        logging.getLogger(__name__).info("shard %s: %d of %d chunks", place, len(chosen), len(chunks))
    batches = {number: _image_batches(chunks[number], settings.images_per_batch) for number in chosen}
    missing = [number for number in chosen if kept.encoded(number) is None and kept.inputs(number) is None]
    ahead = [batch for number in missing for batch in batches[number]]
    inputs = preprocessed_batches(family, processor, ahead, workers)
    with (
        writing_features(out_path, dumper.schema) as writer,
        progress(f"answering {name}", count, f"{task.item}s") as bar,
    ):
        for number in chosen:
            where = f"{name}, chunk {number + 1}"
            # The features of a chunk are given up before those of the next are there.
            encoded = _images_of_chunk(dumper, number, batches[number], inputs, kept, where)
            writer.write(dumper.chunk_table(chunks[number], encoded, where))
            del encoded
            bar.update(len(chunks[number]))
        writer.describe(notes | {HALVED: str(dumper.halving.count)})


def _bytes_needed(checkpoint_folder: str | Path, questions: int, settings: DumpSettings) -> int:
    config_class = family_of(checkpoint_folder).model_class.config_class
    config = read_model_config(checkpoint_folder, config_class).get_text_config()
    return features_bytes(questions, config.hidden_size, settings.top_k or config.vocab_size)


def _image_batches(chunk: pl.DataFrame, images_per_batch: int) -> list[list[NeededImage]]:
    """Return the images of a chunk, each once, in the batches that pass the vision tower together."""
    first = chunk.unique("image", keep="first", maintain_order=True)
    images = [NeededImage(*row) for row in first.select("image", "question_id").iter_rows()]
    return [images[start : start + images_per_batch] for start in range(0, len(images), images_per_batch)]


def _images_of_chunk(
    dumper: FeatureDumper,
    number: int,
    batches: list[list[NeededImage]],
    inputs: Iterator[VisionInputs],
    kept: KeptPictures,
    where: str,
) -> dict[str, EncodedImage]:
    """Return the encoded images of a chunk by their paths, from what is kept if they are there.

    `inputs` has the next preprocessed batches of the chunks of which nothing is kept.
    """
    if (found := kept.encoded(number)) is None:
        ready = kept.inputs(number)
        part = kept.keeping_inputs(number, islice(inputs, len(batches))) if ready is None else iter(ready)
        before = dumper.halving.count
        images = dict(_encoded(dumper, batches, part, where))
        # what keeps the last batch comes after it
        next(part, None)
        kept.keep_encoded(number, EncodedChunk(images, dumper.halving.count - before))
        return images
    dumper.halving.count += found.halved
    return found.images


def _encoded(
    dumper: FeatureDumper, batches: list[list[NeededImage]], inputs: Iterator[VisionInputs], where: str
) -> Iterator[tuple[str, EncodedImage]]:
    """Take the next preprocessed batches and yield the encoded form of each image, with its path."""
    for number, images in enumerate(batches, start=1):
        encoded = dumper.encode(images, next(inputs), f"{where}, image batch {number}")
        yield from zip((image.path for image in images), encoded, strict=True)
