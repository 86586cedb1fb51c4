"""Where the rows of a features file come from, as its metadata say it."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from torch import nn

from quantrust.inference.chunks import chunks_digest
from quantrust.inference.features_file import DEVICE
from quantrust.inference.settings import DumpSettings, MatchSettings
from quantrust.models.device import device_name
from quantrust.models.model_config import attention_of
from quantrust.quantization.kernels.packed import describe_kernels
from quantrust.tasks.task import Task


def origin(
    record: Mapping[str, Any], questions_path: str | Path, settings: DumpSettings | MatchSettings, model: nn.Module
) -> dict[str, str]:
    """Return metadata of a features file: what its rows were computed from, and how.

    Parameters
    ----------
    record : mapping
        Of the checkpoint.
    questions_path : str or Path
        The questions table.
    settings : DumpSettings or MatchSettings
    model : torch.nn.Module
        As it is on its device.
    """
    return {
        "scheme": record["scheme"],
        "weights_sha256": record["sha256"],
        "plan": chunks_digest(questions_path, settings.images_per_chunk),
        "settings": settings.record(),
        "attention": attention_of(model),
        DEVICE: device_name(settings.device),
        "kernels": json.dumps(describe_kernels(model)),
        **{library: version(library) for library in ("torch", "transformers")},
    }


def about(task: Task, questions: pl.DataFrame) -> dict[str, str]:
    """Return metadata of a features file on its items, for who asks the same of others.

    Parameters
    ----------
    task : Task
    questions : polars.DataFrame
        The questions table.

    Returns
    -------
    dict of str to str
        `item` and `quality`: what the task calls an item and the quality of an answer. `asked`, where all items have
        one text, as captions have: that text, which may be empty.
    """
    texts = questions["question"].unique()
    same = {"asked": texts[0]} if len(texts) == 1 and questions.height > 1 else {}
    return {"item": task.item, "quality": task.quality_name, **same}
