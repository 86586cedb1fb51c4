"""The weights of a model folder, one file or several, strictly as its index and its config say; nothing is loaded here.

Published folders keep large models in shards, named by `model.safetensors.index.json`, and name tensors as the library
did when they were published; it renames them on loading.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from quantrust.errors import QuantrustError
from quantrust.files import path_inside, read_object
from quantrust.models.companions import INDEX, WEIGHTS


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor of a model lies.

    Attributes
    ----------
    path : Path
        A safetensors file.
    key : str
        Its name in that file, which may differ from its name in the model.
    shape : tuple of int
    """

    path: Path
    key: str
    shape: tuple[int, ...]


def weight_files(folder: str | Path) -> dict[str, Path]:
    """Return the safetensors file of every key that a model folder stores.

    Parameters
    ----------
    folder : str or Path
        With `model.safetensors`, or with `model.safetensors.index.json` and the shards that it names.

    Returns
    -------
    dict of str to Path

    Raises
    ------
    QuantrustError
        If there is neither, a shard is missing or no whole safetensors file, or index and shards disagree on a key.
    """
    folder = Path(folder)
    if (single := folder / WEIGHTS).is_file():
        return dict.fromkeys(_keys(single), single)
    index = folder / INDEX
    if not index.is_file():
        raise QuantrustError(
            f"{folder} holds no safetensors file that is known: expected {WEIGHTS}, or {INDEX} and the shards that it "
            "names, beside its config.json"
        )
    named = _read_index(index)
    shards: dict[str, set[str]] = {}
    for key, shard in named.items():
        shards.setdefault(shard, set()).add(key)
    for shard, keys in sorted(shards.items()):
        path = path_inside(folder, shard, index, links_out=True)
        if not path.is_file():
            raise QuantrustError(
                f"{path} is missing, though {INDEX} names it for {_shown(keys)}; get the shard and put it there"
            )
        stored = set(_keys(path))
        if lacking := keys - stored:
            raise QuantrustError(
                f"{path} lacks {_shown(lacking)}, which {INDEX} says that it holds; index and shards must be of one "
                "model: get the folder again"
            )
        if extra := stored - keys:
            raise QuantrustError(
                f"{path} holds {_shown(extra)}, which {INDEX} does not name for it; index and shards must be of one "
                "model: get the folder again"
            )
    return {key: folder / shard for key, shard in named.items()}


def stored_tensors(folder: str | Path, model: nn.Module) -> dict[str, StoredTensor]:
    """Return where every tensor of a model lies in its folder, without reading one.

    Parameters
    ----------
    folder : str or Path
    model : torch.nn.Module
        Of the library, as the folder's config describes it; its weights are not looked at.

    Returns
    -------
    dict of str to StoredTensor
        By the names of `model.state_dict()`. Of tensors that the config ties, at least one is there.

    Raises
    ------
    QuantrustError
        As `weight_files` does, or if a key is missing, unexpected or of another shape than the config calls for.
    """
    folder = Path(folder)
    files = weight_files(folder)
    names = tensor_names(folder, model, files)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in dict.fromkeys(files.values()):
        with safe_open(path, "pt") as file:
            shapes.update({key: tuple(file.get_slice(key).get_shape()) for key in file.keys()})  # noqa: SIM118
    expected = model.state_dict(keep_vars=True)
    stored = {name: StoredTensor(files[key], key, shapes[key]) for key, name in names.items()}
    if unexpected := [stored[name].key for name in stored.keys() - expected.keys()]:
        raise QuantrustError(f"{folder}: {_faults('unexpected', unexpected)}")
    # tied tensors are one under several names
    there = {id(expected[name]) for name in stored}
    if missing := [name for name, tensor in expected.items() if id(tensor) not in there]:
        raise QuantrustError(f"{folder}: {_faults('missing', missing)}")
    misshapen = [
        f"{at.key} of {list(at.shape)} for {list(expected[name].shape)} in {at.path.name}"
        for name, at in stored.items()
        if at.shape != tuple(expected[name].shape)
    ]
    if misshapen:
        raise QuantrustError(f"{folder}: {_faults('mismatched', misshapen)}")
    return stored


def tensor_names(folder: str | Path, model: nn.Module, keys: Iterable[str]) -> dict[str, str]:
    """Return what the model calls each key of its folder; keys that the library ignores on loading are left out.

    Parameters
    ----------
    folder : str or Path
        For messages.
    model : torch.nn.Module
        Of the library.
    keys : iterable of str

    Returns
    -------
    dict of str to str
        Names in the model, by keys. A name that the model does not have is an unexpected key.

    Raises
    ------
    QuantrustError
        If the library would compute on a tensor and not only rename it, or two keys get one name.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if not isinstance(transform, WeightRenaming)]
    expected = model.state_dict(keep_vars=True)
    ignored = [*(model._keys_to_ignore_on_load_unexpected or []), r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$"]
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for key in sorted(keys):
        name, converter = rename_source_key(key, renamings, converters, model.base_model_prefix, expected)
        if converter is not None:
            raise QuantrustError(
                f"{folder}: {key} is stored in a layout that the library converts on loading, which is not done here; "
                "load the model with transformers and save it again"
            )
        if name not in expected and any(re.search(pattern, name) for pattern in ignored):
            continue
        if name in taken:
            raise QuantrustError(f"{folder}: {taken[name]} and {key} are both {name} of the model; expected one")
        names[key] = name
        taken[name] = key
    return names


def _read_index(path: Path) -> dict[str, str]:
    named = read_object(path).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise QuantrustError(f"{path}: weight_map is missing or no map of keys to shards; get it again")
    if elsewhere := [shard for shard in named.values() if Path(shard).name != shard]:
        raise QuantrustError(f"{path} names the shard {elsewhere[0]}; expected a file beside it")
    return named


def _keys(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise QuantrustError(f"{path} is no whole safetensors file ({error}); get it again") from None


def _shown(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def _faults(what: str, keys: list[str]) -> str:
    noun = "key" if len(keys) == 1 else "keys"
    return (
        f"{len(keys)} {what} {noun} in the weights ({_shown(keys)}); weights and config.json must be of one model: "
        "restore the folder"
    )
