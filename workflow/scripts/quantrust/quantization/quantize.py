"""From a model folder and a scheme to a checkpoint folder, one part of the model at a time.

Weights are read from disk when their part (a block, the embedding, the head) is worked on, and are written and let go
once it is done. The walk of the scheme's method (`quantrust.quantization.walks`) says in which order the parts are run
and quantized. Calibration goes block by block over all samples; what passes between blocks lies in memory as far
as a budget goes, then in files beside the checkpoint, and is deleted with it if anything fails.
"""

import logging
from pathlib import Path
from typing import Any

import polars as pl
import torch

from quantrust.disk import check_disk
from quantrust.models.device import check_device
from quantrust.models.device_memory import require_device_memory
from quantrust.models.skeleton import build_skeleton
from quantrust.models.streamed_weights import DTYPE, StreamedWeights
from quantrust.progress import progress
from quantrust.quantization.checkpoint import open_checkpoint, plan_layout
from quantrust.quantization.layer_plan import build_layer_plan, describe_layer_plan
from quantrust.quantization.layer_writer import KeptWork, LayerWriter
from quantrust.quantization.method import Job, load_method
from quantrust.quantization.quantizing_memory import activation_budget, quantize_footprint
from quantrust.quantization.scheme import UNQUANTIZED_MODEL, Scheme, parse_scheme

ATTENTION = "sdpa"
"""The attention of the library that calibration runs with: flash attention cannot compute in float32."""

_log = logging.getLogger(__name__)


def quantize_model(
    model_folder: str | Path,
    scheme: str | Scheme,
    calibration: str | Path | pl.DataFrame | None,
    out_folder: str | Path,
    device: str = "cpu",
    activation_bytes: int | None = None,
    kept: KeptWork | None = None,
) -> None:
    """Quantize a model under a scheme and write the checkpoint.

    Nothing is drawn at random: the same folder, scheme, calibration table and kind of device give the same bytes.

    Parameters
    ----------
    model_folder : str or Path
        Unquantized, in the Hugging Face layout.
    scheme : Scheme or str
        A scheme, or the name of one; `bf16` writes the weights as they are.
    calibration : polars.DataFrame, path of its Parquet file, or None
        As `build_calibration_table` returns it; needed by methods that read data only; others do not look at it.
    out_folder : str or Path
    device : {"cpu", "cuda"}
        Where blocks run and weights are quantized, in float32.
    activation_bytes : int or None
        How much host memory activations between blocks may take before they go to files; None is an eighth of the
        model in bfloat16, and 64 MiB at least. It does not change the result.
    kept : KeptWork or None
        What other schemes have left of this model, calibrated on the same samples; what this one finds is added. It
        does not change the result.

    Raises
    ------
    QuantrustError
        If the scheme does not parse or selects nothing, calibration is missing or unfit, there is no such device, a
        file or a key of the model is missing or unexpected, the GPU or the disk is too small, or a weight or an
        activation is not finite.
    """
    scheme = parse_scheme(scheme) if isinstance(scheme, str) else scheme
    check_device(device, ATTENTION, DTYPE)
    method = None if scheme.method is None else load_method(scheme.method)
    walk = None if method is None else method.walk(scheme, calibration)
    family, model = build_skeleton(model_folder, ATTENTION)
    plan = build_layer_plan(family, model, scheme)
    _log.info("layer plan of %s:\n%s", scheme.name, describe_layer_plan(plan))
    layout = plan_layout(family, model, plan)
    sizes = layout.sizes(plan)
    samples = None if walk is None else walk.samples(family, model, model_folder)
    if activation_bytes is None:
        activation_bytes = activation_budget(sizes)
    footprint = quantize_footprint(family, model, plan, sizes, scheme, samples, device, activation_bytes)
    require_device_memory(
        f"quantizing {model_folder} under {scheme.name}",
        footprint.device,
        device,
        "quantize on a larger GPU, or set compute.device: cpu",
    )
    check_disk(
        out_folder,
        sizes["weights_file"] + footprint.scratch,
        "keep more activations in memory (calibration.activations_gb), or calibrate on fewer samples "
        "(calibration.samples) or smaller pictures",
    )
    quantizers = {} if method is None else method.quantizers(plan, scheme.symmetric)
    steps = len(quantizers) + (0 if walk is None else walk.steps(family, model, plan))
    record: dict[str, Any] = {
        "scheme": scheme.name,
        "settings": scheme.settings(),
        "calibration": None if walk is None else walk.describe_calibration(),
        "modality_ratios": [],
        "scales": [],
    }
    with (
        open_checkpoint(out_folder, model_folder, layout) as writer,
        progress(f"quantizing under {scheme.name}", steps, "blocks and layers") as bar,
        torch.no_grad(),
    ):
        weights = StreamedWeights(model_folder, family, model, device)
        replaces = method is not None and method.replaces_layers and scheme.calibrated_on != UNQUANTIZED_MODEL
        apart = method is not None and method.quantizes_apart(scheme)
        layers = LayerWriter(
            model, weights, quantizers, writer, bar, replaces, family.embedding_factor, kept if apart else None
        )
        if walk is None:
            layers.quantize_rest()
        else:
            job = Job(
                family,
                model,
                weights,
                layers,
                plan,
                scheme,
                writer.scratch,
                activation_bytes,
                device,
                KeptWork() if kept is None else kept,
            )
            record |= walk.run(job)
        writer.finish(layers.completed(plan), record)
