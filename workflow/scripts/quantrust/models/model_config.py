"""The `config.json` of a model folder: what the model is. How it runs is not for this file to say.

Published configs also hold settings of the run that wrote them: an attention, a dtype, what a forward pass returns, how
weights were once quantized. The library lets some of them win over what it is asked for. Here the study's settings
decide, so those keys are taken out, at whatever depth they stand, before the library sees them.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from quantrust.errors import QuantrustError
from quantrust.files import read_object
from quantrust.models.companions import QUANTIZATION
from quantrust.models.family import Family
from quantrust.models.named_errors import blaming

CONFIG = "config.json"

DTYPES = ("dtype", "torch_dtype")
"""What the dtype of the weights is called, now and before."""

IMPLEMENTATIONS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_attn_implementation_autoset",
    "_flash_attn_2_enabled",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
)
"""What code the library ran the model with."""

HOW_IT_RUNS = frozenset(
    {
        *DTYPES,
        *QUANTIZATION,
        *IMPLEMENTATIONS,
        "output_attentions",
        "_output_attentions",
        "output_hidden_states",
        "return_dict",
        "use_return_dict",
        "use_cache",
        "chunk_size_feed_forward",
        "gradient_checkpointing",
        "configuration_files",
    }
)
"""Keys that are not read. The last would let the library read another file in the place of this one."""

MOST = {
    **dict.fromkeys(("num_hidden_layers", "depth"), 1_000),
    **dict.fromkeys(("head_dim",), 10_000),
    **dict.fromkeys(
        (
            "hidden_size",
            "embed_dim",
            "intermediate_size",
            "mlp_ratio",
            "num_heads",
            "num_attention_heads",
            "num_key_value_heads",
            "vocab_size",
            "max_position_embeddings",
            "image_size",
            "patch_size",
            "temporal_patch_size",
            "spatial_merge_size",
            "scale_factor",
            "in_channels",
            "in_chans",
            "num_channels",
        ),
        100_000_000,
    ),
}
"""Numbers of which every model has one at least, blocks first, and how large they may be."""


DEEPEST = 40
"""Maps and lists in one another in a `config.json`, at most."""


def read_model_config(
    folder: str | Path, config_class: type[PreTrainedConfig], attention: str = "sdpa"
) -> PreTrainedConfig:
    """Read what a model is, to be run as the study says.

    Parameters
    ----------
    folder : str or Path
    config_class : type
        Of the family's model.
    attention : {"eager", "sdpa", "flash_attention_2"}
        How its vision tower and language model attend; of no matter to those who only read sizes.

    Returns
    -------
    transformers.PreTrainedConfig
        Of a float32 model.

    Raises
    ------
    QuantrustError
        If the file is missing, damaged, or describes no model of this class.
    """
    path = Path(folder) / CONFIG
    content = read_object(path)
    _check_depth(path, content)
    content = without_run_settings(content)
    _check_numbers(path, content)
    with _describing(path, config_class):
        config = config_class.from_dict(content)
    config._attn_implementation = attention
    return config


def build_model(folder: str | Path, family: Family, attention: str = "sdpa") -> PreTrainedModel:
    """Build what runs of the model that a folder's config describes, with float32 weights that nothing has written to.

    Parameters
    ----------
    folder : str or Path
    family : Family
    attention : {"eager", "sdpa", "flash_attention_2"}
        How its vision tower and language model attend.

    Returns
    -------
    transformers.PreTrainedModel
        With the weights tied that the config ties, and without blocks that never run.

    Raises
    ------
    QuantrustError
        As `read_model_config` does, or if the adapter does not cover this model, or the library runs it with another
        attention.
    """
    if attention not in family.attentions:
        raise QuantrustError(
            f"{folder}: {family.name} has parts that {attention} cannot run (docs/families.md says which); set "
            f"compute.attention to one of: {', '.join(family.attentions)}"
        )
    config = read_model_config(folder, family.model_class.config_class, attention)
    with _describing(Path(folder) / CONFIG, family.model_class.config_class):
        changes, idle = family.running_part(config)
        _change(config, changes)
        with no_init_weights():
            model = family.model_class(config)
        model.tie_weights()
    # folders hold the weights of blocks that never run
    model._keys_to_ignore_on_load_unexpected = [*(model._keys_to_ignore_on_load_unexpected or []), *idle]
    if (found := attention_of(model)) != attention:
        raise QuantrustError(
            f"{folder}: the library runs this model with the attention {found}, not with {attention}; set "
            f"compute.attention: {found}"
        )
    return model


def config_of_running_part(folder: str | Path, family: Family, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a folder's `config.json` holds, changed to describe the model without blocks that never run.

    Parameters
    ----------
    folder : str or Path
    family : Family
    content : mapping
        Of the file, or what was made of it.

    Raises
    ------
    QuantrustError
        As `read_model_config` does, or if the adapter does not cover this model.
    """
    changes, _ = family.running_part(read_model_config(folder, family.model_class.config_class))
    return _merged(content, changes)


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: _merged(content.get(key, {}), value) for key, value in changes.items() if isinstance(value, dict)}
    return {**content, **changes, **inner}


