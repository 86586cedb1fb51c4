"""Checkpoints: a model under a scheme as one self-contained folder.

The folder holds the model's own tokenizer, processor and chat template files, its config with the dtype of the weights
here, without an earlier quantization and without blocks that never run, and

`model.safetensors`
    Tensors by the dotted names of `transformers` modules. A quantized layer `L` has `L.weight.codes` (uint8, rows by
    ceil(columns * bits / 8), packed as `quantrust.quantization.packing` says), `L.weight.scale` and `L.weight.zero`
    (rows by groups; float16, or float32 at 8 bits or where the layer plan says so), `L.weight.order` (int32, the input
    channel of each column) if the columns have an order of their own, and `L.bias` if the layer has one. Every other
    floating-point tensor is bfloat16 under the name it has in the unquantized model, or float32 where the library keeps
    it so (`quantrust.models.family.Family.float32`). A head that is tied to the embedding is not stored.
`quantization.json`
    `format` (of this folder, 3), `scheme` and `settings`, `sha256` of `model.safetensors`, `bytes`, `calibration`,
    `modality_ratios`, `scales` (what a scale search chose) and `layers` (the layer plan, with each layer's
    `relative_error`). It is |dequantized - weight| / |weight| in the Frobenius norm, after channel scaling where there
    is any, and null in a checkpoint that others quantized. An entry of `scales` has the `exponent` of a group with its
    `error`, that of the plain grid (`unscaled_error`), and the exponent that came next (`runner_up`) with its own
    (`runner_up_error`): where the two errors are nearly equal, the rounding of stored scales may have decided. Both are
    null where no other exponent had a finite error.
`quantrust-digests.json`
    Size and digest of every file, as `quantrust.artifacts.folder_record` says.

`bytes` counts

`weights_file`
    The size of `model.safetensors`.
`quantized`, `unquantized`
    The tensors in it: codes, scales and zeros, and all others.
`resident`
    The tensors of the model as `load_checkpoint` holds them in bfloat16 with the reference kernel: those, and buffers
    that no checkpoint stores.
`resident_packed`
    The same with packed kernels on a CPU with AVX-512, which hold 2- and 3-bit codes in 4 bits and those of 5 and 6 in
    8, step and offset in bfloat16, and pad rows and columns. Embeddings alone stay as they are, and so does what is
    computed in float32.
`bfloat16`, `resident_bfloat16`
    What all weights take in the file and in memory if none is quantized: two bytes each, four where they are float32.
`quantized_bits_per_weight`
    `quantized` by the number of weights that are quantized; null where none is.
`model_bits_per_weight`
    `weights_file` by the number of all weights.

The unquantized scheme has the same layout, with no quantized layer.
"""

import math
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from quantrust.artifacts.digests import digest_of
from quantrust.artifacts.folder_record import check_folder
from quantrust.artifacts.folders import artifact_folder
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError
from quantrust.files import read_object, write_json
from quantrust.models.companions import COMPANIONS, WEIGHTS
from quantrust.models.device import check_device
from quantrust.models.family import Family
from quantrust.models.loading import family_of
from quantrust.models.model_config import CONFIG, config_of_running_part, config_of_weights
from quantrust.models.skeleton import build_skeleton
from quantrust.models.tied import tied_layers
from quantrust.quantization.kernels.int4_grid import KERNEL_DTYPE
from quantrust.quantization.kernels.packed import KERNELS, holders_of_weights, packed_bytes, use_packed_kernel
from quantrust.quantization.linear import PackedWeight, replace_layer
from quantrust.quantization.scheme import BITS
from quantrust.tensor_file import TensorWriter, file_bytes, open_tensor_file

FORMAT = 3
RECORD = "quantization.json"
# What loading needs of a layer plan.
_LAYER_SCHEMA = pl.Schema(
    {
        "layer": pl.String,
        "rows": pl.Int64,
        "columns": pl.Int64,
        "bits": pl.Int32,
        "group": pl.Int64,
        "shares": pl.String,
    }
)
# What it may say beside that of layers that others quantized; records of before there were such do not.
_OF_OTHERS = pl.Schema({"grid_dtype": pl.String, "ordered": pl.Boolean})
STORED_DTYPE = torch.bfloat16
ORDER = "order"
"""What the order of a weight's columns is called beside its codes."""
GRID_DTYPES = {"float16": torch.float16, "float32": torch.float32}
"""What a layer plan may say of the dtype of scales and zeros."""


