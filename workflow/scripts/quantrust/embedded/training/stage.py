"""What all stages of a training share: the model that learns, the training curve, the loop over steps."""

import csv
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quantrust.embedded.checkpoints import Checkpoints, Order, TrainingState
from quantrust.embedded.models import EmbeddedSpec
from quantrust.embedded.training.settings import TrainingSettings
from quantrust.embedded.training.training_set import TrainingSet
from quantrust.models.family import Family

logger = logging.getLogger(__name__)

Loss = Callable[[int, np.ndarray, np.random.Generator], tuple[torch.Tensor, dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class Learner:
    """A model that is trained.

    Attributes
    ----------
    family : Family
    spec : EmbeddedSpec
    model : torch.nn.Module
    processor : object
        As the family loads it.
    """

    family: Family
    spec: EmbeddedSpec
    model: nn.Module
    processor: Any

    def weights_of(self, components: Sequence[str]) -> list[nn.Parameter]:
        """Return the weights of some components, in the order of the model."""
        named = self.model.named_parameters()
        return [weight for name, weight in named if self.family.component_of(name)[0] in components]

    def weights_beside(self, components: Sequence[str]) -> list[nn.Parameter]:
        """Return the weights of all other components, in the order of the model."""
        named = self.model.named_parameters()
        return [weight for name, weight in named if self.family.component_of(name)[0] not in components]


class Log:
    """The training curve: one row every `EVERY` steps, kept for the CSV and logged as it comes."""

    EVERY = 50

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = {"rows": [], "sums": {}, "count": 0} if state is None else state
        self.rows: list[dict[str, Any]] = state["rows"]
        self.sums: dict[str, float] = state["sums"]
        self.count: int = state["count"]
        self.started = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return what another log goes on from."""
        return {"rows": self.rows, "sums": self.sums, "count": self.count}

    def add(self, stage: str, step: int, steps: int, rate: float, **values: float) -> None:
        """Count what a step measured."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if (step + 1) % self.EVERY == 0 or step + 1 == steps:
            means = {name: round(total / self.count, 5) for name, total in self.sums.items()}
            self.rows.append({"stage": stage, "step": step + 1, "rate": round(rate, 7), **means})
            elapsed = time.monotonic() - self.started
            logger.info("%s %d/%d %s (%.0f s)", stage, step + 1, steps, means, elapsed)
            self.sums, self.count = {}, 0

    def write(self, path: Path) -> None:
        """Write the curve as CSV; a cell is empty where a stage does not measure what its column says."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with open(path, "w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


@dataclass(frozen=True)
class Stage:
    """A part of the training, with an optimizer and an order of the images of its own.

    Attributes
    ----------
    name : str
    steps : int
    batch : int
        Images a step.
    rate : callable
        Takes the step and returns its learning rate.
    stream : int
        Number of the stage's random generator.
    modules : dict of str to Module
        What has weights, by the names under which a checkpoint keeps them.
    trained : list of Parameter
    loss : callable
        Takes the step, the rows of its images and the generator, and returns the loss and what else the training curve
        shows.
    """

    name: str
    steps: int
    batch: int
    rate: Callable[[int], float]
    stream: int
    modules: dict[str, nn.Module]
    trained: list[nn.Parameter]
    loss: Loss


@dataclass(frozen=True)
class Run:
    """One training: how it goes, its curve and its last checkpoint."""

    settings: TrainingSettings
    log: Log
    checkpoints: Checkpoints

    def train(self, stage: Stage) -> None:
        """Train for one stage, or for what an earlier process left of it."""
        settings, checkpoints = self.settings, self.checkpoints
        if checkpoints.is_past(stage.name):
            return
        rng = np.random.default_rng([settings.seed, stage.stream])
        optimizer, order = _optimizer(stage.trained, settings), Order(settings.images, stage.batch, rng)
        state = TrainingState(stage.modules, stage.trained, optimizer, order, rng)
        with _learning(stage.modules.values(), stage.trained):
            for step in range(checkpoints.resume(stage.name, state), stage.steps):
                rows = order.following()
                rate = stage.rate(step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss, measured = stage.loss(step, rows, rng)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(stage.trained, 1.0)
                optimizer.step()
                values = {name: float(value) for name, value in measured.items()}
                self.log.add(stage.name, step, stage.steps, rate, loss=float(loss.detach()), **values)
                checkpoints.after(stage.name, step + 1, stage.steps, state, self.log.state())


@dataclass(frozen=True)
class Purpose:
    """What a model learns once it knows what stands in each cell of a scene.

    Attributes
    ----------
    corpus : callable
        Takes the training set and the spec, and yields text for the tokenizer.
    stages : callable
        Takes the settings and returns the names of the stages in their order.
    train : callable
        Takes the learner, the training set and the run, and trains for all these stages.
    """

    corpus: Callable[[TrainingSet, EmbeddedSpec], Iterator[str]]
    stages: Callable[[TrainingSettings], tuple[str, ...]]
    train: Callable[[Learner, TrainingSet, Run], None]


@contextmanager
def _learning(modules: Collection[nn.Module], trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let some weights of modules learn, and no others."""
    learners = {*map(id, trained)}
    for module in modules:
        module.train()
        for weight in module.parameters():
            weight.requires_grad_(id(weight) in learners)
    yield
    for module in modules:
        module.eval()
        module.requires_grad_()


def _optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))
