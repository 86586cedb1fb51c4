"""Checkpoints in the formats of other libraries: folders that `transformers` loads without this package.

The folder holds the checkpoint's config with a `quantization_config`, its tokenizer and processor files,
`model.safetensors` and

`export.json`
    `format`, `scheme`, `checkpoint_sha256` (of the checkpoint's weights), `requirements` (what a reader needs),
    `bytes` (of the weights files and of the unquantized weights), `notes`, and for every quantized layer how it is
    `stored`, its `relative_change` |exported - checkpoint| / |checkpoint| in the Frobenius norm, and beside it the
    `relative_error` of quantization itself.

Packed layers of other formats have no float zero-points, so those of half-quadratic quantization are rounded. That
costs about as much again as quantization did, since the checkpoint no longer knows the weights that it was made from.
Layers that a format can not hold are dequantized to bfloat16. Both are measured layer by layer, and neither is done
where an exact export is asked for.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.files import atomic_directory, read_object, write_json
from quantrust.models.companions import COMPANIONS, WEIGHTS
from quantrust.models.model_config import CONFIG, config_of_weights
from quantrust.progress import progress
from quantrust.quantization import export_compressed_tensors, export_gptq
from quantrust.quantization.checkpoint import STORED_DTYPE, load_checkpoint
from quantrust.quantization.export_layer import ExportLayer, Layout, count_layers, integer_zeros
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.packing import unpack
from quantrust.tensor_file import write_tensors

REPORT = "export.json"
PARTS = ("codes", "scale", "zero")


@dataclass(frozen=True)
class Format:
    """A format: how it holds a model, whether it can hold float zero-points at all, and what a reader needs."""

    lay_out: Callable[[list[ExportLayer], list[str], bool], Layout]
    float_zeros: bool
    requirements: tuple[str, ...]


FORMATS = {
    "compressed-tensors": Format(export_compressed_tensors.lay_out, True, ("transformers", "compressed-tensors")),
    "gptq": Format(export_gptq.lay_out, False, ("transformers", "optimum", "gptqmodel")),
}


def export_checkpoint(
    folder: str | Path, format_name: str, out_folder: str | Path, exact: bool = False
) -> dict[str, Any]:
    """Write a checkpoint in the format of another library.

    Memory: a byte for each quantized weight on top of the checkpoint's and the new file's tensors.

    Parameters
    ----------
    folder : str or Path
        A checkpoint.
    format_name : str
        A key of `FORMATS`.
    out_folder : str or Path
        New, or empty.
    exact : bool
        Whether every weight must stay what it is, at whatever size.

    Returns
    -------
    dict
        What `export.json` says.

    Raises
    ------
    QuantrustError
        If the format does not exist or can not hold the checkpoint, the checkpoint is damaged or quantizes nothing, or
        something stands at `out_folder` or it can not be written. Nothing is written then.
    """
    folder, out_folder = Path(folder), Path(out_folder).resolve()
    if format_name not in FORMATS:
        raise QuantrustError(f"format {format_name!r} does not exist; allowed: {', '.join(FORMATS)}")
    if out_folder.exists() and not (out_folder.is_dir() and not any(out_folder.iterdir())):
        raise QuantrustError(f"{out_folder} exists; expected the path of a new or empty folder")
    form = FORMATS[format_name]
    _, model, _, record = load_checkpoint(folder, STORED_DTYPE)
    rows = [row for row in record["layers"] if row["bits"] is not None]
    if not rows:
        raise QuantrustError(
            f"{folder}: scheme {record['scheme']} quantizes nothing, so there is nothing to export; the folder itself "
            "is in the Hugging Face layout"
        )
    # a tied head takes its weight from the embedding in every format
    heads = {row["layer"]: row["shares"] for row in rows if row["shares"] is not None}
    rows = [row for row in rows if row["layer"] not in heads]
    linears = [name for name, module in model.named_modules() if type(module) is nn.Linear] + list(heads)
    del model
    with (
        safe_open(folder / WEIGHTS, framework="pt") as file,
        progress(f"exporting to {format_name}", 2 * len(rows), "steps") as bar,
    ):
        layers = []
        for row in rows:
            weight = _read(file.get_tensor, row)
            # unpacked, they are held as they are; at 8 bits that takes no more room
            if not (form.float_zeros and (exact or weight.bits == 8)):
                weight = integer_zeros(weight)
            is_tied = row["layer"] in heads.values()
            layers.append(ExportLayer(row["layer"], weight, row["component"] == "embedding", is_tied))
            bar.update()
        layout = form.lay_out(layers, linears, exact)
        packed = {f"{row['layer']}.weight.{part}" for row in rows for part in PARTS}
        tensors = {name: file.get_tensor(name) for name in set(file.keys()) - packed}
        reports = []
        for row, layer in zip(rows, layers, strict=True):
            original = _read(file.get_tensor, row)
            encoded, report = _export(layer, original, layout, torch.float32 if exact else STORED_DTYPE)
            tensors |= {f"{layer.name}.{part}": tensor for part, tensor in encoded.items()}
            reports.append({**report, "relative_error": row["relative_error"]})
            bar.update()
    # what is dequantized may be wider than what never was quantized
    dtype = torch.float32 if exact and layout.dense else STORED_DTYPE
    return _write(folder, out_folder, format_name, record, layout, tensors, reports, dtype)


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
    return QuantizedWeight(unpack(codes, row["bits"], row["columns"]), scale, zero, row["bits"], row["group"])


def _export(
    layer: ExportLayer, original: QuantizedWeight, layout: Layout, dense_dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
    norm = float(values.norm())
    change = float((read - values).norm())
    return tensors, {
        "layer": layer.name,
        "stored": stored,
        "reason": reason,
        "zeros_rounded": reason is None and not torch.equal(layer.weight.zero, original.zero),
        "relative_change": change / norm if norm else change,
    }


def _write(
    folder: Path,
    out_folder: Path,
    format_name: str,
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
                "requirements": list(FORMATS[format_name].requirements),
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
            f"{out_folder}: can not be written ({reason}); expected a folder in a place with room for it"
        ) from None
    return report


def _losses(reports: list[dict[str, Any]]) -> list[str]:
    losses = []
    rounded = [row for row in reports if row["zeros_rounded"]]
    if rounded:
        worst = max(rounded, key=lambda row: row["relative_change"])
        changes = [row["relative_change"] for row in rounded]
        errors = [row["relative_error"] for row in rounded]
        losses.append(
            f"float zero-points of {count_layers(len(rounded))} are rounded to integers: their weights change by "
            f"{sum(changes) / len(changes):.2%} on average, most in {worst['layer']} "
            f"({worst['relative_change']:.2%}); quantization itself had changed them by "
            f"{sum(errors) / len(errors):.2%} on average"
        )
    rest = [row for row in reports if row["reason"] is None and not row["zeros_rounded"] and row["relative_change"]]
    if rest:
        largest = max(row["relative_change"] for row in rest)
        losses.append(
            f"scales or products in float16 change the weights of {count_layers(len(rest))} by at most {largest:.3%}"
        )
    dense = [row for row in reports if row["reason"] is not None]
    for reason, stored in dict.fromkeys((row["reason"], row["stored"]) for row in dense):
        rows = [row for row in dense if row["reason"] == reason]
        largest = max(row["relative_change"] for row in rows)
        losses.append(
            f"in {stored} ({reason}): {count_layers(len(rows))}, whose weights change by at most {largest:.2%}"
        )
    return losses