def save_checkpoint(
    folder: str | Path, *, model_folder: str | Path, model: nn.Module, layers: pl.DataFrame, record: dict[str, Any]
) -> None:
    """Write a checkpoint folder; it is complete or absent.

    Parameters
    ----------
    folder : str or Path
        A folder that stands there is replaced.
    model_folder : str or Path
        Where config, tokenizer and processor files are copied from.
    model : torch.nn.Module
        With `QuantizedLinear` and `QuantizedEmbedding` in the places that `layers` gives bits to.
    layers : polars.DataFrame
        The layer plan; more columns are kept.
    record : dict
        What else goes into `quantization.json`: `scheme`, `settings`, `calibration`, `scales`, `modality_ratios`.
    """
    family = family_of(model_folder)
    tensors, packed = _stored_tensors(family, model)
    described = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    layout = CheckpointLayout(family, described, packed, _bytes_not_stored(model))
    with open_checkpoint(folder, model_folder, layout) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.finish(layers, record)


@dataclass(frozen=True)
class CheckpointLayout:
    """What a checkpoint will hold.

    Attributes
    ----------
    family : Family
    tensors : dict of str to (tuple of int, torch.dtype)
        Shape and dtype of each tensor in `model.safetensors`.
    packed : set of str
        Those of quantized weights.
    not_stored : int
        Bytes of the buffers that it leaves out.
    """

    family: Family
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]
    packed: set[str]
    not_stored: int

    def sizes(self, layers: pl.DataFrame) -> dict[str, int | float | None]:
        """Return a checkpoint's `bytes` under a layer plan."""
        return _sizes(self, layers)


