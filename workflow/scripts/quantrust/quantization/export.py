"""Checkpoints in the formats of other libraries: folders that `transformers` loads without this package.

The folder holds the checkpoint's config with a `quantization_config`, its tokenizer and processor files,
`model.safetensors` and

`export.json`
    `format`, `scheme`, `checkpoint_sha256` (of the checkpoint's weights), `requirements` (what a reader needs),
    `bytes` (of the weights files and of the unquantized weights), `notes`, and for every quantized layer how it is
    `stored`, its `relative_change` |exported - checkpoint| / |checkpoint| in the Frobenius norm, and beside it the
    `relative_error` of quantization itself.

Packed layers have float zero-points in the format of hqq alone. In the others those of half-quadratic quantization are
rounded. That costs about as much again as quantization did, since the checkpoint no longer knows the weights that it
was made from.
Layers that a format cannot hold are dequantized to bfloat16. Both are measured layer by layer, and neither is done
where an exact export is asked for. A layer that changes notably is named, and one whose change is not that of rounded
zero-points may not change by more than a tenth unless that is asked for.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from quantrust.errors import QuantrustError
from quantrust.files import atomic_directory, read_object, write_json
from quantrust.models.companions import COMPANIONS, WEIGHTS
from quantrust.models.model_config import CONFIG, config_of_weights
from quantrust.named_modules import EXPORT_FORMATS, export_format_names, load_module
from quantrust.progress import progress
from quantrust.quantization.checkpoint import ORDER, STORED_DTYPE, load_checkpoint
from quantrust.quantization.export_layer import (
    NOTABLE_CHANGE,
    ExportLayer,
    Format,
    Layout,
    count_layers,
    integer_zeros,
    name_layers,
)
from quantrust.quantization.grid import QuantizedWeight, percent, relative_change
from quantrust.quantization.packing import unpack
from quantrust.tensor_file import write_tensors

REPORT = "export.json"
PARTS = ("codes", "scale", "zero")
LARGEST_CHANGE = 0.1
"""The share of a layer's weights up to which an export may change them by anything but rounded zero-points."""


def export_checkpoint(
    folder: str | Path, format_name: str, out_folder: str | Path, exact: bool = False, force: bool = False
) -> dict[str, Any]:
    """Write a checkpoint in the format of another library.

    Memory: a byte for each quantized weight on top of the checkpoint's and the new file's tensors.

    Parameters
    ----------
    folder : str or Path
        A checkpoint.
    format_name : str
        One of `quantrust.named_modules.export_format_names`.
    out_folder : str or Path
        New, or empty.
    exact : bool
        Whether every weight must stay what it is, at whatever size.
    force : bool
        Whether to write layers that change by more than `LARGEST_CHANGE` by anything but rounded zero-points.

    Returns
    -------
    dict
        What `export.json` says.

    Raises
    ------
    QuantrustError
        If the format does not exist or cannot hold the checkpoint, the checkpoint is damaged or quantizes nothing, a
        layer changes too much, or something stands at `out_folder` or it cannot be written. Nothing is written then.
    """
    folder, out_folder = Path(folder), Path(out_folder).resolve()
    form = load_format(format_name)
    if out_folder.exists() and not (out_folder.is_dir() and not any(out_folder.iterdir())):
        raise QuantrustError(f"{out_folder} exists; expected the path of a new or empty folder")
    _, model, _, record = load_checkpoint(folder, STORED_DTYPE)
    if form.tokens_first and model.main_input_name != "input_ids":
        raise QuantrustError(
            f"{folder}: transformers loads no {format_name} folder of a {type(model).__name__}, whose main input is no "
            "text; export it as compressed-tensors"
        )
    rows = [row for row in record["layers"] if row["bits"] is not None]
    if not rows:
        raise QuantrustError(
            f"{folder}: scheme {record['scheme']} quantizes nothing, so there is nothing to export; the folder itself "
            "is in the Hugging Face layout"
        )
    # a tied head takes its weight from the embedding in every format
    heads = {row["layer"]: row["shares"] for row in rows if row["shares"] is not None}
    rows = [row for row in rows if row["layer"] not in heads]
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)] + list(heads)
    initialized = _initialized(model, [row["layer"] for row in rows])
    del model
    with (
        safe_open(folder / WEIGHTS, framework="pt") as file,
        progress(f"exporting to {format_name}", 2 * len(rows), "steps") as bar,
    ):
        layers = []
        for row in rows:
            weight = _read(file.get_tensor, row)
            # unpacked takes no more room at 8 bits
            unpacked = form.float_zeros == "unpacked" and (exact or weight.bits == 8)
            if form.float_zeros != "packed" and not unpacked:
                weight = integer_zeros(weight)
            is_tied = row["layer"] in heads.values()
            name, is_embedding = row["layer"], row["component"] == "embedding"
            layers.append(ExportLayer(name, weight, is_embedding, is_tied, name in initialized))
            bar.update()
        layout = form.lay_out(layers, linears, exact)
        packed = {f"{row['layer']}.weight.{part}" for row in rows for part in (*PARTS, ORDER)}
        tensors = {name: file.get_tensor(name) for name in set(file.keys()) - packed}
        reports, changes = [], {}
        for row, layer in zip(rows, layers, strict=True):
            original = _read(file.get_tensor, row)
            encoded, report, changes[layer.name] = _export(
                layer, original, layout, torch.float32 if exact else STORED_DTYPE
            )
            tensors |= {f"{layer.name}.{part}": tensor for part, tensor in encoded.items()}
            reports.append({**report, "relative_error": row["relative_error"]})
            bar.update()
    _check_changes(folder, format_name, changes, force)
    # what is dequantized may be wider than what never was quantized
    dtype = torch.float32 if exact and layout.dense else STORED_DTYPE
    return _write(folder, out_folder, format_name, form.requirements, record, layout, tensors, reports, dtype)


