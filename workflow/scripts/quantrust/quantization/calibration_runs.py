"""Calibration samples on their way through a model whose weights are loaded part by part."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor, nn

from quantrust.artifacts.tables import read_table
from quantrust.errors import QuantrustError
from quantrust.models.components import STACKS
from quantrust.models.family import EncodedImage, Family, LanguageInputs, Role, VisionInputs
from quantrust.quantization.activation_store import ActivationStore, Stored, fetch
from quantrust.quantization.block_inputs import bypassed, run_stack, skipped
from quantrust.quantization.calibration_memory import samples_of
from quantrust.quantization.calibration_samples import check_calibration, language_batches, vision_batches
from quantrust.quantization.method import Job, Samples, Walk
from quantrust.quantization.scheme import Scheme

_log = logging.getLogger(__name__)

RunStack = Callable[[Sequence[str], Sequence[Callable[[], Any]]], list[Stored]]
"""Runs the blocks of a stage, given what runs the model on each micro-batch; returns what the last block yields."""

Known = dict[tuple[str, ...], Stored]
"""What stages of vision tower and connector yield for one batch of images, by their blocks."""


class CalibratedWalk(Walk):
    """A walk that reads calibration samples.

    Parameters
    ----------
    scheme : Scheme
    calibration : polars.DataFrame, path of its Parquet file, or None

    Raises
    ------
    QuantrustError
        If there is no calibration table, or it cannot calibrate a multimodal model.
    """

    def __init__(self, scheme: Scheme, calibration: str | Path | pl.DataFrame | None) -> None:
        if calibration is None:
            raise QuantrustError(f"scheme {scheme.name} needs a calibration table; build one from captions of images")
        self.scheme = scheme
        self.table = calibration if isinstance(calibration, pl.DataFrame) else read_table(calibration)
        check_calibration(self.table)
        self._processor: Any = None

    def samples(self, family: Family, model: nn.Module, model_folder: str | Path) -> Samples:
        """Return what the calibration samples take; the model's processor is kept for the walk."""
        self._processor = family.load_processor(str(model_folder))
        return samples_of(family, model, self._processor, self.table)

    def describe_calibration(self) -> dict[str, Any]:
        """Return how many samples there are, and how many tokens of each role."""
        roles = self.table["roles"].explode()
        counts = {role.name.lower(): int((roles == int(role)).sum()) for role in Role if role != Role.PAD}
        return {"samples": len(self.table), "tokens": counts}

    def steps(self, family: Family, model: nn.Module, plan: pl.DataFrame) -> int:
        """Return how many blocks are run while their layers are quantized."""
        return sum(len(family.blocks(model, component)) for component in self._walked(plan))

    def _walked(self, plan: pl.DataFrame) -> set[str]:
        """Return the components whose blocks are run while their layers are quantized."""
        return set(STACKS) & set(self.scheme.components)

    def run(self, job: Job) -> dict[str, list[dict[str, Any]]]:
        """Quantize what goes by calibration samples, then everything else."""
        runs = CalibrationRuns(job, self._processor, self.table)
        found = self.calibrate(job, runs)
        spilled = runs.store.spilled
        # no activation is needed any more
        del runs
        job.layers.quantize_rest()
        if spilled:
            _log.info("activations went through %.1f GB of files", spilled / 1e9)
        return found

    @abstractmethod
    def calibrate(self, job: Job, runs: "CalibrationRuns") -> dict[str, list[dict[str, Any]]]:
        """Quantize what goes by calibration samples; return what the checkpoint's record says of it."""


