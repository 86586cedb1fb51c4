"""Feature dumps: the answers of one variant to one dataset, and everything that confidence estimators read.

Questions are taken chunk by chunk, as `quantrust.inference.chunks` plans them: the images of a chunk pass the vision
tower once, its questions are decoded in batches of similar lengths, and its rows, in the order of the questions table,
are a row group of the file.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import nn

from quantrust.artifacts.tables import read_table
from quantrust.data.texts import shown
from quantrust.disk import check_disk
from quantrust.errors import QuantrustError
from quantrust.inference.chunks import batch_by_length, chunks_digest, cut_into_chunks, shard_chunks
from quantrust.inference.decoding import Decoded, decode_greedily
from quantrust.inference.features_file import (
    DEVICE,
    HALVED,
    SHARD,
    features_schema,
    place_of_shard,
    writing_features,
)
from quantrust.inference.memory import Halving
from quantrust.inference.preprocessing import NeededImage, open_image, preprocess_images, preprocessed_batches
from quantrust.inference.settings import DumpSettings
from quantrust.inference.sizes import features_bytes
from quantrust.inference.working_memory import require_device
from quantrust.models.device import check_device, device_name
from quantrust.models.family import EncodedImage, Family, VisionInputs
from quantrust.models.loading import family_of
from quantrust.models.model_config import attention_of, read_model_config
from quantrust.progress import progress
from quantrust.quantization.checkpoint import check_kernel, load_checkpoint, read_record
from quantrust.quantization.kernels.packed import describe_kernels
from quantrust.tasks.task import Quality, Task

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STATES = ("image_state", "question_state", "answer_state")


class FeatureDumper:
    """One variant, ready to answer questions.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        On the device that it computes on.
    processor : object
    settings : DumpSettings
    quality : callable
        What an answer is worth, given the reference answers of its question.
    """

    def __init__(
        self, family: Family, model: nn.Module, processor: Any, settings: DumpSettings, quality: Quality
    ) -> None:
        self.family, self.model, self.processor, self.settings = family, model, processor, settings
        self.quality = quality
        self.hidden = model.get_submodule(family.head).in_features
        self.end_token_ids = family.end_token_ids(model, processor)
        self.halving = Halving()

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

        def encode(places: list[int]) -> list[EncodedImage]:
            whole = len(places) == len(images)
            # The tensors of a batch belong together: a part of it, which is rare, is preprocessed again.
            part = inputs if whole else preprocess_images(self.family, self.processor, [images[k] for k in places])
            with torch.inference_mode():
                return self.family.encode_images(self.model, part)

        def name(place: int) -> str:
            return f"image {images[place].path} (question {images[place].question_id})"

        parts = self.halving.run(encode, list(range(len(images))), where, "images", name)
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
        questions, ids = chunk["question"].to_list(), chunk["question_id"].to_list()
        images = [encoded[path] for path in chunk["image"]]
        schema = features_schema(self.hidden)
        made = [name for name in schema.names if name not in chunk.columns]
        columns: dict[str, list[Any]] = {name: [None] * len(chunk) for name in made}

        def answer(places: list[int]) -> dict[str, list[Any]]:
            return self._columns(self.answer([questions[k] for k in places], [images[k] for k in places]))

        def name(place: int) -> str:
            return f"question {ids[place]}"

        for number, batch in enumerate(self._batches(questions, images), start=1):
            for places, answered in self.halving.run(answer, batch, f"{where}, batch {number}", "questions", name):
                for column, values in answered.items():
                    for place, value in zip(places, values, strict=True):
                        columns[column][place] = value
        columns["accuracy"] = [
            self.quality(answer, references)
            for answer, references in zip(columns["answer"], chunk["answers"].to_list(), strict=True)
        ]
        kept = {name: chunk[name].to_list() for name in schema.names if name in chunk.columns}
        return pa.table({name: pa.array((kept | columns)[name], schema.field(name).type) for name in schema.names})

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


def dump_features(
    checkpoint_folder: str | Path,
    questions_path: str | Path,
    out_path: str | Path,
    settings: DumpSettings,
    task: Task,
    *,
    workers: int = 0,
    shard: int = 1,
    shards: int = 1,
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
        Parquet with the columns of `features_schema`. Its metadata name the scheme, the digest of the weights and of
        the plan of chunks, the settings, the attention of the model that ran, the device, the kernels by the quantized
        layers that use them, the batches that were halved, and the library versions.
    settings : DumpSettings
    task : Task
        Of the dataset: it judges the answers.
    workers : int
        Processes that prepare images ahead of the device; 0 prepares them in this one.
    shard, shards : int
        Only the chunks of this shard, from 1 on, of so many are answered; `gather_features` puts the files together.

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
    chosen = shard_chunks([len(chunk) for chunk in chunks], shard, shards)
    count = sum(len(chunks[number]) for number in chosen)
    needed = _bytes_needed(checkpoint_folder, count, settings)
    if shards > 1:
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
    for number in chosen:
        _refuse_tokens(chunks[number], processor, questions_path)
        _refuse_silence(chunks[number], family, processor, settings.prompt, questions_path)
    # A task may learn from the whole dataset, whichever of its chunks are answered here.
    quality = task.judge(questions["answers"].to_list())
    dumper = FeatureDumper(family, model, processor, settings, quality)
    notes = {
        "scheme": record["scheme"],
        "weights_sha256": record["sha256"],
        "plan": chunks_digest(questions_path, settings.images_per_chunk),
        "settings": settings.record(),
        "attention": attention_of(model),
        DEVICE: device_name(settings.device),
        "kernels": json.dumps(describe_kernels(model)),
        **{library: version(library) for library in ("torch", "transformers")},
    }
    name, place = Path(questions_path).stem, place_of_shard(shard, shards)
    if shards > 1:
        notes[SHARD] = place
        logging.getLogger(__name__).info("shard %s: %d of %d chunks", place, len(chosen), len(chunks))
    batches = {number: _image_batches(chunks[number], settings.images_per_batch) for number in chosen}
    inputs = preprocessed_batches(family, processor, [batch for part in batches.values() for batch in part], workers)
    with (
        writing_features(out_path, features_schema(dumper.hidden)) as writer,
        progress(f"answering {name}", count, f"{task.item}s") as bar,
    ):
        for number in chosen:
            where = f"{name}, chunk {number + 1}"
            # The features of a chunk are given up before those of the next are there.
            writer.write(
                dumper.chunk_table(chunks[number], dict(_encoded(dumper, batches[number], inputs, where)), where)
            )
            bar.update(len(chunks[number]))
        writer.describe(notes | {HALVED: str(dumper.halving.count)})


def _bytes_needed(checkpoint_folder: str | Path, questions: int, settings: DumpSettings) -> int:
    config_class = family_of(checkpoint_folder).model_class.config_class
    config = read_model_config(checkpoint_folder, config_class).get_text_config()
    return features_bytes(questions, config.hidden_size, settings.top_k or config.vocab_size)


def _refuse_tokens(questions: pl.DataFrame, processor: Any, path: str | Path) -> None:
    """Raise when a question's text would be read as one of the tokens that structure a prompt."""
    tokens = sorted(processor.tokenizer.get_added_vocab())
    found = questions.filter(pl.col("question").str.contains_any(tokens))
    if not found.is_empty():
        row = found.row(0, named=True)
        token = next(token for token in tokens if token in row["question"])
        raise QuantrustError(
            f"{path}: question {row['question_id']} holds {token!r}, which is a token of the model's prompts; reword it"
        )


