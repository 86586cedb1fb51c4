"""From a model folder and a scheme to a checkpoint folder."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.family import EncodedImage, Family, LanguageInputs, Role, VisionInputs
from quantrust.models.loading import load_model
from quantrust.named_modules import DATA_FREE_METHODS, load_module, module_names
from quantrust.progress import Progress, progress
from quantrust.quantization import awq, mbq
from quantrust.quantization.calibration import check_calibration, language_batches, vision_batches
from quantrust.quantization.checkpoint import save_checkpoint
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.gptq import HessianFactor, HessianSum, quantize_gptq
from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.linear import PackedWeight, replace_layer
from quantrust.quantization.mbq import ModalityRatio
from quantrust.quantization.plan import build_plan, describe_plan
from quantrust.quantization.rtn import quantize_rtn
from quantrust.quantization.scale_search import Batch, ScaleChoice, search_stack
from quantrust.quantization.scheme import Scheme, parse_scheme
from quantrust.quantization.sequential import factor_inputs, quantize_stack

DTYPE = torch.float32
"""The dtype of activations, gradients and scaled weights while quantizing."""

POWERS = {"mae": 1, "mse": 2}
STACKS = ("vision", "connector", "language")
"""The components with blocks, in the order of the forward pass."""

Quantize = Callable[..., QuantizedWeight]
_log = logging.getLogger(__name__)


def quantize_model(
    model_folder: str | Path,
    scheme: str | Scheme,
    calibration: str | Path | pl.DataFrame | None,
    out_folder: str | Path,
) -> None:
    """Quantize a model under a scheme and write the checkpoint.

    Nothing is drawn at random: the same folder, scheme and calibration table give the same bytes.

    Parameters
    ----------
    model_folder : str or Path
        Unquantized, in the Hugging Face layout.
    scheme : Scheme or str
        A scheme, or the name of one; `bf16` writes the weights as they are.
    calibration : polars.DataFrame, path of its Parquet file, or None
        As `build_calibration_table` returns it; needed by AWQ, MBQ and GPTQ only, other methods do not look at it.
    out_folder : str or Path

    Raises
    ------
    QuantrustError
        If the scheme does not parse or selects nothing, calibration is missing or unfit, or a weight or an activation
        is not finite.
    """
    scheme = parse_scheme(scheme) if isinstance(scheme, str) else scheme
    table = None
    if scheme.needs_calibration:
        if calibration is None:
            raise QuantrustError(f"scheme {scheme.name} needs a calibration table; build one from captions of images")
        table = calibration if isinstance(calibration, pl.DataFrame) else pl.read_parquet(calibration)
        check_calibration(table)
    family, model, processor = load_model(model_folder, DTYPE)
    model.requires_grad_(False)
    _check_weights(model_folder, model)
    plan = build_plan(family, model, scheme)
    _log.info("plan of %s:\n%s", scheme.name, describe_plan(plan))
    with progress(f"quantizing under {scheme.name}", _steps(family, model, scheme, plan), "blocks and layers") as bar:
        surgery = _Surgery(family, model, processor, scheme, plan, bar)
        if scheme.searches_scales:
            surgery.search_and_fold(table)
        elif scheme.method == "gptq":
            surgery.quantize_in_order(table)
        surgery.quantize_rest()
    save_checkpoint(
        out_folder,
        model_folder=model_folder,
        model=model,
        layers=plan.with_columns(
            relative_error=pl.col("layer").replace_strict(surgery.errors, default=None, return_dtype=pl.Float64)
        ),
        record={
            "scheme": scheme.name,
            "settings": scheme.settings(),
            "calibration": None if table is None else _describe_calibration(table),
            "modality_ratios": [asdict(ratio) for ratio in surgery.ratios],
            "scales": [_describe_choice(choice) for choice in surgery.choices],
        },
    )


@dataclass
class _Surgery:
    """The layers of one model under one plan, and what came of them.

    Attributes
    ----------
    errors : dict of str to float
        |dequantized - weight| / |weight| of each layer that is quantized already, Frobenius norms.
    ratios : list of ModalityRatio
    choices : list of ScaleChoice
        In the order of the forward pass.
    """

    family: Family
    model: nn.Module
    processor: Any
    scheme: Scheme
    plan: pl.DataFrame
    bar: Progress
    errors: dict[str, float] = field(default_factory=dict)
    ratios: list[ModalityRatio] = field(default_factory=list)
    choices: list[ScaleChoice] = field(default_factory=list)

    def __post_init__(self) -> None:
        chosen = self.plan.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null())
        self.quantizers = {
            row["layer"]: _quantizer(row["method"], row["bits"], row["group"], self.scheme.symmetric)
            for row in chosen.iter_rows(named=True)
        }
        self.calibrated = set(chosen.filter(method="gptq")["layer"])

    def search_and_fold(self, table: pl.DataFrame) -> None:
        """Search scales and quantize the scaled blocks; a block is done before the next is looked at.

        Every search reads activations of the unquantized model: the component that runs last in the forward pass comes
        first, and within a component the blocks before have passed on what they yield unquantized.
        """
        images = vision_batches(self.family, self.processor, table)
        prompts: list[LanguageInputs] = []
        if "language" in self.scheme.components:
            prompts = self._prompts(images, table)
            if self.scheme.method == "mbq":
                self.ratios = self._modality_ratios(prompts)
        found: dict[str, list[ScaleChoice]] = {}
        for component in reversed(_stacks(self.scheme)):
            batches = self._language_batches(prompts) if component == "language" else self._image_batches(images)
            found[component] = self._search_stack(component, batches)
        self.choices = [choice for component in STACKS for choice in found.get(component, [])]

    def quantize_in_order(self, table: pl.DataFrame) -> None:
        """Quantize by GPTQ in the order of the forward pass, each block on what the quantized ones before it yield."""
        self._quantize_where(component="embedding")
        images = vision_batches(self.family, self.processor, table)
        for component in ("vision", "connector"):
            if component in self.scheme.components:
                with torch.no_grad():
                    self._quantize_stack(
                        component, [(partial(self.family.encode_images, self.model, inputs), None) for inputs in images]
                    )
        heads = [layer for layer in self.calibrated if layer in set(self.plan.filter(component="head")["layer"])]
        if "language" in self.scheme.components or heads:
            prompts = self._prompts(images, table)
            with torch.no_grad():
                hidden = self._quantize_stack(
                    "language",
                    [(partial(_decode, self.family, self.model, inputs), _real(inputs)) for inputs in prompts],
                )
                for head in heads:
                    self._quantize_head(head, hidden, prompts)

    def quantize_rest(self) -> None:
        """Quantize every layer of the plan that is not quantized yet."""
        self._quantize_where()
        for name, source in self.plan.drop_nulls("shares").select("layer", "shares").iter_rows():
            replace_layer(self.model, name, self.model.get_submodule(source).weight, DTYPE)
            self.errors[name] = self.errors[source]

    def _prompts(self, images: Sequence[VisionInputs], table: pl.DataFrame) -> list[LanguageInputs]:
        encoded: list[EncodedImage] = []
        with torch.no_grad():
            for inputs in images:
                found = self.family.encode_images(self.model, inputs)
                if not all(image.features.isfinite().all() for image in found):
                    self._name_overflow(partial(self.family.encode_images, self.model, inputs))
                encoded += found
            return language_batches(self.family, self.model, self.processor, table, encoded)

    def _modality_ratios(self, prompts: Sequence[LanguageInputs]) -> list[ModalityRatio]:
        try:
            return mbq.modality_ratios(self.family, self.model, prompts)
        except QuantrustError:
            # a gradient that is not finite says nothing about where it went wrong
            for inputs in prompts:
                self._name_overflow(partial(_decode, self.family, self.model, inputs))
            raise

    def _name_overflow(self, run: Callable[[], Any]) -> None:
        """Raise an error that names the first layer whose output is not finite, if there is one."""
        overflowed: list[str] = []

        def look(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not output.isfinite().all():
                overflowed.append(name)

        with ExitStack() as hooks, torch.no_grad():
            for layer in self.plan["layer"]:
                handle = self.model.get_submodule(layer).register_forward_hook(partial(look, layer))
                hooks.callback(handle.remove)
            run()
        if overflowed:
            raise QuantrustError(
                f"{overflowed[0]}: calibration activations hold NaN or infinite values; check model and images"
            )

    def _image_batches(self, images: Iterable[VisionInputs]) -> list[Batch]:
        # no token of vision tower or connector is an answer: all count the same
        return [Batch(partial(self.family.encode_images, self.model, inputs)) for inputs in images]

    def _language_batches(self, prompts: Iterable[LanguageInputs]) -> list[Batch]:
        blocks = len(self.family.blocks(self.model, "language"))
        batches = []
        for inputs in prompts:
            roles = inputs.roles.flatten()
            if self.scheme.method == "mbq":
                weights = {
                    kind: [mbq.token_weights(roles, ratio.used) for ratio in self.ratios if ratio.kind == kind]
                    for kind in mbq.KINDS
                }
            else:
                weights = dict.fromkeys(mbq.KINDS, [awq.token_weights(roles)] * blocks)
            batches.append(Batch(partial(_decode, self.family, self.model, inputs), _real(inputs), weights))
        return batches

    def _search_stack(self, component: str, batches: list[Batch]) -> list[ScaleChoice]:
        blocks = self.family.blocks(self.model, component)
        groups = {block: self.family.scale_groups(self.model, block) for block in blocks}
        power = POWERS[self.scheme.error]
        found = []
        searches = search_stack(self.model, blocks, groups, batches, self.quantizers, power)
        for block, choices in zip(blocks, searches, strict=True):
            for choice in choices:
                fold_scale(self.model, choice.group, choice.scale)
            for group in groups[block]:
                for name in group.linears:
                    self._quantize_layer(name)
            found += choices
            self.bar.update()
        return found

    def _quantize_stack(self, component: str, runs: list[tuple[Callable[[], Any], Tensor | None]]) -> list[Tensor]:
        blocks = self.family.blocks(self.model, component)
        return quantize_stack(
            self.model,
            blocks,
            {block: self.family.scale_groups(self.model, block) for block in blocks},
            runs,
            self.calibrated,
            self._quantize_layer,
            lambda block: self.bar.update(),
        )

    def _quantize_head(self, name: str, hidden: list[Tensor], prompts: list[LanguageInputs]) -> None:
        norm, weight = self.model.get_submodule(self.family.final_norm), self.model.get_submodule(name).weight
        total = HessianSum(weight.shape[1], weight.device)
        for states, inputs in zip(hidden, prompts, strict=True):
            total.add(norm(states).flatten(0, -2)[_real(inputs)])
        self._quantize_layer(name, factor_inputs(total, [name]))

    def _quantize_where(self, **where: str) -> None:
        for name in self.plan.filter(**where)["layer"]:
            self._quantize_layer(name)

    def _quantize_layer(self, name: str, factor: HessianFactor | None = None) -> None:
        """Put the quantized form in the place of a layer, if the plan selects it and it is not done yet."""
        if name not in self.quantizers or name in self.errors:
            return
        weight = self.model.get_submodule(name).weight.detach()
        quantize = self.quantizers[name]
        try:
            quantized = quantize(weight) if factor is None else quantize(weight, factor)
        except QuantrustError as error:
            raise QuantrustError(f"layer {name}: {error}") from error
        norm = float(weight.norm())
        self.errors[name] = float((quantized.dequantize() - weight).norm()) / norm if norm else 0.0
        replace_layer(self.model, name, PackedWeight.from_quantized(quantized), DTYPE)
        self.bar.update()


def _quantizer(method: str, bits: int, group_size: int, symmetric: bool) -> Quantize:
    """Return how a weight is quantized; GPTQ's takes a Hessian's factor as well."""
    if method in module_names(DATA_FREE_METHODS):
        base = load_module(DATA_FREE_METHODS, method, ("quantize",)).quantize
    else:
        base = quantize_gptq if method == "gptq" else quantize_rtn
    return partial(base, bits=bits, group_size=group_size, symmetric=symmetric)


def _stacks(scheme: Scheme) -> list[str]:
    return [component for component in STACKS if component in scheme.components]


def _steps(family: Family, model: nn.Module, scheme: Scheme, plan: pl.DataFrame) -> int:
    """Return what the progress bar counts: layers, and blocks that are run for calibration."""
    walked = set(_stacks(scheme)) if scheme.needs_calibration else set()
    if scheme.method == "gptq" and not plan.filter(component="head", method="gptq").is_empty():
        walked.add("language")
    blocks = sum(len(family.blocks(model, component)) for component in walked)
    return blocks + len(plan.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null()))


def _decode(family: Family, model: nn.Module, inputs: LanguageInputs) -> Tensor:
    return family.decode(model, inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids)[0]


def _real(inputs: LanguageInputs) -> Tensor:
    """Return which tokens are no padding, bool (tokens,)."""
    return inputs.roles.flatten() != Role.PAD


def _check_weights(model_folder: str | Path, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise QuantrustError(f"{model_folder}: {name} holds NaN or infinite values; restore the model's files")


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
