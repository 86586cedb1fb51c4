"""From a model folder and a scheme to a checkpoint folder."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.family import Family, LanguageInputs, Role, ScaleGroup, VisionInputs
from quantrust.models.loading import load_model
from quantrust.progress import Progress, progress
from quantrust.quantization import awq, mbq
from quantrust.quantization.calibration import check_calibration, language_batches, vision_batches
from quantrust.quantization.checkpoint import save_checkpoint
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.hqq import quantize_hqq
from quantrust.quantization.linear import PackedWeight, replace_layer
from quantrust.quantization.mbq import ModalityRatio
from quantrust.quantization.plan import build_plan, describe_plan
from quantrust.quantization.rtn import quantize_rtn
from quantrust.quantization.scale_search import Batch, ScaleChoice, search_stack
from quantrust.quantization.scheme import Scheme, parse_scheme

DTYPE = torch.float32
"""The dtype of activations, gradients and scaled weights while quantizing."""

Quantize = Callable[[Tensor], QuantizedWeight]
_log = logging.getLogger(__name__)


def quantize_model(
    model_folder: str | Path, scheme: str, calibration: str | Path | pl.DataFrame | None, out_folder: str | Path
) -> None:
    """Quantize a model under a scheme and write the checkpoint.

    Nothing is drawn at random: the same folder, scheme and calibration table give the same bytes.

    Parameters
    ----------
    model_folder : str or Path
        Unquantized, in the Hugging Face layout.
    scheme : str
        A scheme's name; `bf16` writes the weights as they are.
    calibration : polars.DataFrame, path of its Parquet file, or None
        As `build_calibration_table` returns it; needed by AWQ and MBQ only, other methods do not look at it.
    out_folder : str or Path

    Raises
    ------
    QuantrustError
        If the scheme does not parse or selects nothing, calibration is missing or unfit, or a weight or an activation
        is not finite.
    """
    parsed = parse_scheme(scheme)
    if parsed.needs_calibration:
        if calibration is None:
            raise QuantrustError(f"scheme {scheme} needs a calibration table; build one from captions of images")
        table = calibration if isinstance(calibration, pl.DataFrame) else pl.read_parquet(calibration)
        check_calibration(table)
    family, model, processor = load_model(model_folder, DTYPE)
    model.requires_grad_(False)
    _check_weights(model_folder, model)
    plan = build_plan(family, model, parsed)
    _log.info("plan of %s:\n%s", scheme, describe_plan(plan))
    quantizers = _quantizers(plan, parsed)
    stacks = {component: family.blocks(model, component) for component, _ in parsed.bits}
    searched = sum(map(len, stacks.values())) if parsed.needs_calibration else 0
    ratios: list[ModalityRatio] = []
    choices: list[ScaleChoice] = []
    with progress(f"quantizing under {scheme}", searched + len(quantizers), "blocks and layers") as bar:
        if parsed.needs_calibration:
            images = vision_batches(family, processor, table)
            with torch.no_grad():
                encoded = [image for inputs in images for image in family.encode_images(model, inputs)]
            prompts = language_batches(family, model, processor, table, encoded)
            if parsed.method == "mbq":
                ratios = mbq.modality_ratios(family, model, prompts)
            choices = list(_search(family, model, parsed, stacks, quantizers, images, prompts, ratios, bar))
            for choice in choices:
                fold_scale(model, choice.group, choice.scale)
        errors = quantize_layers(model, plan, quantizers, bar)
    save_checkpoint(
        out_folder,
        model_folder=model_folder,
        model=model,
        layers=plan.with_columns(
            relative_error=pl.col("layer").replace_strict(errors, default=None, return_dtype=pl.Float64)
        ),
        record={
            "scheme": parsed.name,
            "settings": {
                "method": parsed.method,
                "group_size": parsed.group_size,
                "symmetric": parsed.symmetric,
                "bits": dict(parsed.bits),
            },
            "calibration": _describe_calibration(table) if parsed.needs_calibration else None,
            "modality_ratios": [asdict(ratio) for ratio in ratios],
            "scales": [_describe_choice(choice) for choice in choices],
        },
    )


def quantize_layers(
    model: nn.Module, plan: pl.DataFrame, quantizers: dict[str, Quantize], bar: Progress
) -> dict[str, float]:
    """Replace every layer of a plan by its quantized form.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    plan : polars.DataFrame
    quantizers : dict of str to callable
        How each layer's weight is quantized; layers that share another's codes have none.
    bar : Progress
        Counts the layers.

    Returns
    -------
    dict of str to float
        |dequantized - weight| / |weight| of each quantized layer, Frobenius norms.

    Raises
    ------
    QuantrustError
        If a weight does not fit its grid; the message names the layer.
    """
    errors: dict[str, float] = {}
    for name, quantize in quantizers.items():
        weight = model.get_submodule(name).weight.detach()
        try:
            quantized = quantize(weight)
        except QuantrustError as error:
            raise QuantrustError(f"layer {name}: {error}") from error
        norm = float(weight.norm())
        errors[name] = float((quantized.dequantize() - weight).norm()) / norm if norm else 0.0
        replace_layer(model, name, PackedWeight.from_quantized(quantized), DTYPE)
        bar.update()
    for name, source in plan.drop_nulls("shares").select("layer", "shares").iter_rows():
        replace_layer(model, name, model.get_submodule(source).weight, DTYPE)
        errors[name] = errors[source]
    return errors


def _check_weights(model_folder: str | Path, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise QuantrustError(f"{model_folder}: {name} holds NaN or infinite values; restore the model's files")


def _quantizers(plan: pl.DataFrame, scheme: Scheme) -> dict[str, Quantize]:
    chosen = plan.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null())
    if scheme.method == "hqq":
        base: Callable[..., QuantizedWeight] = quantize_hqq
    else:
        base = partial(quantize_rtn, symmetric=scheme.symmetric)
    return {
        layer: partial(base, bits=bits, group_size=group)
        for layer, bits, group in chosen.select("layer", "bits", "group").iter_rows()
    }


def _search(
    family: Family,
    model: nn.Module,
    scheme: Scheme,
    stacks: dict[str, list[str]],
    quantizers: dict[str, Quantize],
    images: Iterable[VisionInputs],
    prompts: Iterable[LanguageInputs],
    ratios: list[ModalityRatio],
    bar: Progress,
) -> Iterator[ScaleChoice]:
    """Yield the scales of every component that has blocks."""
    for component, blocks in stacks.items():
        if not blocks:
            continue
        if component == "language":
            batches = [_language_batch(family, model, inputs, ratios, len(blocks)) for inputs in prompts]
        else:
            # no token of the vision tower is an answer: all count the same
            batches = [Batch(partial(family.encode_images, model, inputs)) for inputs in images]
        groups: dict[str, list[ScaleGroup]] = {block: family.scale_groups(model, block) for block in blocks}
        power = mbq.POWER if scheme.method == "mbq" else awq.POWER
        for choices in search_stack(model, blocks, groups, batches, quantizers, power):
            yield from choices
            bar.update()


def _language_batch(
    family: Family, model: nn.Module, inputs: LanguageInputs, ratios: list[ModalityRatio], blocks: int
) -> Batch:
    roles = inputs.roles.flatten()
    if ratios:
        weights = {
            kind: [mbq.token_weights(roles, ratio.used) for ratio in ratios if ratio.kind == kind] for kind in mbq.KINDS
        }
    else:
        weights = dict.fromkeys(mbq.KINDS, [awq.token_weights(roles)] * blocks)
    run = partial(family.decode, model, inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids)
    return Batch(run, roles != Role.PAD, weights)


def _describe_calibration(table: pl.DataFrame) -> dict[str, Any]:
    roles = table["roles"].explode()
    counts = {role.name.lower(): int((roles == int(role)).sum()) for role in Role if role != Role.PAD}
    return {"samples": len(table), "tokens": counts}


def _describe_choice(choice: ScaleChoice) -> dict[str, Any]:
    return {
        "previous": choice.group.previous,
        "linears": list(choice.group.linears),
        "exponent": choice.exponent,
        "error": choice.error,
        "unscaled_error": choice.unscaled_error,
    }