def _refuse_silence(questions: pl.DataFrame, family: Family, processor: Any, prompt: str, path: str | Path) -> None:
    """Raise when a tokenizer leaves no token of a question's text, so that it would have no state."""
    counts = family.question_tokens(processor, questions["question"].to_list(), prompt)
    found = questions.filter(pl.Series(counts) == 0)
    if not found.is_empty():
        row = found.row(0, named=True)
        raise QuantrustError(
            f"{path}: question {row['question_id']} is {shown(row['question'])}, and the model's tokenizer makes "
            "no token of it; reword it, or take it out of the dataset's files"
        )


def _image_batches(chunk: pl.DataFrame, images_per_batch: int) -> list[list[NeededImage]]:
    """Return the images of a chunk, each once, in the batches that pass the vision tower together."""
    first = chunk.unique("image", keep="first", maintain_order=True)
    images = [NeededImage(*row) for row in first.select("image", "question_id").iter_rows()]
    return [images[start : start + images_per_batch] for start in range(0, len(images), images_per_batch)]


def _encoded(
    dumper: FeatureDumper, batches: list[list[NeededImage]], inputs: Iterator[VisionInputs], where: str
) -> Iterator[tuple[str, EncodedImage]]:
    """Take the next preprocessed batches and yield the encoded form of each image, with its path."""
    for number, images in enumerate(batches, start=1):
        encoded = dumper.encode(images, next(inputs), f"{where}, image batch {number}")
        yield from zip((image.path for image in images), encoded, strict=True)
