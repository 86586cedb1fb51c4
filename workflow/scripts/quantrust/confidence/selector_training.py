"""Training of the Selectors of a variant (`quantrust.confidence.selector`).

The same features give the same networks on every processor. In float32 one rounds otherwise than another, which is
enough for another epoch to have the least area on val: all is computed in float64, and the weights that come of it are
stored as float32. What is random is drawn by NumPy: torch rounds first weights by what instructions there are, and
drops other units on Intel's processors than on AMD's.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.adamw import adamw

from quantrust.artifacts.folders import artifact_folder
from quantrust.artifacts.tables import scan_table
from quantrust.confidence.selector import (
    INPUTS,
    PLAIN,
    RECORD,
    RESIDUAL,
    WEIGHTS,
    log_odds,
    selector_inputs,
)
from quantrust.errors import QuantrustError
from quantrust.files import write_json
from quantrust.inference.features_file import read_slices
from quantrust.tensor_file import write_tensors

ROWS_AT_ONCE = 1 << 10
"""Questions whose moments are summed, and that a network is judged on, at a time, in float64."""


@dataclass(frozen=True)
class SelectorSettings:
    """Settings of the training of Selectors; the config's `selector` section.

    Attributes
    ----------
    hidden : int
        Units in each of the two hidden layers.
    dropout : float in [0, 1)
    learning_rate, weight_decay : float
        Of AdamW.
    batch_size : int
    epochs : int
        Upper limit; the epoch with the least area under the risk-coverage curve on val is kept.
    patience : int
        Epochs without improvement after which training ends.
    members : int
        Networks, differing in their seeds. `selector` is the first one, `selector-ensemble` the mean of all.
        `selector-residual` is the first of as many networks of its own.
    seed : int
        From which those of the networks are drawn; no two networks of different seeds have the same.
    """

    hidden: int = 64
    dropout: float = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 256
    epochs: int = 60
    patience: int = 12
    members: int = 5
    seed: int = 0


class Dropout(nn.Module):
    """Drops units in training like `torch.nn.Dropout`, the same ones on every processor.

    Parameters
    ----------
    share : float in [0, 1)
        Of the units.
    rng : numpy.random.Generator, optional
        Without one no units can be dropped.
    """

    def __init__(self, share: float, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.share = share
        self.rng = rng

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Return the units as they are, or in training zeros and the others times 1 / (1 - share)."""
        if not self.training or self.share == 0:
            return units
        if self.rng is None:
            raise ValueError("a Selector without a generator cannot be trained")
        # as float64: a product with bool takes three times as long
        kept = torch.from_numpy((self.rng.random(units.shape) >= self.share).astype(np.float64))
        return (units * kept).div_(1 - self.share)


