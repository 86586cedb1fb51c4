"""Feature dumps: what one variant answers to one dataset, and all that confidence estimators need of it.

Questions are taken image by image, so that each image passes the vision tower once; within a chunk of images they are
batched by length, and rows are written in the order of the questions table, one row group a chunk.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.files import atomic_path
from quantrust.inference.decoding import Decoded, decode_greedily
from quantrust.models.family import EncodedImage, Family
from quantrust.progress import progress
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.kernels import describe_kernels
from quantrust.vqa.accuracy import soft_accuracy
from quantrust.vqa.images import read_image

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class DumpSettings:
    """How features are dumped; the config's `features` section.

    Attributes
    ----------
    prompt : str
        The user's text around `{question}`.
    max_new_tokens : int
        Limit on generated tokens, the end token included.
    top_k : int or None
        Logits kept of the first answer token; None keeps the whole vocabulary.
    batch_size : int
        Questions that are decoded together.
    images_per_chunk : int
        Images that are encoded together and whose rows make a row group.
    dtype : {"float32", "bfloat16"}
        The dtype that the model computes in.
    kernel : {"reference", "packed"}
        How quantized linears multiply; see `load_checkpoint`.
    """

    prompt: str = "{question}"
    max_new_tokens: int = 8
    top_k: int | None = 20
    batch_size: int = 256
    images_per_chunk: int = 128
    dtype: str = "float32"
    kernel: str = "reference"


def features_schema(hidden: int) -> pa.Schema:
    """Return the Arrow schema of a features file for a language model of `hidden` channels."""
    state = pa.list_(pa.float16(), hidden)
    text = ("question_id", "dataset", "split", "image_id", "answer_type", "question_kind", "answer")
    return pa.schema(
        [(name, pa.string()) for name in text]
        + [
            ("token_ids", pa.list_(pa.int32())),
            ("token_log_probs", pa.list_(pa.float32())),
            ("finished", pa.bool_()),
            ("joint_log_prob", pa.float32()),
            ("top_ids", pa.list_(pa.int32())),
            ("top_logits", pa.list_(pa.float32())),
            ("log_sum_exp", pa.float32()),
            ("entropy", pa.float32()),
            ("image_state", state),
            ("question_state", state),
            ("answer_state", state),
            ("accuracy", pa.float64()),
        ]
    )


def open_image(path: str | Path, question_id: str) -> Image.Image:
    """Open an image as RGB.

    Raises
    ------
    QuantrustError
        If it is missing or broken; names the image and a question that needs it.
    """
    try:
        return read_image(path)
    except QuantrustError as error:
        raise QuantrustError(f"{path} can not be read ({error}), but question {question_id} needs it") from None


def _chunks(questions: pl.DataFrame, images_per_chunk: int) -> Iterator[pl.DataFrame]:
    """Yield the questions of so many images at a time; all questions of an image are in one chunk."""
    order = questions.select("image").unique(maintain_order=True).with_row_index("_place")
    placed = questions.join(order, on="image", maintain_order="left")
    chunk = (pl.col("_place") // images_per_chunk).alias("_chunk")
    for _, rows in placed.with_columns(chunk).group_by("_chunk", maintain_order=True):
        yield rows.drop("_place", "_chunk")


def _batches(questions: list[str], batch_size: int) -> Iterator[list[int]]:
    """Yield places of questions of like lengths, longest first, so that a batch holds little padding."""
    order = sorted(range(len(questions)), key=lambda k: (-len(questions[k]), k))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


class FeatureDumper:
    """One variant, ready to answer questions."""

    def __init__(self, family: Family, model: nn.Module, processor: Any, settings: DumpSettings) -> None:
        self.family, self.model, self.processor, self.settings = family, model, processor, settings
        self.hidden = model.lm_head.in_features
        self.end_token_ids = family.end_token_ids(model, processor)

    @torch.inference_mode()
    def _encode(self, images: list[Image.Image]) -> list[EncodedImage]:
        return self.family.encode_images(self.model, self.family.preprocess(self.processor, images))

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

    def chunk_table(self, chunk: pl.DataFrame) -> pa.Table:
        """Return the features of a chunk of the questions table, in its order."""
        first = chunk.unique("image", keep="first", maintain_order=True)
        opened = [open_image(path, question) for path, question in first.select("image", "question_id").iter_rows()]
        encoded = dict(zip(first["image"].to_list(), self._encode(opened), strict=True))
        questions, paths = chunk["question"].to_list(), chunk["image"].to_list()
        columns: dict[str, list[Any]] = {
            field.name: [None] * len(chunk) for field in features_schema(self.hidden) if field.name not in chunk.columns
        }
        for places in _batches(questions, self.settings.batch_size):
            decoded = self.answer([questions[k] for k in places], [encoded[paths[k]] for k in places])
            for name, values in self._columns(decoded).items():
                for place, value in zip(places, values, strict=True):
                    columns[name][place] = value
        columns["accuracy"] = [
            soft_accuracy(answer, references)
            for answer, references in zip(columns["answer"], chunk["answers"].to_list(), strict=True)
        ]
        schema = features_schema(self.hidden)
        kept = {name: chunk[name].to_list() for name in schema.names if name in chunk.columns}
        return pa.table({name: pa.array((kept | columns)[name], schema.field(name).type) for name in schema.names})

    def _columns(self, decoded: Decoded) -> dict[str, list[Any]]:
        logits = decoded.first_logits
        if not torch.isfinite(logits).all():
            raise QuantrustError("the model produced logits that are not finite; its weights or its scheme are broken")
        k = logits.shape[-1] if self.settings.top_k is None else min(self.settings.top_k, logits.shape[-1])
        top = logits.topk(k, dim=-1)
        log_probs = torch.log_softmax(logits, dim=-1)
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
            **{
                name: list(getattr(decoded, name).to(torch.float16).numpy())
                for name in ("image_state", "question_state", "answer_state")
            },
        }


def dump_features(
    checkpoint_folder: str | Path, questions_path: str | Path, out_path: str | Path, settings: DumpSettings
) -> None:
    """Answer every question of a questions table with a variant and write the features file.

    Parameters
    ----------
    checkpoint_folder : str or Path
        A variant, as `quantrust.quantization.checkpoint` writes it.
    questions_path : str or Path
    out_path : str or Path
        Parquet with the columns of `features_schema`; its metadata name the digest of the weights, the settings, the
        kernels by the quantized layers that use them, and the library versions.
    settings : DumpSettings

    Raises
    ------
    QuantrustError
        If an image is missing or broken, or the model's logits are not finite.
    """
    family, model, processor, metadata = load_checkpoint(checkpoint_folder, DTYPES[settings.dtype], settings.kernel)
    dumper = FeatureDumper(family, model, processor, settings)
    questions = pl.read_parquet(questions_path)
    notes = {
        "scheme": metadata["scheme"],
        "weights_sha256": metadata["sha256"],
        "settings": repr(settings),
        "kernels": json.dumps(describe_kernels(model)),
        **{library: version(library) for library in ("torch", "transformers")},
    }
    schema = features_schema(dumper.hidden).with_metadata(notes)
    with (
        atomic_path(out_path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd") as writer,
        progress(f"answering {Path(questions_path).stem}", len(questions), "questions") as bar,
    ):
        for chunk in _chunks(questions, settings.images_per_chunk):
            writer.write_table(dumper.chunk_table(chunk).replace_schema_metadata(schema.metadata))
            bar.update(len(chunk))
