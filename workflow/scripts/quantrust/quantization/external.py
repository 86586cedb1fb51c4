"""Checkpoints that others quantized: a folder with a `quantization_config` becomes a checkpoint of this project.

Codes, scales and zero-points are those of the folder; where its scales are no float16, the checkpoint stores them in
float32. All other tensors become bfloat16, as in every checkpoint. A component of which the folder has no tensor at all
(often the vision tower of a model whose language model was quantized alone) is taken from the base model. Tokenizer,
processor and config are the base model's.

The readers of the formats are the modules of `quantrust.quantization.readers`. What they cannot hold exactly is refused
by its name. A `quantization_config` beside weights that are all floats is of an earlier state of the folder; it is
ignored, and the log says so.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from quantrust.artifacts.digests import digest_of
from quantrust.disk import check_disk
from quantrust.errors import QuantrustError
from quantrust.models.components import COMPONENTS
from quantrust.models.family import Family, LayerRef
from quantrust.models.model_config import CONFIG, read_model_config
from quantrust.models.skeleton import build_skeleton
from quantrust.models.tied import tied_layers
from quantrust.models.weights import (
    StoredTensor,
    check_stored,
    stored_tensors,
    tensor_names,
    tensors_in,
    weight_files,
)
from quantrust.named_modules import READERS, load_module, module_names
from quantrust.progress import progress
from quantrust.quantization.checkpoint import GRID_DTYPES, open_checkpoint, plan_layout
from quantrust.quantization.external_config import external_format
from quantrust.quantization.grid import storage_dtype
from quantrust.quantization.layer_plan import LAYER_PLAN_SCHEMA, describe_layer_plan, layer_row, thirds_of
from quantrust.quantization.linear import PackedWeight
from quantrust.quantization.reader import Grid, Reader, StoredLayer
from quantrust.quantization.scheme import EXTERNAL

OF_NO_MATTER = frozenset(
    {
        *("_name_or_path", "architectures", "transformers_version", "model_type", "use_cache"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
        *("id2label", "label2id", "dtype", "torch_dtype", "attention_dropout", "hidden_dropout", "initializer_range"),
    }
)
"""Keys of configs that two folders of one model may differ in."""
FLAWED = (".gguf", ".bin", ".pt", ".pth")
"""Files of weights that are not read, by their ending."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExternalFolder:
    """What was found in a folder that others quantized.

    Attributes
    ----------
    method : str or None
        Its `quant_method`; None where its weights are floats.
    layers : dict of str to (StoredLayer, Grid)
        The quantized ones, by their names in the model.
    tensors : dict of str to StoredTensor
        All others of the folder, by their names in the model.
    from_base : tuple of str
        The components that are the base model's.
    names_from_base : frozenset of str
        Their tensors.
    plan : polars.DataFrame
        The layer plan.
    """

    method: str | None
    layers: dict[str, tuple[StoredLayer, Grid]]
    tensors: dict[str, StoredTensor]
    from_base: tuple[str, ...]
    names_from_base: frozenset[str]
    plan: pl.DataFrame


def import_checkpoint(model_folder: str | Path, source: str | Path, name: str, out_folder: str | Path) -> None:
    """Write a checkpoint of a folder that others quantized.

    Memory: some copies of the largest layer.

    Parameters
    ----------
    model_folder : str or Path
        The base model, unquantized, as a study has prepared it.
    source : str or Path
        The folder: a config with `quantization_config`, and safetensors.
    name : str
        Of the scheme.
    out_folder : str or Path

    Raises
    ------
    QuantrustError
        If the folder is of another model, holds what a checkpoint cannot hold, or is damaged.
    """
    source = Path(source)
    family, model = build_skeleton(model_folder)
    found = open_external(source, model_folder, family, model)
    tensors = found.tensors
    _log.info("layer plan of %s:\n%s", name, describe_layer_plan(found.plan))
    if found.from_base:
        _log.info("%s: has no tensor of %s, which is the base model's", source, " and ".join(found.from_base))
        of_base = _by_name(stored_tensors(model_folder, model), model.state_dict(keep_vars=True))
        tensors = tensors | {tensor: of_base[tensor] for tensor in found.names_from_base}
    layout = plan_layout(family, model, found.plan)
    check_disk(out_folder, layout.sizes(found.plan)["weights_file"], "free some of it")
    read, config = reader_of(source) if found.layers else (None, {})
    paths = {at.path for stored, _ in found.layers.values() for at in stored.parts.values()}
    paths |= {at.path for at in found.tensors.values()}
    record: dict[str, Any] = {
        "scheme": name,
        "settings": {
            "method": found.method,
            EXTERNAL: {path.name: digest_of(path) for path in sorted([source / CONFIG, *paths])},
        },
        "calibration": None,
        "modality_ratios": [],
        "scales": [],
    }
    with (
        open_checkpoint(out_folder, model_folder, layout) as writer,
        progress(f"reading {name}", len(found.layers), "layers") as bar,
        torch.no_grad(),
    ):
        for layer, (stored, grid) in found.layers.items():
            writer.write_packed(layer, PackedWeight.from_quantized(read.read(stored, config, grid)))
            bar.update()
        for tensor in layout.tensors.keys() - layout.packed:
            writer.write(tensor, tensors[tensor].read())
        plan = found.plan.with_columns(relative_error=pl.lit(None, pl.Float64))
        writer.finish(plan, record)