def _initialized(model: nn.Module, layers: list[str]) -> set[str]:
    """Return the layers that transformers asks for their weight while it loads the model.

    Before it fills a model, it gives tensors that no file holds a first value. Most models leave out linears that have
    no weight then; those with a tower of SigLIP do not.
    """
    linear = nn.Linear(1, 1, device="meta")
    del linear.weight
    asks = {}
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            try:
                module._init_weights(linear)
            except AttributeError:
                asks[name] = True
            else:
                asks[name] = False

    def owner(layer: str) -> str:
        return max((name for name in asks if not name or layer.startswith(f"{name}.")), key=len)

    return {layer for layer in layers if asks[owner(layer)]}


def load_format(name: str) -> Format:
    """Return the record of a format, which is found by its name.

    Raises
    ------
    QuantrustError
        If there is no such format, or its module does not end in a record.
    """
    if name not in export_format_names():
        raise QuantrustError(f"format {name!r} does not exist; allowed: {', '.join(export_format_names())}")
    found = load_module(EXPORT_FORMATS, name.replace("-", "_"), ("FORMAT",)).FORMAT
    if not isinstance(found, Format):
        raise QuantrustError(f"format {name}: FORMAT is a {type(found).__name__}, expected the record of a format")
    return found


def describe_export(report: dict[str, Any]) -> str:
    """Return what `export.json` says in a few lines: how layers are stored, what is lost, the size."""
    layers = report["layers"]
    lines = [f"{stored}: {count_layers(count)}" for stored, count in Counter(row["stored"] for row in layers).items()]
    lines += report["notes"]
    size = report["bytes"]
    lines.append(
        f"{size['export']:,} bytes; the checkpoint has {size['checkpoint']:,}, bfloat16 weights {size['bfloat16']:,}"
    )
    lines.append(f"to load it: pip install {' '.join(report['requirements'])}")
    return "\n".join(lines)


def _read(get_tensor: Callable[[str], Tensor], row: dict[str, Any]) -> QuantizedWeight:
    codes, scale, zero = (get_tensor(f"{row['layer']}.weight.{part}") for part in PARTS)
    order = get_tensor(f"{row['layer']}.weight.{ORDER}") if row.get("ordered") else None
    return QuantizedWeight(unpack(codes, row["bits"], row["columns"]), scale, zero, row["bits"], row["group"], order)


def _export(
    layer: ExportLayer, original: QuantizedWeight, layout: Layout, dense_dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Any], float]:
    """Return a layer's tensors, what the report says of it, and its relative change but for rounded zero-points."""
    values = original.dequantize()
    if layer.name in layout.dense:
        # without the rounding of zeros that only the format's own grid needs
        exported = values.to(dense_dtype)
        tensors, stored = {"weight": exported}, str(dense_dtype).removeprefix("torch.")
        reason = layout.dense[layer.name]
        read = exported.float()
    else:
        encoded = layout.encoders[layer.name](layer)
        tensors, stored, reason = encoded.tensors, encoded.stored, None
        read = encoded.read()
    rounded = reason is None and not torch.equal(layer.weight.zero, original.zero)
    change = relative_change(read, values)
    report = {
        "layer": layer.name,
        "stored": stored,
        "reason": reason,
        "zeros_rounded": rounded,
        "relative_change": change,
    }
    return tensors, report, relative_change(read, layer.weight.dequantize()) if rounded else change


