"""The weights of a model folder, one file or several, strictly as its index and its config say: found and checked.

Published folders keep large models in shards, named by `model.safetensors.index.json`, and name tensors as the library
did when they were published; it renames them on loading.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from quantrust.artifacts.folder_record import check_file
from quantrust.errors import QuantrustError
from quantrust.files import SHOWN, has_control, path_inside, read_object
from quantrust.models.companions import ADAPTER, INDEX, WEIGHT_SUFFIXES, WEIGHTS
from quantrust.models.named_errors import blaming

FLOATS = ("F64", "F32", "F16", "BF16")
"""Dtypes of weights that are not quantized, as safetensors spells them."""

LONGEST_KEY = 1000
"""Characters in the name of a tensor."""

NUMBERS_AT_ONCE = 1 << 22
"""Numbers of a tensor that are read and looked at together: to look for infinities takes several times their memory."""


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
    dtype : str
        As safetensors spells it.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """Return the tensor, in memory of its own.

        Raises
        ------
        QuantrustError
            If it holds NaN or infinite values.
        """
        # pages that were read count as memory until the mapping is closed
        with safe_open(self.path, "pt") as file:
            tensor = file.get_tensor(self.key).clone()
        if self.dtype in FLOATS and not is_finite(tensor):
            raise _not_finite(self)
        return tensor


def weight_files(folder: str | Path) -> dict[str, Path]:
    """Return the safetensors file of every key that a model folder stores.

    Parameters
    ----------
    folder : str or Path
        With `model.safetensors`, or with `model.safetensors.index.json` and the shards that it names; not with both, if
        the index names other files.

    Returns
    -------
    dict of str to Path

    Raises
    ------
    QuantrustError
        If there is neither or both, a shard is missing or no whole safetensors file, index and shards disagree on a
        key, or an adapter lies beside them.
    """
    folder = Path(folder)
    if adapter := next((name for name in ADAPTER if (folder / name).is_file()), None):
        raise QuantrustError(
            f"{folder / adapter} is of an adapter that is not merged into the weights, so that the model without it "
            "would be studied; merge the two and save the result, or take the adapter out of the folder"
        )
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        if index.is_file() and (others := set(_read_index(index).values()) - {WEIGHTS}):
            raise QuantrustError(
                f"{folder} holds {WEIGHTS}, and {INDEX}, which names other files ({_shown(others)}); only one of them "
                "can be the model: take the other out of the folder"
            )
        return dict.fromkeys(_keys(single), single)
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


def other_weights(folder: str | Path, files: Mapping[str, Path]) -> list[str]:
    """Return the names of files in a model folder that look like weights and are not among those that are read.

    Parameters
    ----------
    folder : str or Path
    files : mapping of str to Path
        As `weight_files` returns them.
    """
    read = set(files.values())
    return sorted(path.name for path in Path(folder).iterdir() if path.suffix in WEIGHT_SUFFIXES and path not in read)


def stored_tensors(folder: str | Path, model: nn.Module) -> dict[str, StoredTensor]:
    """Return where every tensor of a model lies in its folder; only tensors that are tied and stored twice are read.

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
        As `weight_files` does, or if a key is missing, unexpected or of another shape than the config calls for, if
        weights are quantized already, if two tensors differ that the config ties, or if the config names other files.
    """
    folder = Path(folder)
    files = weight_files(folder)
    _check_named(folder, model, files)
    names, at = tensor_names(folder, model, files), tensors_in(files)
    stored = {name: at[key] for key, name in names.items()}
    check_stored(folder, stored, model.state_dict(keep_vars=True))
    return stored


def tensors_in(files: Mapping[str, Path]) -> dict[str, StoredTensor]:
    """Return where the tensors of a folder lie, by their keys; nothing of them is read.

    Parameters
    ----------
    files : mapping of str to Path
        As `weight_files` returns them.
    """
    found = {}
    for path in dict.fromkeys(files.values()):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_slice(key)
                found[key] = StoredTensor(path, key, tuple(tensor.get_shape()), tensor.get_dtype())
    return found


def check_stored(folder: Path, stored: Mapping[str, StoredTensor], expected: Mapping[str, Tensor]) -> None:
    """Raise unless tensors of a folder are those that a model has, unquantized.

    Parameters
    ----------
    folder : Path
        For messages.
    stored : mapping of str to StoredTensor
        By their names in the model.
    expected : mapping of str to Tensor
        `model.state_dict(keep_vars=True)`, or what of it should be there.

    Raises
    ------
    QuantrustError
        If a tensor is missing, unexpected, quantized or of another shape, or two differ that the config ties.
    """
    for name in stored.keys() & expected.keys():
        at = stored[name]
        if expected[name].is_floating_point() and at.dtype not in FLOATS:
            raise QuantrustError(
                f"{at.path}: {at.key} is stored as {at.dtype}, expected {', '.join(FLOATS)}: these weights are "
                "quantized already; get the model as it was before"
            )
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
    _check_tied(folder, stored, expected)


def check_finite(stored: Mapping[str, StoredTensor]) -> None:
    """Read every tensor of a model once, and raise when one holds NaN or infinite values.

    Parameters
    ----------
    stored : mapping of str to StoredTensor

    Raises
    ------
    QuantrustError
        Names the file and the tensor.
    """
    for at in stored.values():
        if not all(is_finite(part) for part in _parts(at)):
            raise _not_finite(at)


def is_finite(tensor: Tensor) -> bool:
    """Return whether no value of a tensor is NaN or infinite, with little memory beside its own."""
    return all(bool(some.isfinite().all()) for some in tensor.reshape(-1).split(NUMBERS_AT_ONCE))


def _not_finite(at: StoredTensor) -> QuantrustError:
    return QuantrustError(f"{at.path}: {at.key} holds NaN or infinite values; get the file again")


def _check_named(folder: Path, model: nn.Module, files: Mapping[str, Path]) -> None:
    """Raise when a config names the file of its weights, as the library lets it, and it is not the one that is read."""
    named = getattr(model.config, "transformers_weights", None)
    expected = WEIGHTS if folder / WEIGHTS in files.values() else INDEX
    if named not in (None, expected):
        raise QuantrustError(
            f"{folder}: config.json names {named!r} as its weights (transformers_weights), but the folder has "
            f"{expected}; take the key out, or put those weights there under the usual names"
        )


def _check_tied(folder: Path, stored: Mapping[str, StoredTensor], expected: Mapping[str, Tensor]) -> None:
    """Raise when tensors differ that the config says are one."""
    first: dict[int, str] = {}
    for name in expected:
        if name not in stored:
            continue
        same = first.setdefault(id(expected[name]), name)
        a, b = stored[same], stored[name]
        if name != same and not all(torch.equal(x, y) for x, y in zip(_parts(a), _parts(b), strict=True)):
            raise QuantrustError(
                f"{folder}: {a.key} (in {a.path.name}) and {b.key} (in {b.path.name}) differ, but config.json ties "
                "them (tie_word_embeddings); if both are meant, set tie_word_embeddings to false there, else take the "
                "one that is not out of the weights"
            )


def _parts(at: StoredTensor) -> Iterator[Tensor]:
    """Read a tensor part by part, in float32 if it is of floats."""
    rows = max(1, NUMBERS_AT_ONCE // math.prod(at.shape[1:])) if at.shape and all(at.shape) else 1
    for start in range(0, at.shape[0] if at.shape else 1, rows):
        # pages that were read count as memory until the mapping is closed: one mapping for each part
        with safe_open(at.path, "pt") as file:
            part = file.get_slice(at.key)[start : start + rows] if at.shape else file.get_tensor(at.key)
            part = part.float() if part.is_floating_point() else part.clone()
        yield part


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
    with blaming(f"{folder}: config.json names a part that the library does not know", "get the file again"):
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
    check_file(path)
    try:
        # the library reports every file that it cannot open as missing
        with open(path, "rb"):
            pass
    except OSError as error:
        raise QuantrustError(f"{path} cannot be read ({error.strerror}); make it readable, or get it again") from None
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
    except SafetensorError as error:
        raise QuantrustError(f"{path} is not a complete safetensors file ({error}); get it again") from None
    # messages and logs show names of tensors
    if unfit := next((key for key in keys if len(key) > LONGEST_KEY or has_control(key)), None):
        raise QuantrustError(
            f"{path} holds a tensor named {ascii(unfit)[1:-1]:.{SHOWN}}; expected names of at most {LONGEST_KEY} "
            "characters, none of them invisible: get the file again"
        )
    return keys


def _shown(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def _faults(what: str, keys: list[str]) -> str:
    noun = "key" if len(keys) == 1 else "keys"
    return (
        f"{len(keys)} {what} {noun} in the weights ({_shown(keys)}); weights and config.json must be of one model: "
        "restore the folder"
    )
