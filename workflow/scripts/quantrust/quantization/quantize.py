"""From a model folder and a scheme to a checkpoint folder, one part of the model at a time.

Weights are read from disk when their part (a block, the embedding, the head) is worked on, and are written and let go
once it is done. Calibration goes block by block over all samples; what passes between blocks lies in memory as far as a
budget goes, then in files beside the checkpoint, and is deleted with it if anything fails.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from math import frexp
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from quantrust.artifacts.tables import read_table
from quantrust.disk import check_disk
from quantrust.errors import QuantrustError
from quantrust.models.components import STACKS
from quantrust.models.device import check_device
from quantrust.models.device_memory import require_device_memory
from quantrust.models.family import EncodedImage, Family, LanguageInputs, Role, VisionInputs
from quantrust.models.skeleton import build_skeleton
from quantrust.models.streamed_weights import DTYPE, StreamedWeights
from quantrust.named_modules import METHODS, load_module
from quantrust.progress import Progress, progress
from quantrust.quantization.activation_store import ActivationStore, Stored, fetch
from quantrust.quantization.block_inputs import bypassed, run_stack
from quantrust.quantization.calibration_samples import check_calibration, language_batches, vision_batches
from quantrust.quantization.checkpoint import CheckpointWriter, open_checkpoint, plan_layout
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.grid import SMALLEST_NORMAL, QuantizedWeight, relative_change
from quantrust.quantization.kernels.onednn import FastLinears
from quantrust.quantization.layer_plan import build_plan, describe_plan
from quantrust.quantization.linear import PackedWeight, replace_layer
from quantrust.quantization.methods import awq, mbq
from quantrust.quantization.methods.gptq import HessianFactor, HessianSum, quantize_gptq
from quantrust.quantization.methods.mbq import ModalityRatio
from quantrust.quantization.methods.rtn import quantize_rtn
from quantrust.quantization.scale_search import Batch, ScaleChoice, search_stack
from quantrust.quantization.scheme import BUILT_IN_METHODS, Scheme, parse_scheme
from quantrust.quantization.sequential import factor_inputs, quantize_stack
from quantrust.quantization.working_memory import activation_budget, quantize_footprint, samples_of

ATTENTION = "sdpa"
"""The attention of the library that calibration runs with: flash attention can not compute in float32."""

POWERS = {"mae": 1, "mse": 2}

NOTABLE_SHARE = 0.01
"""Groups with small scales that hold less of a layer's norm cannot change it by more."""
NOTABLE_LOSS = 1.1
"""A layer that loses so many times what its grid loses says so in the plan."""

Quantize = Callable[..., QuantizedWeight]
_log = logging.getLogger(__name__)