def open_external(source: str | Path, model_folder: str | Path, family: Family, model: nn.Module) -> ExternalFolder:
    """Look at a folder that others quantized: of its tensors only the small ones that say how others are laid out.

    Parameters
    ----------
    source : str or Path
    model_folder : str or Path
        Of the base model, without its weights.
    family : Family
    model : torch.nn.Module
        The base model, unquantized; its weights may be on the meta device.

    Raises
    ------
    QuantrustError
        As `import_checkpoint` does.
    """
    source = Path(source)
    if not (source / CONFIG).is_file():
        raise QuantrustError(f"{source} holds no {CONFIG}; expected a quantized model in the Hugging Face layout")
    reader, config = reader_of(source)
    _check_same_model(source, Path(model_folder), family)
    files = _files(source)
    at = tensors_in(files)
    parts: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in at.items():
        stem, _, leaf = key.rpartition(".")
        if leaf in reader.parts and f"{stem}.{reader.marker}" in at:
            parts.setdefault(stem, {})[leaf] = tensor
    _refuse_unread(source, reader, at, parts)
    # as the library names the weight that is quantized
    keys = [key for key in at if key.rpartition(".")[0] not in parts or key.rpartition(".")[2] not in reader.parts]
    names = tensor_names(source, model, [*keys, *(f"{stem}.weight" for stem in parts)])
    layers = {}
    references = {layer.name: layer for layer in family.layers(model)}
    for stem, of_layer in parts.items():
        name = names.get(f"{stem}.weight", stem).removesuffix(".weight")
        layers[name] = _layer(source, model, references.get(name), stem, name, of_layer, reader, config)
    expected = model.state_dict(keep_vars=True)
    plain = {name: tensor for name, tensor in expected.items() if name.removesuffix(".weight") not in layers}
    _check_tied(source, model, family, layers)
    stored = {names[key]: at[key] for key in keys if key in names}
    if not (stored or layers):
        raise QuantrustError(f"{source} holds no tensor of the model; get the folder again")
    lacking = _components_lacking(family, model, {*stored, *(f"{name}.weight" for name in layers)})
    inside = tuple(f"{prefix}." for prefix in lacking.values())
    there = {id(plain[name]) for name in stored if name in plain}
    from_base = frozenset(name for name in plain if name.startswith(inside) and id(plain[name]) not in there)
    plain = {name: tensor for name, tensor in plain.items() if name not in from_base}
    check_stored(source, stored, plain)
    if not layers:
        _log.warning("%s: quantization_config is ignored, because all weights are floats", source / CONFIG)
    tensors, plan = _by_name(stored, plain), _plan(family, model, layers, reader)
    return ExternalFolder(reader.method if layers else None, layers, tensors, tuple(lacking), from_base, plan)


def reader_of(source: Path) -> tuple[Reader, Mapping[str, Any]]:
    """Return what reads a folder, and the folder's `quantization_config`.

    Raises
    ------
    QuantrustError
        If the config has none, or it says something that cannot be held.
    """
    found = external_format(source)
    reader = load_module(READERS, found.reader, ("READER",)).READER
    try:
        reader.check(found.config)
    except QuantrustError as error:
        raise QuantrustError(f"{found.where} ({reader.method}): {error}") from None
    return reader, found.config


def reader_modules() -> list[str]:
    """Return the names of the modules that read what others quantized, with dots; which one is seen in a folder."""
    return [f"{READERS}.{name}" for name in module_names(READERS)]


def _files(source: Path) -> dict[str, Path]:
    """Return the files of weights, or say of others by name that they are not read."""
    try:
        return weight_files(source)
    except QuantrustError as error:
        others = sorted(path.name for path in source.iterdir() if path.suffix in FLAWED)
        if others and not any(source.glob("*.safetensors")):
            raise QuantrustError(
                f"{source}: {others[0]} is not read; only safetensors are, no GGUF and nothing that is pickled"
            ) from None
        raise error


