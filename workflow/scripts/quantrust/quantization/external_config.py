"""What the `config.json` of a folder says of how others quantized it. No torch: a study looks at it before any job."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.errors import QuantrustError
from quantrust.files import read_object
from quantrust.models.companions import QUANTIZATION
from quantrust.named_modules import READERS, module_names

CONFIG = "config.json"
PLACES = ("", "text_config.", "llm_config.", "language_config.")
"""Where a config may say how weights are quantized."""


@dataclass(frozen=True)
class ExternalFormat:
    """How a folder says that it is quantized.

    Attributes
    ----------
    where : str
        The file and the key, for messages.
    reader : str
        The module of `quantrust.quantization.readers` that reads it.
    config : mapping
        Its `quantization_config`.
    """

    where: str
    reader: str
    config: Mapping[str, Any]


def external_format(folder: str | Path) -> ExternalFormat:
    """Return how a folder says that it is quantized.

    Parameters
    ----------
    folder : str or Path
        With a `config.json`.

    Raises
    ------
    QuantrustError
        If the config says nothing of it, or names a format that is not read.
    """
    where, config = _quantization_config(Path(folder) / CONFIG)
    method = config.get("quant_method")
    known = {name.replace("_", "-"): name for name in module_names(READERS)}
    if not isinstance(method, str) or method not in known:
        said = ", ".join(str(config[key]) for key in ("quant_method", "quant_algo", "fmt") if config.get(key))
        raise QuantrustError(
            f"{where} says {said[:100] or 'no quant_method'}, which is not read; allowed: {', '.join(known)}. "
            "Weights of floats (FP8, NVFP4), GGUF and quantized activations cannot be held"
        )
    return ExternalFormat(where, known[method], config)


def _quantization_config(path: Path) -> tuple[str, Mapping[str, Any]]:
    content = read_object(path)
    for place in PLACES:
        holder = content.get(place.rstrip("."), {}) if place else content
        for key in QUANTIZATION:
            if isinstance(holder, dict) and (found := holder.get(key)) is not None:
                if not isinstance(found, dict):
                    raise QuantrustError(f"{path}: {place}{key} is no map; get the folder again")
                return f"{path}: {place}{key}", found
    raise QuantrustError(
        f"{path} has no quantization_config, so that nobody quantized this folder; name it under models to study it, "
        "or get the quantized one"
    )