class CheckpointWriter:
    """Writes a checkpoint folder tensor by tensor; see `open_checkpoint`.

    Attributes
    ----------
    layout : CheckpointLayout
    scratch : Path
        A folder for whatever is needed in between, which is not part of the checkpoint; whoever writes there makes it.
    """

    def __init__(self, folder: Path, layout: CheckpointLayout, tensors: TensorWriter) -> None:
        self.folder, self.layout, self._tensors = folder, layout, tensors
        self.scratch = folder / "scratch"

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor, in the dtype in which it is stored; a name twice or of another shape is a ValueError."""
        self._tensors.write(name, tensor.detach().to(self.layout.tensors[name][1]))

    def write_packed(self, layer: str, weight: PackedWeight) -> None:
        """Write codes, scale and zero of a quantized layer."""
        for part, tensor in weight.named_buffers():
            self.write(f"{layer}.weight.{part}", tensor)

    def lacking(self, part: str) -> list[str]:
        """Return the tensors below a module that are not written yet."""
        return [name for name in self.layout.tensors.keys() - self._tensors.written if name.startswith(f"{part}.")]

    def finish(self, layers: pl.DataFrame, record: dict[str, Any]) -> None:
        """Write the record once all tensors are written; the arguments are those of `save_checkpoint`."""
        if self.scratch.exists():
            shutil.rmtree(self.scratch)
        self._tensors.finish()
        content = {
            "format": FORMAT,
            "scheme": record["scheme"],
            "settings": record["settings"],
            "sha256": digest_of(self.folder / WEIGHTS),
            "bytes": self.layout.sizes(layers),
            "calibration": record["calibration"],
            "modality_ratios": record["modality_ratios"],
            "scales": record["scales"],
            "layers": layers.to_dicts(),
        }
        write_json(self.folder / RECORD, content)


@contextmanager
def open_checkpoint(
    folder: str | Path, model_folder: str | Path, layout: CheckpointLayout
) -> Iterator[CheckpointWriter]:
    """Yield a writer of a checkpoint folder; it is complete or absent.

    Parameters
    ----------
    folder : str or Path
        A folder that stands there is replaced.
    model_folder : str or Path
        Where config, tokenizer and processor files are copied from.
    layout : CheckpointLayout

    Yields
    ------
    CheckpointWriter
        Its `finish` comes last.
    """
    with artifact_folder(folder) as partial:
        for name in COMPANIONS:
            if (source := Path(model_folder) / name).is_file():
                shutil.copyfile(source, partial / name)
        config = read_object(partial / CONFIG)
        # what is true already keeps its bytes
        of_weights = config_of_running_part(partial, family_of(model_folder), config_of_weights(config, STORED_DTYPE))
        if of_weights != config:
            write_json(partial / CONFIG, of_weights)
        with open_tensor_file(partial / WEIGHTS, layout.tensors) as tensors:
            yield CheckpointWriter(partial, layout, tensors)


def plan_layout(family: Family, model: nn.Module, plan: pl.DataFrame) -> CheckpointLayout:
    """Return what the checkpoint that a layer plan leads to will hold, from shapes alone.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Unquantized; its layers are back in their places in the end. Its weights may be on the meta device.
    plan : polars.DataFrame
        As `build_layer_plan` returns it.
    """
    not_stored = _bytes_not_stored(model)
    layers = {name: model.get_submodule(name) for name in plan.drop_nulls("bits")["layer"]}
    try:
        with torch.device("meta"):
            tied_head, _ = _restore_layers(family, model, plan, STORED_DTYPE)
        return CheckpointLayout(family, _expected_tensors(family, model, tied_head), _packed_names(model), not_stored)
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)


def planned_bytes(family: Family, model: nn.Module, plan: pl.DataFrame) -> dict[str, int | float | None]:
    """Return the sizes of the checkpoint that a layer plan leads to, from shapes alone.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Unquantized; its layers are back in their places in the end. Its weights may be on the meta device.
    plan : polars.DataFrame
        As `build_layer_plan` returns it.

    Returns
    -------
    dict
        A checkpoint's `bytes`.
    """
    return plan_layout(family, model, plan).sizes(plan)


def load_checkpoint(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    kernel: str = "reference",
    device: str = "cpu",
    attention: str = "sdpa",
) -> tuple[Family, nn.Module, Any, dict[str, Any]]:
    """Load a checkpoint folder.

    Tensors are read one at a time and put where the model computes, so that the memory of the process never holds the
    file beside the model, and no more than a layer of a model on a GPU. In bfloat16 the model takes about what the file
    does; in float32 what is not quantized takes twice its bytes in the file.

    Parameters
    ----------
    folder : str or Path
        As `save_checkpoint` writes it.
    dtype : torch.dtype
        The dtype that the model computes in; codes, scales and zeros keep theirs.
    kernel : {"reference", "packed"}
        How quantized linears multiply: by dequantizing their weight in float32, or with the kernels of
        `quantrust.quantization.kernels.packed`, which need bfloat16. What the library keeps in float32 is dequantized.
    device : {"cpu", "cuda"}
    attention : {"eager", "sdpa", "flash_attention_2"}
        How vision tower and language model attend.

    Returns
    -------
    family : Family
    model : torch.nn.Module
        In evaluation mode, on the device, without gradients.
    processor : object
    record : dict
        The content of `quantization.json`.

    Raises
    ------
    QuantrustError
        If a file is missing or damaged, a tensor is missing, unexpected, or of another shape or dtype than the record
        calls for, the kernel is unknown or does not compute in the dtype, or there is no such device or attention here.
    """
    check_kernel(kernel, dtype)
    check_device(device, attention, dtype)
    folder = Path(folder)
    record = read_record(folder)
    check_folder(folder)
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise QuantrustError(f"{path} is not a safetensors file ({error}); quantize the model again") from error
    family, model = build_skeleton(folder, attention)
    layers = _quantized_layers(folder / RECORD, record, family, model)
    tied_head, tied_embedding = _restore_layers(family, model, layers, dtype)
    expected = _expected_tensors(family, model, tied_head)
    _check_tensors(path, tensors, expected)
    in_kernel = holders_of_weights(model, family.keeps_float32) if kernel == "packed" else {}
    _fill(model, path, tensors, dtype, in_kernel, device)
    if tied_head is not None and isinstance(model.get_submodule(tied_head), nn.Linear):
        model.get_submodule(tied_head).weight = model.get_submodule(tied_embedding).weight
    # What no checkpoint stores, such as rotary frequencies, was computed on the CPU.
    model = model.to(device).requires_grad_(False).eval()
    return family, model, family.load_processor(str(folder)), record


def check_kernel(kernel: str, dtype: torch.dtype) -> None:
    """Raise a QuantrustError if there is no such kernel or it does not compute in the dtype."""
    if kernel not in KERNELS:
        raise QuantrustError(f"kernel {kernel!r} is unknown; allowed: {', '.join(KERNELS)}")
    if kernel == "packed" and dtype != KERNEL_DTYPE:
        raise QuantrustError(
            f"the packed kernels compute in {KERNEL_DTYPE}, not in {dtype}; ask for kernel reference or that dtype"
        )


def read_record(folder: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint's `quantization.json`.

    Raises
    ------
    QuantrustError
        If it is missing, is not what was written, or is of a format that this version does not read.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise QuantrustError(f"{path} is missing: expected a checkpoint folder; quantize a model into it first")
    record = read_object(path)
    if record.get("format") != FORMAT:
        raise QuantrustError(
            f"{path}: format {record.get('format')!r}, this version reads {FORMAT}; quantize the model again"
        )
    return record


def _quantized_layers(path: Path, record: dict[str, Any], family: Family, model: nn.Module) -> pl.DataFrame:
    """Return the quantized layers of a record, held against the model: a bundle may be anybody's.

    Parameters
    ----------
    path : Path
        Of the record, for messages.
    record : dict
        Its content.
    family : Family
    model : torch.nn.Module
        Unquantized.

    Raises
    ------
    QuantrustError
        If the record says of a layer what cannot be, or lacks the digest of the weights.
    """
    if not isinstance(record.get("sha256"), str):
        raise QuantrustError(f"{path}: lacks the sha256 of {WEIGHTS}; quantize the model again")
    listed = record.get("layers")
    if not isinstance(listed, list):
        raise QuantrustError(f"{path}: expected a list under layers; quantize the model again")
    references = family.layers(model)
    shapes = {
        layer.name: tuple(model.get_submodule(layer.name).weight.shape)
        for layer in references
        if layer.kind == "linear" or layer.component == "embedding"
    }
    tied = tied_layers(model, references)
    found: dict[str, dict[str, Any]] = {}
    for number, layer in enumerate(listed):
        fault = _fault_of_layer(layer, shapes, tied, found)
        if fault is not None:
            raise QuantrustError(f"{path}: layers[{number}] {fault}; quantize the model again")
        if layer["bits"] is not None:
            found[layer["layer"]] = {name: layer.get(name) for name in (*_LAYER_SCHEMA, *_OF_OTHERS)}
    for name, layer in found.items():
        if layer["shares"] is not None and layer["shares"] not in found:
            raise QuantrustError(f"{path}: {name} shares codes that no layer has; quantize the model again")
    return pl.DataFrame(list(found.values()), schema=pl.Schema({**_LAYER_SCHEMA, **_OF_OTHERS}))


def _fault_of_layer(
    layer: Any, shapes: dict[str, tuple[int, ...]], tied: tuple[str | None, str | None], before: Collection[str]
) -> str | None:
    """Return what is wrong with what a record says of a layer, None if nothing is."""
    if not isinstance(layer, dict) or not _LAYER_SCHEMA.keys() <= layer.keys():
        return f"is {shown(layer)}; expected an object with {', '.join(_LAYER_SCHEMA)}"
    name, bits, group, shares = (layer[key] for key in ("layer", "bits", "group", "shares"))
    if bits is None:
        return None
    if not isinstance(name, str) or name not in shapes or name in before:
        return f"is {shown(name)}, which is no layer of the model that can be quantized, or is there twice"
    numbers = [layer["rows"], layer["columns"], bits, *([] if shares is not None else [group])]
    if not all(type(number) is int for number in numbers) or (layer["rows"], layer["columns"]) != shapes[name]:
        return f"({name}) is {shown(numbers)}; expected rows, columns, bits and group of a layer of {shapes[name]}"
    if bits not in BITS or (shares is None and not (0 < group <= shapes[name][1] and shapes[name][1] % group == 0)):
        return f"({name}) has {shown(bits)} bits in groups of {shown(group)}, which do not fit {shapes[name]}"
    grid_dtype, ordered = (layer.get(key) for key in _OF_OTHERS)
    if grid_dtype not in (None, *GRID_DTYPES) or not isinstance(ordered, bool | None):
        return f"({name}) has the grid_dtype {shown(grid_dtype)} and is ordered: {shown(ordered)}, which cannot be"
    if shares is not None and (name, shares) != tied:
        return f"({name}) shares the codes of {shown(shares)}, to which it is not tied"
    return None


def stored_dtype(family: Family, name: str) -> torch.dtype:
    """Return the dtype in which a floating-point tensor that is not quantized is stored."""
    return torch.float32 if family.keeps_float32(name) else STORED_DTYPE


def _sizes(layout: CheckpointLayout, layers: pl.DataFrame) -> dict[str, int | float | None]:
    """Return the entries of `bytes` that follow from the stored tensors' shapes and dtypes."""
    family, packed, not_stored = layout.family, layout.packed, layout.not_stored
    counts = {name: math.prod(shape) for name, (shape, _) in layout.tensors.items()}
    stored = {name: counts[name] * dtype.itemsize for name, (_, dtype) in layout.tensors.items()}
    quantized = sum(size for name, size in stored.items() if name in packed)
    unquantized = sum(size for name, size in stored.items() if name not in packed)
    chosen = layers.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null())
    replaced = dict(chosen.select("layer", pl.col("rows") * pl.col("columns")).iter_rows())
    quantized_weights = sum(replaced.values())
    all_weights = replaced | {name: count for name, count in counts.items() if name not in packed}
    weights = sum(all_weights.values())
    if_unquantized = sum(count * stored_dtype(family, name).itemsize for name, count in all_weights.items())
    weights_file = file_bytes(layout.tensors)
    return {
        "weights_file": weights_file,
        "quantized": quantized,
        "unquantized": unquantized,
        "resident": quantized + unquantized + not_stored,
        "resident_packed": _packed_bytes(family, layers) + unquantized + not_stored,
        "bfloat16": if_unquantized,
        "resident_bfloat16": if_unquantized + not_stored,
        "quantized_bits_per_weight": 8 * quantized / quantized_weights if quantized_weights else None,
        "model_bits_per_weight": 8 * weights_file / weights,
    }