def _check_changes(folder: Path, format_name: str, changes: dict[str, float], force: bool) -> None:
    """Raise if a layer changes so much that it is no longer what was quantized."""
    damaged = [name for name, change in changes.items() if not isfinite(change)]
    if damaged:
        raise QuantrustError(
            f"{folder}: {format_name} cannot hold the weights of {name_layers(damaged)}: a reader would get infinite "
            "or NaN values; choose another format, or check the model"
        )
    changed = [name for name in sorted(changes, key=changes.get, reverse=True) if changes[name] > LARGEST_CHANGE]
    if changed and not force:
        said = name_layers([f"{name} ({percent(changes[name])})" for name in changed])
        raise QuantrustError(
            f"{folder}: as {format_name} the weights of {count_layers(len(changed))} would change by more than "
            f"{percent(LARGEST_CHANGE)}, which is not what was quantized: {said}; choose another format, or export "
            "them nevertheless with --force"
        )


def _write(
    folder: Path,
    out_folder: Path,
    format_name: str,
    requirements: tuple[str, ...],
    record: dict[str, Any],
    layout: Layout,
    tensors: dict[str, Tensor],
    reports: list[dict[str, Any]],
    dtype: torch.dtype,
) -> dict[str, Any]:
    try:
        with atomic_directory(out_folder) as partial:
            for name in COMPANIONS:
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, partial / name)
            config = config_of_weights(read_object(folder / CONFIG), dtype)
            write_json(partial / CONFIG, config | {"quantization_config": layout.quantization_config})
            write_tensors(partial / WEIGHTS, tensors)
            report = {
                "format": format_name,
                "scheme": record["scheme"],
                "checkpoint_sha256": record["sha256"],
                "requirements": list(requirements),
                "bytes": {
                    "export": (partial / WEIGHTS).stat().st_size,
                    "checkpoint": record["bytes"]["weights_file"],
                    "bfloat16": record["bytes"]["bfloat16"],
                },
                "notes": [*_losses(reports), *layout.notes],
                "layers": reports,
            }
            write_json(partial / REPORT, report)
    except OSError as error:
        reason = error.strerror or error
        raise QuantrustError(
            f"{out_folder}: cannot be written ({reason}); expected a folder in a place with room for it"
        ) from None
    return report


def _losses(reports: list[dict[str, Any]]) -> list[str]:
    losses = []
    rounded = [row for row in reports if row["zeros_rounded"]]
    if rounded:
        worst = max(rounded, key=_change)
        changes = [row["relative_change"] for row in rounded]
        # null of what others quantized
        errors = [row["relative_error"] for row in rounded if row["relative_error"] is not None]
        mean = percent(sum(errors) / len(errors), 2) if errors else ""
        losses.append(
            f"float zero-points of {count_layers(len(rounded))} are rounded to integers: their weights change by "
            f"{percent(sum(changes) / len(changes), 2)} on average, most in {worst['layer']} "
            f"({percent(worst['relative_change'], 2)})"
            + (f"; quantization itself had changed them by {mean} on average" if errors else "")
        )
    rest = [row for row in reports if row["reason"] is None and not row["zeros_rounded"] and row["relative_change"]]
    if rest:
        largest = max(row["relative_change"] for row in rest)
        losses.append(
            f"scales or products in float16 change the weights of {count_layers(len(rest))} by at most "
            f"{percent(largest, 3)}"
        )
    dense = [row for row in reports if row["reason"] is not None]
    for reason, stored in dict.fromkeys((row["reason"], row["stored"]) for row in dense):
        rows = [row for row in dense if row["reason"] == reason]
        largest = max(row["relative_change"] for row in rows)
        losses.append(
            f"in {stored} ({reason}): {count_layers(len(rows))} ({name_layers([row['layer'] for row in rows])}), whose "
            f"weights change by at most {percent(largest, 2)}"
        )
    notable = sorted((row for row in reports if row["relative_change"] > NOTABLE_CHANGE), key=_change, reverse=True)
    if notable:
        said = name_layers([f"{row['layer']} ({percent(row['relative_change'], 2)})" for row in notable])
        losses.append(
            f"more than {percent(NOTABLE_CHANGE)} on top of quantization changes in {count_layers(len(notable))}: "
            f"{said}"
        )
    return losses


def _change(report: dict[str, Any]) -> float:
    return report["relative_change"]