class Selector(nn.Module):
    """The network of `quantrust.confidence.selector.Network`, as it is trained.

    Parameters
    ----------
    inputs, hidden : int
    dropout : float
    rng : numpy.random.Generator, optional
        Draws the first weights, uniformly like `torch.nn.Linear`, and the units to drop. Without one the network is not
        for training; its weights are zeros until they are loaded.
    """

    def __init__(self, inputs: int, hidden: int, dropout: float, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.layers = nn.Sequential(
            Dropout(dropout / 2, rng),
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            Dropout(dropout, rng),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(dropout, rng),
            nn.Linear(hidden, 1),
        )
        self.double()
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        if rng is not None:
            self._draw(rng)

    @torch.no_grad()
    def _draw(self, rng: np.random.Generator) -> None:
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                for parameter in (layer.weight, layer.bias):
                    parameter.copy_(torch.from_numpy(rng.uniform(-bound, bound, parameter.shape)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs of shape (batch, inputs), of any float dtype, to float64 outputs of shape (batch,)."""
        standardised = inputs.to(torch.float64, copy=True).sub_(self.mean).div_(self.deviation)
        return self.layers(standardised).squeeze(-1)


@dataclass(frozen=True)
class _Questions:
    """A network's inputs (float32), MaxProb's log-odds, and the quality to train on (float64)."""

    inputs: torch.Tensor
    log_odds: torch.Tensor
    quality: torch.Tensor


def _area_under_risk_coverage(confidence: np.ndarray, quality: np.ndarray) -> float:
    """Area for choosing an epoch: mean risk over all coverages, ties in row order."""
    risk = 1 - quality[np.argsort(-confidence, kind="stable")]
    return float(np.mean(np.cumsum(risk) / np.arange(1, len(risk) + 1)))


def _train_network(
    train: _Questions, val: _Questions, settings: SelectorSettings, member: int, *, residual: bool = False
) -> tuple[Selector, list[dict[str, float | None]]]:
    """Train one network; return the best epoch's and the curve.

    With `residual` the output is added to MaxProb's log-odds. It then begins at zero everywhere, which is MaxProb
    itself and stands in the curve as epoch 0: no epoch that is worse on val is kept.
    """
    # Of both numbers together: counted up from the seed, members of one would be members of the next.
    rng = np.random.default_rng([settings.seed, member])
    network = Selector(train.inputs.shape[1], settings.hidden, settings.dropout, rng)
    mean, deviation = _moments(train.inputs)
    network.mean.copy_(mean)
    network.deviation.copy_(deviation.clamp_min(1e-3))
    offset = train.log_odds if residual else torch.zeros_like(train.log_odds)

    def area() -> float:
        confidence = _confidence(network, val.inputs, val.log_odds if residual else None)
        return _area_under_risk_coverage(confidence, val.quality.numpy())

    best, best_epoch, curve = float("inf"), 0, []
    if residual:
        output = network.layers[-1]
        torch.nn.init.zeros_(output.weight)
        torch.nn.init.zeros_(output.bias)
        best = area()
        curve.append({"epoch": 0, "train_loss": None, "val_aurc": best})
    best_state = copy.deepcopy(network.state_dict())
    step = _adamw(list(network.parameters()), settings)
    for epoch in range(1, settings.epochs + 1):
        network.train()
        total = 0.0
        for rows in torch.from_numpy(rng.permutation(len(train.inputs))).split(settings.batch_size):
            logits = network(train.inputs[rows]) + offset[rows]
            loss = F.binary_cross_entropy_with_logits(logits, train.quality[rows])
            step(loss)
            total += float(loss.detach()) * len(rows)
        found = area()
        curve.append({"epoch": epoch, "train_loss": total / len(train.inputs), "val_aurc": found})
        if found < best:
            best, best_epoch, best_state = found, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(best_state)
    return network, curve


def _adamw(parameters: list[nn.Parameter], settings: SelectorSettings) -> Callable[[torch.Tensor], None]:
    """Return what moves parameters against the gradient of a loss, as `torch.optim.AdamW` does.

    The optimizer itself imports torch's compiler, which takes longer than training a network.
    """
    means, squares = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    steps = [torch.zeros(()) for _ in parameters]

    def step(loss: torch.Tensor) -> None:
        gradients = list(torch.autograd.grad(loss, parameters))
        with torch.no_grad():
            adamw(
                parameters,
                gradients,
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                maximize=False,
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
            )

    return step


def _moments(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each input in float64, a slice of the rows at a time."""
    mean = sum(rows.double().sum(dim=0) for rows in inputs.split(ROWS_AT_ONCE)) / len(inputs)
    squares = sum((rows.double() - mean).square().sum(dim=0) for rows in inputs.split(ROWS_AT_ONCE))
    return mean, (squares / max(1, len(inputs) - 1)).sqrt()


@torch.no_grad()
def _confidence(network: Selector, inputs: torch.Tensor, offset: torch.Tensor | None = None) -> np.ndarray:
    """Return the confidence of a network, float64 in [0, 1], shape (rows,)."""
    network.eval()
    outputs = torch.cat([network(rows) for rows in inputs.split(ROWS_AT_ONCE)])
    return torch.sigmoid(outputs if offset is None else outputs + offset).numpy()


def dev_images(images: Sequence[str], labels: int, seed: int) -> set[str]:
    """Draw the images of a part of dev: the fewest, in a random order, that have so many questions.

    Of the same seed a larger part contains a smaller one.

    Parameters
    ----------
    images : sequence of str
        The image of each question.
    labels : int
        Questions, at least 1.
    seed : int
        Of the Selector.

    Raises
    ------
    QuantrustError
        If there are fewer questions.
    """
    if labels > len(images):
        raise QuantrustError(
            f"dev has {len(images):,} questions, but selector.learning_curve asks for {labels:,}; expected numbers up "
            "to that of dev"
        )
    counts = Counter(images)
    # Of three numbers, so that it is the generator of no network.
    order = np.random.default_rng([seed, 0, 1]).permutation(sorted(counts)).tolist()
    needed = int(np.searchsorted(np.cumsum([counts[image] for image in order]), labels)) + 1
    return set(order[:needed])


def _part_of_dev(path: str | Path, labels: int, seed: int) -> pl.Expr:
    """Return whether a row is in a part of dev, or in no split that a part is taken of."""
    in_dev = pl.col("split") == "dev"
    images = scan_table(path).filter(in_dev).select("image_id").collect()["image_id"].to_list()
    return ~in_dev | pl.col("image_id").is_in(list(dev_images(images, labels, seed)))


def _read_splits(path: str | Path, *splits: str, wanted: pl.Expr | None = None) -> list[_Questions]:
    """Read the questions of splits, a slice of the file at a time into the places that they take in the end."""
    wanted = pl.lit(True) if wanted is None else wanted
    counts = dict(scan_table(path).filter(wanted).group_by("split").len().collect().iter_rows())
    for split in splits:
        if split not in counts:
            raise QuantrustError(
                f"{path} holds no questions of split {split!r}, which the Selector needs; check the dataset's splits"
            )
    width = selector_inputs(scan_table(path).select(INPUTS).head(1).collect()).shape[1]
    found = {
        split: _Questions(
            torch.empty(counts[split], width),
            torch.empty(counts[split], dtype=torch.float64),
            torch.empty(counts[split], dtype=torch.float64),
        )
        for split in splits
    }
    starts = dict.fromkeys(splits, 0)
    for features in read_slices(path, [*INPUTS, "quality", "split", "image_id"]):
        for split, questions in found.items():
            rows = features.filter(pl.col("split") == split, wanted)
            places = slice(starts[split], starts[split] + rows.height)
            starts[split] = places.stop
            questions.inputs[places] = torch.from_numpy(selector_inputs(rows))
            questions.log_odds[places] = torch.from_numpy(log_odds(rows))
            questions.quality[places] = torch.from_numpy(rows["quality"].to_numpy().astype(np.float64))
    return list(found.values())


def train_selector(
    features_path: str | Path, out_dir: str | Path, settings: SelectorSettings, labels: int | None = None
) -> None:
    """Train the Selectors of one variant on dev, choosing epochs on val.

    Parameters
    ----------
    features_path : str or Path
        Features of the in-distribution dataset, with the splits `dev` and `val`.
    out_dir : str or Path
        Gets `selector.safetensors` (all members) and `selector.json` (settings, curves).
    settings : SelectorSettings
    labels : int, optional
        Train on a part of dev that has at least so many questions; see `dev_images`. By default on all.

    Raises
    ------
    QuantrustError
        If either split is empty, or dev has fewer questions than `labels`.
    """
    wanted = None if labels is None else _part_of_dev(features_path, labels, settings.seed)
    train, val = _read_splits(features_path, "dev", "val", wanted=wanted)
    trained, residuals = (
        [_train_network(train, val, settings, member, residual=residual) for member in range(settings.members)]
        for residual in (False, True)
    )
    networks = {
        f"{kind}-{member}": network
        for kind, found in ((PLAIN, trained), (RESIDUAL, residuals))
        for member, (network, _) in enumerate(found)
    }
    with artifact_folder(out_dir) as folder:
        tensors = {
            f"{name}.{key}": value.float()
            for name, network in networks.items()
            for key, value in network.state_dict().items()
        }
        write_tensors(folder / WEIGHTS, tensors)
        write_json(
            folder / RECORD,
            {
                "inputs": train.inputs.shape[1],
                "settings": asdict(settings),
                "train_questions": len(train.quality),
                "val_questions": len(val.quality),
                "curves": [curve for _, curve in trained],
                "residual_curves": [curve for _, curve in residuals],
            },
        )