def _refuse_unread(
    source: Path, reader: Reader, at: Mapping[str, StoredTensor], parts: Mapping[str, Mapping[str, StoredTensor]]
) -> None:
    """Raise for what stands beside quantized weights and would change what they compute."""
    for key in at:
        stem, _, leaf = key.rpartition(".")
        if stem in parts and leaf not in (*reader.parts, "bias"):
            raise QuantrustError(
                f"{at[key].path}: {key} stands beside a weight that {reader.method} quantized, and is not read; "
                "quantized activations, scales of inputs and the like cannot be held"
            )


def _layer(
    source: Path,
    model: nn.Module,
    reference: LayerRef | None,
    stem: str,
    name: str,
    parts: Mapping[str, StoredTensor],
    reader: Reader,
    config: Mapping[str, Any],
) -> tuple[StoredLayer, Grid]:
    if reference is None or reference.kind != "linear":
        raise QuantrustError(
            f"{source}: {stem} is quantized, but is no linear layer of this model; expected the folder of the same "
            "model, in which linear layers alone are quantized"
        )
    rows, columns = model.get_submodule(name).weight.shape
    stored = StoredLayer(stem, name, rows, columns, parts)
    return stored, reader.grid(stored, config)


def _check_tied(source: Path, model: nn.Module, family: Family, layers: Mapping[str, Any]) -> None:
    head, embedding = tied_layers(model, family.layers(model))
    if head in layers:
        raise QuantrustError(
            f"{source}: {head} is quantized, but the model's config ties it to {embedding}, which is not; such a model "
            "cannot be held"
        )


def _by_name(stored: Mapping[str, StoredTensor], expected: Mapping[str, torch.Tensor]) -> dict[str, StoredTensor]:
    """Return where each tensor of a model lies: tied ones may be stored under one of their names."""
    by_tensor = {id(expected[name]): at for name, at in stored.items()}
    return {name: by_tensor[id(tensor)] for name, tensor in expected.items()}


def _components_lacking(family: Family, model: nn.Module, names: set[str]) -> dict[str, str]:
    """Return the components of which a folder has no tensor, and what the names of all of their layers begin with."""
    layers = family.layers(model)
    head, _ = tied_layers(model, layers)
    found = {}
    for component in COMPONENTS:
        paths = [layer.name.split(".") for layer in layers if layer.component == component and layer.name != head]
        shared = takewhile(lambda words: len(set(words)) == 1, zip(*paths, strict=False))
        prefix = ".".join(words[0] for words in shared)
        if prefix and not any(name.startswith(f"{prefix}.") for name in names):
            found[component] = prefix
    return found


def _plan(
    family: Family, model: nn.Module, layers: Mapping[str, tuple[StoredLayer, Grid]], reader: Reader
) -> pl.DataFrame:
    names = {dtype: name for name, dtype in GRID_DTYPES.items()}
    references = family.layers(model)
    thirds = thirds_of(references)
    rows = []
    for layer in references:
        taken = layer.name in layers
        reason = None if taken else "not quantized in the folder"
        row = layer_row(model, layer, thirds[layer.name], EXTERNAL if taken else None, reason)
        if taken:
            _, grid = layers[layer.name]
            row |= {
                "bits": grid.bits,
                "group": grid.group_size,
                "grid_dtype": None if grid.dtype == storage_dtype(grid.bits) else names[grid.dtype],
                "ordered": None if grid.order is None else True,
                "method": reader.method,
            }
        rows.append(row)
    return pl.DataFrame(rows, schema=LAYER_PLAN_SCHEMA)


def _check_same_model(source: Path, model_folder: Path, family: Family) -> None:
    """Raise if the configs of two folders describe different models."""
    config_class = family.model_class.config_class
    found, expected = (
        _described(read_model_config(folder, config_class).to_dict()) for folder in (source, model_folder)
    )
    differing = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if differing:
        shown = ", ".join(
            f"{key} ({found.get(key)!r:.40}, base model {expected.get(key)!r:.40})" for key in differing[:3]
        )
        raise QuantrustError(
            f"{source / CONFIG} describes another model than the one that it is a variant of: {shown}"
            f"{f' and {len(differing) - 3} more' if len(differing) > 3 else ''}; expected the same model, quantized"
        )


def _described(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return what a config says of a model, inner keys with dots."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key in OF_NO_MATTER or str(key).startswith("_"):
            continue
        if isinstance(value, Mapping):
            found |= _described(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
