"""Settings of feature dumps. No torch: gathering shards and resource plans read them."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class _Computing:
    """What answers and matches have in common: how many items a model reads at a time, and how it computes."""

    batch_size: int = 128
    images_per_batch: int = 128
    images_per_chunk: int = 128
    dtype: str = "float32"
    kernel: str = "reference"
    device: str = "cpu"
    attention: str = "sdpa"

    def record(self) -> str:
        """Return the settings as JSON, as a features file names them."""
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class DumpSettings(_Computing):
    """The settings that an answer may depend on: the config's `features` and `compute`, without those that spread work.

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
    images_per_batch : int
        Images that pass the vision tower together.
    images_per_chunk : int
        Images whose features are held until all their questions are answered; the rows make a row group.
    dtype : {"float32", "bfloat16"}
        The dtype that the model computes in.
    kernel : {"reference", "packed"}
        How quantized linears multiply; see `load_checkpoint`.
    device : {"cpu", "cuda"}
    attention : {"eager", "sdpa", "flash_attention_2"}
        How vision tower and language model attend.
    """

    prompt: str = "{question}"
    max_new_tokens: int = 8
    top_k: int | None = 20

    @classmethod
    def from_config(cls, settings: Mapping[str, Any]) -> "DumpSettings":
        """Read the settings from a config, which calls the whole vocabulary `all`."""
        return cls(**{**settings, "top_k": None if settings["top_k"] == "all" else settings["top_k"]})


@dataclass(frozen=True, kw_only=True)
class MatchSettings(_Computing):
    """The settings that a match may depend on: the config's `features` and `compute`, without those that spread work.

    Attributes
    ----------
    rerank : int
        Of what is nearest to a query by its embedding, those that are judged pair by pair and ranked.
    batch_size : int
        Pairs, or captions, that are judged or encoded together.
    images_per_batch : int
        Images that pass the vision tower together.
    images_per_chunk : int
        Images whose queries make a row group.
    dtype, kernel, device, attention : str
        As of `DumpSettings`.
    """

    rerank: int = 128