def _packed_bytes(family: Family, layers: pl.DataFrame) -> int:
    """Return what the quantized weights of a layer plan take with packed kernels."""
    shared = set(layers["shares"])
    total = 0
    for layer in layers.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null()).iter_rows(named=True):
        with torch.device("meta"):
            weight = _empty_weight(layer)
        lookup = layer["component"] == "embedding" and layer["layer"] not in shared
        total += packed_bytes(weight, as_it_is=lookup or family.keeps_float32(layer["layer"]))
    return total


def _bytes_not_stored(model: nn.Module) -> int:
    """Return the bytes of the buffers that a checkpoint leaves out, such as rotary frequencies."""
    stored = model.state_dict().keys()
    return sum(buffer.nbytes for name, buffer in model.named_buffers() if name not in stored)


def _fill(
    model: nn.Module,
    path: Path,
    tensors: dict[str, Tensor],
    dtype: torch.dtype,
    in_kernel: dict[PackedWeight, list[nn.Module]],
    device: str,
) -> None:
    """Copy tensors of a file into a model, module by module, the largest first; `tensors` maps the file and is emptied.

    Packed kernels get each weight of `in_kernel`, which is emptied as well, as soon as it is read, so that no more than
    one is held twice.
    """
    modules: dict[str, list[str]] = {}
    sizes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        parent, _, leaf = name.rpartition(".")
        modules.setdefault(parent, []).append(leaf)
        sizes[parent] += tensor.nbytes
    tensors.clear()
    for parent, _ in sizes.most_common():
        module = model.get_submodule(parent)
        for leaf in modules[parent]:
            # pages that were read count as memory until the mapping is closed: one mapping for each tensor
            with safe_open(path, "pt") as file:
                tensor = file.get_tensor(f"{parent}.{leaf}" if parent else leaf)
            if leaf == ORDER and tensor.dtype == torch.int32 and not _is_order(tensor):
                raise QuantrustError(f"{path}: {parent}.{leaf} is no order of input channels; quantize the model again")
            # bfloat16 tells an unquantized tensor from scales, which never have it, and from what stays in float32
            tensor = tensor.to(device, dtype if tensor.dtype == STORED_DTYPE else tensor.dtype, copy=True)
            module.load_state_dict({leaf: tensor}, strict=False, assign=True)
        if module in in_kernel:
            use_packed_kernel(module, in_kernel.pop(module))