def _change(config: PreTrainedConfig, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _change(getattr(config, key), value)
        else:
            setattr(config, key, value)


def _describing(path: Path, config_class: type[PreTrainedConfig]) -> AbstractContextManager[None]:
    """Say of a config that no model can be made of it what the library says."""
    return blaming(f"{path}: describes no {config_class.model_type} model", "get the file again")


def _check_depth(path: Path, content: Any) -> None:
    """Raise for maps and lists that lie in more of them than a model's do: what goes through them calls itself."""
    level = [content]
    for _ in range(DEEPEST):
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise QuantrustError(
        f"{path}: is nested too deeply; expected at most {DEEPEST} maps and lists in one another: get the file again"
    )


def _check_numbers(path: Path, content: Mapping[str, Any], prefix: str = "") -> None:
    """Raise for numbers that no model has: the library builds on them, or goes on for ever."""
    for key, value in content.items():
        if isinstance(value, dict):
            _check_numbers(path, value, f"{prefix}{key}.")
        if key in MOST and isinstance(value, (int, float)) and not 1 <= value <= MOST[key]:
            raise QuantrustError(
                f"{path}: {prefix}{key} is {value}; expected a number from 1 to {MOST[key]:,}: get the file again"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise QuantrustError(f"{path}: {prefix}{key} is {value}, which is not a finite number: get the file again")


def without_run_settings(content: Any) -> Any:
    """Return what a config holds without the keys of `HOW_IT_RUNS`, at any depth."""
    if isinstance(content, dict):
        return {key: without_run_settings(value) for key, value in content.items() if key not in HOW_IT_RUNS}
    if isinstance(content, list):
        return [without_run_settings(value) for value in content]
    return content


def run_settings(content: Mapping[str, Any]) -> list[str]:
    """Return the keys of a config that would have changed what runs, those in maps with dots.

    Parameters
    ----------
    content : mapping
        Of a `config.json`.
    """
    found = []
    for key, value in content.items():
        if key in (*IMPLEMENTATIONS, *QUANTIZATION):
            found.append(key)
        elif isinstance(value, dict):
            found += [f"{key}.{inner}" for inner in run_settings(value)]
    return found


def config_of_weights(content: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return a config for weights that are written anew, because the old one may no longer describe them.

    Parameters
    ----------
    content : mapping
        Of a `config.json`.
    dtype : torch.dtype
        Of the weights that are not quantized.

    Returns
    -------
    dict
        With this dtype at every place that named one, and at the top; without an earlier quantization, and without
        the code that the model was run with.
    """
    name = str(dtype).removeprefix("torch.")
    kept = _rewritten(content, name)
    return kept if any(key in kept for key in DTYPES) else {**kept, DTYPES[0]: name}


def _rewritten(content: Any, dtype: str) -> Any:
    if isinstance(content, list):
        return [_rewritten(value, dtype) for value in content]
    if not isinstance(content, dict):
        return content
    kept = {key: value for key, value in content.items() if key not in (*IMPLEMENTATIONS, *QUANTIZATION)}
    return {key: dtype if key in DTYPES else _rewritten(value, dtype) for key, value in kept.items()}


def attention_of(model: nn.Module) -> str:
    """Return the attention that a model runs with; of several, all names in order, with commas."""
    configs = (getattr(module, "config", None) for module in model.modules())
    found = {config._attn_implementation for config in configs if isinstance(config, PreTrainedConfig)}
    return ", ".join(sorted(found))