class CalibrationRuns:
    """The samples of a calibration table, as the parts of one model read them.

    Parameters
    ----------
    job : Job
    processor : object
        The model's.
    table : polars.DataFrame

    Attributes
    ----------
    family : Family
    model : torch.nn.Module
    hold : callable
        A context in which a part of the model has its weights.
    store : ActivationStore
        Holds whatever passes between blocks.
    kept : KeptWork
        What other schemes have left of the model.
    images : list of VisionInputs
        The preprocessed images, batch by batch, with tensors stored.
    """

    def __init__(self, job: Job, processor: Any, table: pl.DataFrame) -> None:
        self.family, self.model, self.hold, self.kept = job.family, job.model, job.weights.loaded, job.kept
        self.store = ActivationStore(job.scratch, job.activation_bytes, job.device)
        self._job, self._processor, self._table = job, processor, table
        self.images: list[VisionInputs] = [
            self.store.put_all(inputs) for inputs in vision_batches(self.family, processor, table)
        ]

    def run_stack(self, blocks: Sequence[str], runs: Sequence[Callable[[], Any]]) -> list[Stored]:
        """Return what the last of a stage's blocks yields for each run."""
        return run_stack(self.model, blocks, runs, self.hold, self.store)

    def image_runs(self, known: Sequence[Known]) -> list[Callable[[], list[EncodedImage]]]:
        """Return what runs vision tower and connector on each batch of images.

        Parameters
        ----------
        known : sequence of dict
            What stages are already known to yield for each batch; their blocks are not run.
        """
        return [
            partial(self._encode_images, inputs, dict(found)) for inputs, found in zip(self.images, known, strict=True)
        ]

    def run_vision(self, quantizing: dict[str, RunStack], components: Sequence[str] | None = None) -> list[Known]:
        """Return what vision tower and connector yield for each batch of images, by stage.

        Parameters
        ----------
        quantizing : dict of str to callable
            What runs the stages of components that are quantized on the way; the others are run as they are.
        components : sequence of str or None
            Both, or the vision tower alone; None is all that read pictures alone.

        Raises
        ------
        QuantrustError
            If what a component yields is not finite.
        """
        known: list[Known] = [{} for _ in self.images]
        for component in self.family.seeing if components is None else components:
            for blocks in self.family.stages(self.model, component):
                runs = self.image_runs(known)
                hidden = quantizing.get(component, self.run_stack)(blocks, runs)
                if not all(states.get().isfinite().all() for states in hidden):
                    if component not in quantizing:
                        with self.naming_overflow():
                            self.run_stack(blocks, runs)
                    raise QuantrustError(
                        f"{component}: calibration activations hold NaN or infinite values; check the model"
                    )
                for found, states in zip(known, hidden, strict=True):
                    found[tuple(blocks)] = states
        return known

    def unquantized_embedding(self) -> AbstractContextManager[None]:
        """Return a context in which the model's own embedding can be used."""
        return self._job.weights.looked_up(self.family.embedding)

    def prompts(self, known: Sequence[Known], embedding: AbstractContextManager[None]) -> list[LanguageInputs]:
        """Return the samples as the language model reads them, with tensors stored.

        Parameters
        ----------
        known : sequence of dict
            What vision tower and connector yield, as `run_vision` returns it.
        embedding : context manager
            Lets the embedding be used.
        """

        def encoded() -> Iterator[EncodedImage]:
            for run in self.image_runs(known):
                yield from run()

        with embedding:
            batches = language_batches(self.family, self.model, self._processor, self._table, encoded())
            return [self.store.put_all(inputs) for inputs in batches]

    def prompt_runs(self, prompts: Sequence[LanguageInputs]) -> list[Callable[[], Tensor]]:
        """Return what runs the language model on each batch of prompts."""
        return [partial(self._decode, inputs) for inputs in prompts]

    def real_tokens(self, inputs: LanguageInputs) -> Tensor | None:
        """Return which tokens of prompts are not padding, bool (tokens,); None where there is none.

        Where another component than the language model reads them, prompts come one by one, because some of its linears
        read a part of a prompt, and others the picture.
        """
        return real_tokens(inputs) if self.family.has_language_model else None

    @contextmanager
    def naming_overflow(self) -> Iterator[None]:
        """Raise an error that names the first layer to run in this context whose output is not finite."""

        def look(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not output.isfinite().all():
                raise QuantrustError(
                    f"{name}: calibration activations hold NaN or infinite values; check model and images"
                )

        with ExitStack() as hooks:
            for layer in self._job.plan["layer"]:
                handle = self.model.get_submodule(layer).register_forward_hook(partial(look, layer))
                hooks.callback(handle.remove)
            yield

    def _encode_images(self, inputs: VisionInputs, known: Known) -> list[EncodedImage]:
        """Run vision tower and connector on images, except for the stages whose outputs are `known`."""
        with ExitStack() as stacks:
            if not all(tuple(blocks) in known for blocks in self.family.stages(self.model, "vision")):
                # a block of the connector may read the output of a block within the vision tower
                stacks.enter_context(skipped(self.model, self.family.blocks(self.model, "connector")))
            for blocks, states in known.items():
                stacks.enter_context(bypassed(self.model, blocks, states.get()))
            return self.family.encode_images(self.model, fetch(inputs))

    def _decode(self, inputs: LanguageInputs) -> Tensor:
        return self.family.read_prompts(self.model, fetch(inputs))[0]


def real_tokens(inputs: LanguageInputs) -> Tensor:
    """Return which tokens are not padding, bool (tokens,)."""
    return fetch(inputs.roles).flatten() != Role.PAD
