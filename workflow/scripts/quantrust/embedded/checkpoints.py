"""Checkpoints of a training: all that decides its next steps, so that a training that was killed loses minutes.

A checkpoint holds weights, the optimizer's moments, both random generators, the order of the images and the training
curve. A training that goes on from it computes the bytes that an undisturbed one would. The checkpoint is a folder,
written whole and then put in the place of the one before.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from quantrust.artifacts.folder_record import check_folder
from quantrust.artifacts.folders import artifact_folder
from quantrust.files import read_object, write_json
from quantrust.tensor_file import write_tensors

logger = logging.getLogger(__name__)

TENSORS, STATE = "state.safetensors", "state.json"
ORDER, TORCH_RANDOM = "order", "torch_random"


class Order:
    """An endless order of images: a new permutation on each pass, whose incomplete last batch is left out."""

    def __init__(self, count: int, batch: int, rng: np.random.Generator) -> None:
        self.count, self.batch, self.rng = count, batch, rng
        self.permutation = np.empty(0, dtype=np.int64)
        self.place = 0

    def following(self) -> np.ndarray:
        """Return the images of the next batch, int64, shape (batch,)."""
        if self.place + self.batch > len(self.permutation):
            self.permutation, self.place = self.rng.permutation(self.count), 0
        self.place += self.batch
        return self.permutation[self.place - self.batch : self.place]


@dataclass(frozen=True)
class TrainingState:
    """What a stage of a training changes.

    Attributes
    ----------
    modules : dict of str to Module
        Their weights, by the names under which a checkpoint keeps them.
    trained : list of Parameter
        The parameters of the optimizer, in a fixed order.
    optimizer : torch.optim.Optimizer
    order : Order
    rng : numpy.random.Generator
        The generator of the order, and of all else that the stage draws.
    """

    modules: dict[str, nn.Module]
    trained: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    order: Order
    rng: np.random.Generator

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors of the state by their names in a checkpoint."""
        moments = {
            f"moments.{number}.{key}": value
            for number, parameter in enumerate(self.trained)
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        return {
            **{
                f"{name}.{key}": value
                for name, module in self.modules.items()
                for key, value in module.state_dict().items()
            },
            **moments,
            ORDER: torch.from_numpy(self.order.permutation),
            TORCH_RANDOM: torch.get_rng_state(),
        }

    def load(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Become the state of a checkpoint."""
        for name, module in self.modules.items():
            _load_weights(module, name, tensors)
        for number, parameter in enumerate(self.trained):
            if moments := _below(f"moments.{number}", tensors):
                self.optimizer.state[parameter] = moments
        self.order.permutation, self.order.place = tensors[ORDER].numpy(), state["place"]
        self.rng.bit_generator.state = state["random"]
        torch.set_rng_state(tensors[TORCH_RANDOM])


class Checkpoints:
    """The last checkpoint of a training.

    Parameters
    ----------
    folder : Path
        Where it lies, or will.
    training : dict
        What training it is of: model, settings, code. A checkpoint of another one is not used.
    every : int
        Steps from one checkpoint to the next.
    stages : tuple of str
        The stages of the training in their order.
    """

    def __init__(self, folder: Path, training: dict[str, Any], every: int, stages: tuple[str, ...]) -> None:
        self.folder, self.training, self.every, self.stages = folder, training, every, stages
        self.found = self._read()

    def _read(self) -> dict[str, Any] | None:
        if not self.folder.exists():
            return None
        check_folder(self.folder)
        found = read_object(self.folder / STATE)
        if found["training"] != self.training:
            logger.warning("%s is of a training with other settings or code; training begins anew", self.folder)
            return None
        logger.info("going on from %s: stage %s, step %d", self.folder, found["stage"], found["step"])
        return found

    @property
    def log(self) -> dict[str, Any] | None:
        """The training curve up to the checkpoint; None where training begins anew."""
        return None if self.found is None else self.found["log"]

    def is_past(self, stage: str) -> bool:
        """Return whether the checkpoint is of a later stage than this one."""
        return self.found is not None and self.stages.index(stage) < self.stages.index(self.found["stage"])

    def restore(self, name: str, module: nn.Module) -> None:
        """Give a module the weights that the checkpoint has under a name, if there is a checkpoint to go on from."""
        if self.found is not None:
            _load_weights(module, name, load_file(self.folder / TENSORS))

    def resume(self, stage: str, state: TrainingState) -> int:
        """Make a state that of the checkpoint, if it is of this stage; return how many steps are done."""
        if self.found is None or self.found["stage"] != stage:
            return 0
        state.load(load_file(self.folder / TENSORS), self.found)
        done: int = self.found["step"]
        self.found = None
        return done

    def after(self, stage: str, done: int, steps: int, state: TrainingState, log: dict[str, Any]) -> None:
        """Write a checkpoint after a step, if one is due: at the end of a stage it always is."""
        if done % self.every and done < steps:
            return
        with artifact_folder(self.folder) as folder:
            write_tensors(folder / TENSORS, state.tensors())
            write_json(
                folder / STATE,
                {
                    "training": self.training,
                    "stage": stage,
                    "step": done,
                    "place": state.order.place,
                    "random": state.rng.bit_generator.state,
                    "log": log,
                },
            )

    def remove(self) -> None:
        """Remove the checkpoint of a training that has ended."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _load_weights(module: nn.Module, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a module the weights that a checkpoint has under a name."""
    module.load_state_dict(_below(name, tensors))


def _below(name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