def _packed_names(model: nn.Module) -> set[str]:
    """Return the names of the tensors of every quantized layer's weight."""
    return {
        f"{name}.{part}"
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, PackedWeight)
        for part, _ in module.named_buffers()
    }


def _is_order(order: Tensor) -> bool:
    """Return whether every number from 0 on is there once."""
    return torch.equal(order.sort().values, torch.arange(len(order), dtype=order.dtype))


def _empty_weight(layer: dict[str, Any]) -> PackedWeight:
    """Return the weight of a quantized layer of a layer plan, unfilled."""
    # checkpoints of before there were these two do not say them
    grid_dtype, ordered = layer.get("grid_dtype"), bool(layer.get("ordered"))
    dtype = None if grid_dtype is None else GRID_DTYPES[grid_dtype]
    return PackedWeight(layer["rows"], layer["columns"], layer["bits"], layer["group"], dtype, ordered)


def _stored_tensors(family: Family, model: nn.Module) -> tuple[dict[str, Tensor], set[str]]:
    """Return the tensors to store, and the names of those that belong to quantized weights."""
    packed = _packed_names(model)
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        # a tied head comes after the embedding and holds the very same tensors
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        plain = tensor.is_floating_point() and name not in packed
        tensors[name] = tensor.detach().to(stored_dtype(family, name) if plain else tensor.dtype).contiguous()
    return tensors, packed & tensors.keys()


