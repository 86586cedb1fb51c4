"""Where the rows of a features file come from, as its metadata say it."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from quantrust.inference.chunks import chunks_digest
from quantrust.inference.features_file import DEVICE
from quantrust.inference.settings import DumpSettings, MatchSettings
from quantrust.models.device import device_name
from quantrust.models.model_config import attention_of
from quantrust.quantization.kernels.packed import describe_kernels


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