def quantize_model(
    model_folder: str | Path,
    scheme: str | Scheme,
    calibration: str | Path | pl.DataFrame | None,
    out_folder: str | Path,
    device: str = "cpu",
    activation_bytes: int | None = None,
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
        As `build_calibration_table` returns it; needed by AWQ, MBQ and GPTQ only, other methods do not look at it.
    out_folder : str or Path
    device : {"cpu", "cuda"}
        Where blocks run and weights are quantized, in float32.
    activation_bytes : int or None
        How much host memory activations between blocks may take before they go to files; None is an eighth of the
        model in bfloat16, and 64 MiB at least. It does not change the result.

    Raises
    ------
    QuantrustError
        If the scheme does not parse or selects nothing, calibration is missing or unfit, there is no such device, a
        file or a key of the model is missing or unexpected, the GPU or the disk is too small, or a weight or an
        activation is not finite.
    """
    scheme = parse_scheme(scheme) if isinstance(scheme, str) else scheme
    check_device(device, ATTENTION, DTYPE)
    table = None
    if scheme.needs_calibration:
        if calibration is None:
            raise QuantrustError(f"scheme {scheme.name} needs a calibration table; build one from captions of images")
        table = calibration if isinstance(calibration, pl.DataFrame) else read_table(calibration)
        check_calibration(table)
    family, model = build_skeleton(model_folder, ATTENTION)
    plan = build_plan(family, model, scheme)
    _log.info("plan of %s:\n%s", scheme.name, describe_plan(plan))
    with torch.device("meta"):
        layout = plan_layout(family, build_skeleton(model_folder, ATTENTION)[1], plan)
    sizes = layout.sizes(plan)
    processor = None if table is None else family.load_processor(str(model_folder))
    samples = None if table is None else samples_of(family, model, processor, table)
    if activation_bytes is None:
        activation_bytes = activation_budget(sizes)
    footprint = quantize_footprint(family, model, plan, sizes, scheme, samples, device, activation_bytes)
    require_device_memory(
        f"quantizing {model_folder} under {scheme.name}",
        footprint.device,
        device,
        "quantize on a larger GPU, or set compute.device: cpu",
    )
    needed = sizes["weights_file"] + footprint.scratch
    check_disk(
        out_folder,
        needed,
        "keep more activations in memory (calibration.activations_gb), or calibrate on fewer samples "
        "(calibration.samples) or smaller pictures",
    )
    steps = _steps(family, model, scheme, plan)
    with (
        open_checkpoint(out_folder, model_folder, layout) as writer,
        progress(f"quantizing under {scheme.name}", steps, "blocks and layers") as bar,
        torch.no_grad(),
    ):
        store = ActivationStore(writer.scratch, activation_bytes, device)
        weights = StreamedWeights(model_folder, family, model, device)
        surgery = _Surgery(family, model, weights, scheme, plan, writer, store, bar)
        if table is not None:
            surgery.calibrate(processor, table)
        surgery.quantize_rest()
        said = pl.col("layer").replace_strict(surgery.notes, default=None, return_dtype=pl.String)
        layers = plan.with_columns(
            note=pl.concat_str("note", said, separator="; ", ignore_nulls=True).replace("", None),
            relative_error=pl.col("layer").replace_strict(surgery.errors, default=None, return_dtype=pl.Float64),
        )
        record = {
            "scheme": scheme.name,
            "settings": scheme.settings(),
            "calibration": None if table is None else _describe_calibration(table),
            "modality_ratios": [asdict(ratio) for ratio in surgery.ratios],
            "scales": [_describe_choice(choice) for choice in surgery.choices],
        }
        writer.finish(layers, record)
    if store.spilled:
        _log.info("activations went through %.1f GB of files", store.spilled / 1e9)


@dataclass
class _Surgery:
    """The layers of one model under one plan, and what came of them.

    Attributes
    ----------
    errors : dict of str to float
        |dequantized - weight| / |weight| of each layer that is quantized already, Frobenius norms.
    notes : dict of str to str
        What the plan says further of those whose scales are too small for the dtype in which they are stored.
    ratios : list of ModalityRatio
    choices : list of ScaleChoice
        In the order of the forward pass.
    """

    family: Family
    model: nn.Module
    weights: StreamedWeights
    scheme: Scheme
    plan: pl.DataFrame
    writer: CheckpointWriter
    store: ActivationStore
    bar: Progress
    errors: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    ratios: list[ModalityRatio] = field(default_factory=list)
    choices: list[ScaleChoice] = field(default_factory=list)

    def __post_init__(self) -> None:
        chosen = self.plan.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null())
        self.quantizers = {
            row["layer"]: _quantizer(row["method"], row["bits"], row["group"], self.scheme.symmetric)
            for row in chosen.iter_rows(named=True)
        }
        self.calibrated = set(chosen.filter(method="gptq")["layer"])
        self.heads = [name for name in chosen.filter(component="head")["layer"] if name in self.calibrated]
        # None is what lies between the parts
        self.tensors: dict[str | None, list[str]] = {}
        for name in self.writer.layout.tensors:
            self.tensors.setdefault(self.weights.part_of(name), []).append(name)
        self.finished: set[str | None] = set()

    def calibrate(self, processor: Any, table: pl.DataFrame) -> None:
        """Quantize what goes by calibration samples."""
        images = [self.store.put_all(inputs) for inputs in vision_batches(self.family, processor, table)]
        if self.scheme.searches_scales:
            self._search_and_fold(images, processor, table)
        else:
            self._quantize_in_order(images, processor, table)

    def _search_and_fold(self, images: Sequence[VisionInputs], processor: Any, table: pl.DataFrame) -> None:
        """Search scales and quantize the scaled blocks; a block is done before the next is looked at.

        Every search reads activations of the unquantized model: the component that runs last in the forward pass comes
        first, and within a component the blocks before have passed on what they yield unquantized.
        """
        found: dict[str, list[ScaleChoice]] = {}
        for component in reversed(_stacks(self.scheme)):
            if component == "language":
                prompts = self._prompts(images, self._run_vision(images), processor, table)
                if self.scheme.method == "mbq":
                    self.ratios = self._modality_ratios(prompts)
                batches = self._language_batches(prompts)
            else:
                batches = self._image_batches(component, images)
            found[component] = self._search_stack(component, batches)
        self.choices = [choice for component in STACKS for choice in found.get(component, [])]

    def _quantize_in_order(self, images: Sequence[VisionInputs], processor: Any, table: pl.DataFrame) -> None:
        """Quantize by GPTQ in the order of the forward pass, each block on what the quantized ones before it yield."""
        known = self._run_vision(images, quantize=True)
        if "language" in self.scheme.components or self.heads:
            prompts = self._prompts(images, known, processor, table)
            # the prompts hold what is needed of it
            del known
            runs = [(partial(self._decode, inputs), _real(inputs)) for inputs in prompts]
            hidden = self._quantize_stack("language", runs)
            for head in self.heads:
                with self.weights.loaded(head):
                    self._quantize_head(head, hidden, prompts)
                    self._finish(head)

    def quantize_rest(self) -> None:
        """Quantize every layer of the plan that is not quantized yet, and write every tensor that is not written."""
        for part in self.weights.parts:
            # nothing is stored of a tied head
            if part not in self.finished and part in self.tensors:
                with self.weights.loaded(part):
                    self._finish(part)
        self._finish(None)
        for name, source in self.plan.drop_nulls("shares").select("layer", "shares").iter_rows():
            self.errors[name] = self.errors[source]

    def _run_vision(self, images: Sequence[VisionInputs], quantize: bool = False) -> list[dict[str, Stored]]:
        """Return what vision tower and connector yield for each batch of images, by component.

        With `quantize` those that the scheme selects are quantized on the way, and yield what they then do.
        """
        known: list[dict[str, Stored]] = [{} for _ in images]
        for component in ("vision", "connector"):
            runs = [
                partial(self._encode_images, inputs, dict(found)) for inputs, found in zip(images, known, strict=True)
            ]
            quantized = quantize and component in self.scheme.components
            hidden = (
                self._quantize_stack(component, [(run, None) for run in runs])
                if quantized
                else self._run_stack(component, runs)
            )
            if not all(states.get().isfinite().all() for states in hidden):
                if not quantized:
                    with self._naming_overflow():
                        self._run_stack(component, runs)
                raise QuantrustError(
                    f"{component}: calibration activations hold NaN or infinite values; check the model"
                )
            for found, states in zip(known, hidden, strict=True):
                found[component] = states
        return known

    def _run_stack(self, component: str, runs: Sequence[Callable[[], Any]]) -> list[Stored]:
        blocks = self.family.blocks(self.model, component)
        return run_stack(self.model, blocks, runs, self.weights.loaded, self.store)

    def _prompts(
        self, images: Sequence[VisionInputs], known: Sequence[dict[str, Stored]], processor: Any, table: pl.DataFrame
    ) -> list[LanguageInputs]:
        """Return the samples as the language model reads them, with tensors stored."""

        def encoded() -> Iterator[EncodedImage]:
            for inputs, found in zip(images, known, strict=True):
                yield from self._encode_images(inputs, found)

        with self._embedding_to_look_up():
            batches = language_batches(self.family, self.model, processor, table, encoded())
            return [self.store.put_all(inputs) for inputs in batches]

    @contextmanager
    def _embedding_to_look_up(self) -> Iterator[None]:
        """Let the embedding be used: that of the model, or under GPTQ the quantized one, if it is quantized."""
        name = self.family.embedding
        if self.scheme.method == "gptq" and name in self.quantizers:
            with self.weights.loaded(name):
                self._finish(name)
                yield
        else:
            with self.weights.looked_up(name):
                yield

    def _modality_ratios(self, prompts: Sequence[LanguageInputs]) -> list[ModalityRatio]:
        try:
            return mbq.modality_ratios(self.family, self.model, prompts, self.weights.loaded, self.store)
        except mbq.NoModalityRatio:
            # a gradient that is not finite says nothing about where it went wrong
            with self._naming_overflow():
                self._run_stack("language", [partial(self._decode, inputs) for inputs in prompts])
            raise

    @contextmanager
    def _naming_overflow(self) -> Iterator[None]:
        """Raise an error that names the first layer to run in this context whose output is not finite."""

        def look(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not output.isfinite().all():
                raise QuantrustError(
                    f"{name}: calibration activations hold NaN or infinite values; check model and images"
                )

        with ExitStack() as hooks:
            for layer in self.plan["layer"]:
                handle = self.model.get_submodule(layer).register_forward_hook(partial(look, layer))
                hooks.callback(handle.remove)
            yield

    def _encode_images(self, inputs: VisionInputs, known: dict[str, Stored]) -> list[EncodedImage]:
        """Run vision tower and connector on images, but for the stacks of which it is known what they yield."""
        with ExitStack() as stacks:
            for component, states in known.items():
                blocks = self.family.blocks(self.model, component)
                stacks.enter_context(bypassed(self.model, blocks, states.get()))
            return self.family.encode_images(self.model, fetch(inputs))

    def _decode(self, inputs: LanguageInputs) -> Tensor:
        inputs = fetch(inputs)
        return self.family.decode(self.model, inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids)[0]

    def _image_batches(self, component: str, images: Sequence[VisionInputs]) -> list[Batch]:
        known: list[dict[str, Stored]] = [{} for _ in images]
        if component == "connector":
            with FastLinears():
                hidden = self._run_stack("vision", [partial(self._encode_images, inputs, {}) for inputs in images])
            known = [{"vision": states} for states in hidden]
        # no token of vision tower or connector is an answer: all count the same
        return [Batch(partial(self._encode_images, inputs, found)) for inputs, found in zip(images, known, strict=True)]

    def _language_batches(self, prompts: Sequence[LanguageInputs]) -> list[Batch]:
        blocks = len(self.family.blocks(self.model, "language"))
        batches = []
        for inputs in prompts:
            roles = fetch(inputs.roles).flatten()
            if self.scheme.method == "mbq":
                weights = {
                    kind: [mbq.token_weights(roles, ratio.used) for ratio in self.ratios if ratio.kind == kind]
                    for kind in mbq.KINDS
                }
            else:
                weights = dict.fromkeys(mbq.KINDS, [awq.token_weights(roles)] * blocks)
            batches.append(Batch(partial(self._decode, inputs), _real(inputs), weights))
        return batches

    def _search_stack(self, component: str, batches: list[Batch]) -> list[ScaleChoice]:
        blocks = self.family.blocks(self.model, component)
        groups = {block: self.family.scale_groups(self.model, block) for block in blocks}
        power = POWERS[self.scheme.error]
        found = []
        searches = search_stack(
            self.model, blocks, groups, batches, self.quantizers, power, self.weights.loaded, self.store
        )
        for block, choices in zip(blocks, searches, strict=True):
            for choice in choices:
                fold_scale(self.model, choice.group, choice.scale)
            self._finish(block)
            found += choices
            self.bar.update()
        return found

    def _quantize_stack(self, component: str, runs: list[tuple[Callable[[], Any], Tensor | None]]) -> list[Stored]:
        blocks = self.family.blocks(self.model, component)

        def finish(block: str) -> None:
            self._finish(block)
            self.bar.update()

        return quantize_stack(
            self.model,
            blocks,
            {block: self.family.scale_groups(self.model, block) for block in blocks},
            runs,
            self.calibrated,
            self._quantize_layer,
            finish,
            self.weights.loaded,
            self.store,
        )

    def _quantize_head(self, name: str, hidden: list[Stored], prompts: list[LanguageInputs]) -> None:
        norm, weight = self.model.get_submodule(self.family.final_norm), self.model.get_submodule(name).weight
        total = HessianSum(weight.shape[1], weight.device)
        for states, inputs in zip(hidden, prompts, strict=True):
            total.add(norm(states.get()).flatten(0, -2)[_real(inputs)])
        self._quantize_layer(name, factor_inputs(total, [name]))

    def _finish(self, part: str | None) -> None:
        """Quantize the layers of a part that are not quantized yet, and write all of its other tensors."""
        for name in self.quantizers:
            if self.weights.part_of(name) == part:
                self._quantize_layer(name)
        for name in self.tensors.get(part, []):
            if name not in self.writer.layout.packed:
                self.writer.write(name, attrgetter(name)(self.model))
        self.finished.add(part)

    def _quantize_layer(self, name: str, factor: HessianFactor | None = None) -> None:
        """Quantize and write a layer, if the plan selects it and it is not done yet."""
        if name not in self.quantizers or name in self.errors:
            return
        weight = self.model.get_submodule(name).weight.detach()
        quantize = self.quantizers[name]
        try:
            quantized = quantize(weight) if factor is None else quantize(weight, factor)
        except QuantrustError as error:
            raise QuantrustError(f"layer {name}: {error}") from error
        self.errors[name] = relative_change(quantized.dequantize(), weight)
        note = _note_on_scales(weight, quantized, quantize if factor is None else partial(quantize, factor=factor))
        if note is not None:
            self.notes[name] = note
            _log.warning("%s: %s", name, note)
        packed = PackedWeight.from_quantized(quantized)
        self.writer.write_packed(name, packed)
        if self.scheme.method == "gptq":
            # what comes after it is calibrated on what it yields
            replace_layer(self.model, name, packed, DTYPE)
        self.bar.update()


def _quantizer(method: str, bits: int, group_size: int, symmetric: bool) -> Quantize:
    """Return how a weight is quantized; GPTQ's takes a Hessian's factor as well."""
    if method not in BUILT_IN_METHODS:
        base = load_module(METHODS, method, ("quantize",)).quantize
    else:
        base = quantize_gptq if method == "gptq" else quantize_rtn
    return partial(base, bits=bits, group_size=group_size, symmetric=symmetric)


def _note_on_scales(weight: Tensor, quantized: QuantizedWeight, quantize: Quantize) -> str | None:
    """Return what the plan must say of a layer whose scales are too small for float16, or None.

    Below 2^-14 float16 has fewer significant bits, and below 2^-24 it has nothing. What that costs is seen by
    quantizing the same weights times a power of two: the grid is the same then but for the rounding of its scales.
    """
    small = quantized.scale < SMALLEST_NORMAL
    if quantized.scale.dtype != torch.float16 or not small.any():
        return None
    # the largest becomes a sixteenth at most: HQQ shrinks errors alike as long as none is large
    _, exponent = frexp(float(weight.abs().max()))
    enlarged = weight * 2.0 ** max(0, -4 - exponent)
    energy = enlarged.square().unflatten(1, (-1, quantized.group_size)).sum(dim=2)
    if float(energy[small].sum()) <= NOTABLE_SHARE**2 * float(energy.sum()):
        return None
    error, grid = (
        relative_change(quantized.dequantize(), weight),
        relative_change(quantize(enlarged).dequantize(), enlarged),
    )
    if error <= NOTABLE_LOSS * grid:
        return None
    return (
        f"scales down to {float(quantized.scale.min()):.1e} are too small for float16: the layer loses {error:.1%} "
        f"where its grid alone loses {grid:.1%}; at 8 bits scales are float32"
    )


def _stacks(scheme: Scheme) -> list[str]:
    return [component for component in STACKS if component in scheme.components]


def _steps(family: Family, model: nn.Module, scheme: Scheme, plan: pl.DataFrame) -> int:
    """Return what the progress bar counts: layers, and blocks that are run for calibration."""
    walked = set(_stacks(scheme)) if scheme.needs_calibration else set()
    if scheme.method == "gptq" and not plan.filter(component="head", method="gptq").is_empty():
        walked.add("language")
    blocks = sum(len(family.blocks(model, component)) for component in walked)
    return blocks + len(plan.filter(pl.col("bits").is_not_null() & pl.col("shares").is_null()))


def _real(inputs: LanguageInputs) -> Tensor:
    """Return which tokens are no padding, bool (tokens,)."""
    return fetch(inputs.roles).flatten() != Role.PAD


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
        "runner_up": choice.runner_up,
        "runner_up_error": choice.runner_up_error,
    }