def _restore_layers(
    family: Family, model: nn.Module, layers: pl.DataFrame, dtype: torch.dtype
) -> tuple[str | None, str | None]:
    """Put empty quantized layers into a skeleton; return the tied head and embedding."""
    tied_head, tied_embedding = tied_layers(model, family.layers(model))
    for layer in layers.filter(pl.col("bits").is_not_null()).sort("shares", nulls_last=False).iter_rows(named=True):
        shared = layer["shares"]
        weight = _empty_weight(layer) if shared is None else model.get_submodule(shared).weight
        replace_layer(model, layer["layer"], weight, dtype, family.embedding_factor)
    return tied_head, tied_embedding


def _expected_tensors(
    family: Family, model: nn.Module, tied_head: str | None
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    packed = _packed_names(model)
    expected = {}
    for name, tensor in model.state_dict().items():
        if tied_head is not None and name.startswith(f"{tied_head}.weight"):
            continue
        plain = tensor.is_floating_point() and name not in packed
        expected[name] = (tuple(tensor.shape), stored_dtype(family, name) if plain else tensor.dtype)
    return expected


def _check_tensors(
    path: Path, tensors: dict[str, Tensor], expected: dict[str, tuple[tuple[int, ...], torch.dtype]]
) -> None:
    for what, names in (
        ("missing", expected.keys() - tensors.keys()),
        ("unexpected", tensors.keys() - expected.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise QuantrustError(f"{path}: {len(names)} {what} tensors ({shown}); quantize the model again")
    for name, tensor in tensors.items():
        found = (tuple(tensor.shape), tensor.dtype)
        if found != expected[name]:
            raise QuantrustError(
                f"{path}: {name} has shape {found[0]} and dtype {found[1]}, expected {expected[name][0]} and "
                f"{expected[name][1]}; quantize the model again"
            )
