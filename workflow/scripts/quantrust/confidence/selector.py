"""The Selector: a learned estimate of an answer's soft accuracy (Whitehead et al., ECCV 2022, section 4).

An MLP with two hidden layers reads the max-pooled image and question states, the state that produces the first answer
token, and the joint answer probability, and is trained by binary cross-entropy on the soft accuracy. One Selector
belongs to one variant. Inputs are standardised with the training questions' moments, which are stored with the weights.

`selector-residual` is this project's own and not the paper's: the same network, whose output is added to MaxProb's
log-odds before the sigmoid. It starts as MaxProb and learns only what to correct, so that little data can not make it
forget what MaxProb knows.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from quantrust.artifacts.tables import scan_table
from quantrust.errors import QuantrustError
from quantrust.files import atomic_directory, write_json
from quantrust.inference.features_file import read_slices
from quantrust.tensor_file import write_tensors

STATES = ("image_state", "question_state", "answer_state")
INPUTS = (*STATES, "joint_log_prob")
"""Columns of a features file that the networks read."""
WEIGHTS = "selector.safetensors"
RECORD = "selector.json"
RESIDUAL = "residual"
LARGEST_LOG_PROBABILITY = -(2.0**-26)
"""Of an answer whose float32 probability rounds to 1; its log-odds are 18."""


@dataclass(frozen=True)
class SelectorSettings:
    """How Selectors are trained; the config's `selector` section.

    Attributes
    ----------
    hidden : int
        Width of both hidden layers.
    dropout : float in [0, 1)
    learning_rate, weight_decay : float
        Of AdamW.
    batch_size : int
    epochs : int
        Upper limit; the epoch with the least area under the risk-coverage curve on val is kept.
    patience : int
        Epochs without improvement after which training ends.
    members : int
        Networks, differing in their seeds. `selector` is the first one, `selector-ensemble` the mean of all. The
        network of `selector-residual` is one more.
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
    members: int = 3
    seed: int = 0


class Selector(nn.Module):
    """Two hidden layers over standardised inputs; the output is a logit, or what is added to one.

    Parameters
    ----------
    inputs, hidden : int
    dropout : float
    """

    def __init__(self, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.layers = nn.Sequential(
            nn.Dropout(dropout / 2),
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs) to outputs of shape (batch,)."""
        return self.layers((inputs - self.mean) / self.deviation).squeeze(-1)


@dataclass(frozen=True)
class Selectors:
    """The trained networks of one variant.

    Attributes
    ----------
    members : list of Selector
        The first is `selector`; their mean is `selector-ensemble`.
    residual : Selector
        What `selector-residual` adds to MaxProb's log-odds.
    """

    members: list[Selector]
    residual: Selector


@dataclass(frozen=True)
class _Questions:
    """What a network reads, MaxProb's log-odds (float64), and the soft accuracy that it is trained on."""

    inputs: torch.Tensor
    log_odds: torch.Tensor
    accuracy: torch.Tensor


def selector_inputs(features: pl.DataFrame) -> torch.Tensor:
    """Return the inputs of features rows, float32, shape (rows, 3 * hidden + 1)."""
    states = [torch.from_numpy(features[name].to_numpy().astype(np.float32)) for name in STATES]
    probability = torch.from_numpy(np.exp(features["joint_log_prob"].to_numpy().astype(np.float32)))
    return torch.cat([*states, probability[:, None]], dim=1)


def log_odds(features: pl.DataFrame) -> torch.Tensor:
    """Return the log-odds of MaxProb, float64, shape (rows,); where it is 1, those of the nearest probability below."""
    log_probability = torch.from_numpy(features["joint_log_prob"].to_numpy().astype(np.float64))
    log_probability = log_probability.clamp_max(LARGEST_LOG_PROBABILITY)
    return log_probability - torch.log(-torch.expm1(log_probability))


def _area_under_risk_coverage(confidence: np.ndarray, accuracy: np.ndarray) -> float:
    """Area for choosing an epoch: mean risk over all coverages, ties in row order."""
    risk = 1 - accuracy[np.argsort(-confidence, kind="stable")]
    return float(np.mean(np.cumsum(risk) / np.arange(1, len(risk) + 1)))


def _train_network(
    train: _Questions, val: _Questions, settings: SelectorSettings, member: int, *, residual: bool = False
) -> tuple[Selector, list[dict[str, float | None]]]:
    """Train one network; return the best epoch's and the curve.

    With `residual` the output is added to MaxProb's log-odds. It then begins at zero everywhere, which is MaxProb
    itself and stands in the curve as epoch 0: no epoch that is worse on val is kept.
    """
    # Of both numbers together: counted up from the seed, members of one would be members of the next.
    (seed,) = np.random.SeedSequence([settings.seed, member]).generate_state(1).tolist()
    torch.manual_seed(seed)
    network = Selector(train.inputs.shape[1], settings.hidden, settings.dropout)
    network.mean.copy_(train.inputs.mean(dim=0))
    network.deviation.copy_(train.inputs.std(dim=0).clamp_min(1e-3))
    offset = train.log_odds.float() if residual else torch.zeros(len(train.inputs))

    def area() -> float:
        confidence = _confidence([network], val.inputs, val.log_odds if residual else None)
        return _area_under_risk_coverage(confidence, val.accuracy.numpy())

    best, best_epoch, curve = float("inf"), 0, []
    if residual:
        output = network.layers[-1]
        torch.nn.init.zeros_(output.weight)
        torch.nn.init.zeros_(output.bias)
        best = area()
        curve.append({"epoch": 0, "train_loss": None, "val_aurc": best})
    best_state = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, settings.epochs + 1):
        network.train()
        total = 0.0
        for rows in torch.randperm(len(train.inputs), generator=generator).split(settings.batch_size):
            logits = network(train.inputs[rows]) + offset[rows]
            loss = F.binary_cross_entropy_with_logits(logits, train.accuracy[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        found = area()
        curve.append({"epoch": epoch, "train_loss": total / len(train.inputs), "val_aurc": found})
        if found < best:
            best, best_epoch, best_state = found, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(best_state)
    return network, curve


@torch.no_grad()
def _confidence(networks: Sequence[Selector], inputs: torch.Tensor, offset: torch.Tensor | None = None) -> np.ndarray:
    """Return the mean confidence of the networks, float64 in [0, 1], shape (rows,)."""
    for network in networks:
        network.eval()
    # In float64, in which far fewer sure answers tie at exactly 1.
    outputs = [network(inputs).double() for network in networks]
    return torch.stack([torch.sigmoid(o if offset is None else o + offset) for o in outputs]).mean(dim=0).numpy()


def _read_splits(path: str | Path, *splits: str) -> list[_Questions]:
    """Read the questions of splits, a slice of the file at a time into the places that they take in the end."""
    counts = dict(scan_table(path).group_by("split").len().collect().iter_rows())
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
            torch.empty(counts[split], dtype=torch.float32),
        )
        for split in splits
    }
    starts = dict.fromkeys(splits, 0)
    for features in read_slices(path, [*INPUTS, "accuracy", "split"]):
        for split, questions in found.items():
            rows = features.filter(pl.col("split") == split)
            places = slice(starts[split], starts[split] + rows.height)
            starts[split] = places.stop
            questions.inputs[places] = selector_inputs(rows)
            questions.log_odds[places] = log_odds(rows)
            questions.accuracy[places] = torch.from_numpy(rows["accuracy"].to_numpy().astype(np.float32))
    return list(found.values())


def train_selector(features_path: str | Path, out_dir: str | Path, settings: SelectorSettings) -> None:
    """Train the Selectors of one variant on dev, choosing epochs on val.

    Parameters
    ----------
    features_path : str or Path
        Features of the in-distribution dataset, with the splits `dev` and `val`.
    out_dir : str or Path
        Gets `selector.safetensors` (all members) and `selector.json` (settings, curves).
    settings : SelectorSettings

    Raises
    ------
    QuantrustError
        If either split is empty.
    """
    train, val = _read_splits(features_path, "dev", "val")
    trained = [_train_network(train, val, settings, member) for member in range(settings.members)]
    residual, residual_curve = _train_network(train, val, settings, 0, residual=True)
    networks = {str(member): network for member, (network, _) in enumerate(trained)} | {RESIDUAL: residual}
    with atomic_directory(out_dir) as folder:
        tensors = {
            f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
        }
        write_tensors(folder / WEIGHTS, tensors)
        write_json(
            folder / RECORD,
            {
                "inputs": train.inputs.shape[1],
                "settings": asdict(settings),
                "train_questions": len(train.accuracy),
                "val_questions": len(val.accuracy),
                "curves": [curve for _, curve in trained],
                "residual_curve": residual_curve,
            },
        )


def load_selector(folder: str | Path) -> Selectors:
    """Load the networks of a trained Selector; fails on any missing or unexpected weight."""
    with safe_open(Path(folder) / WEIGHTS, framework="pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
    states: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        network, key = name.split(".", 1)
        states.setdefault(network, {})[key] = value
    networks = {}
    for name, state in states.items():
        hidden, inputs = state["layers.1.weight"].shape
        network = Selector(inputs, hidden, dropout=0.0)
        network.load_state_dict(state, strict=True)
        networks[name] = network.eval()
    residual = networks.pop(RESIDUAL)
    return Selectors([networks[name] for name in sorted(networks, key=int)], residual)


def selector_confidence(selectors: Selectors, features: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return a confidence column for each of `quantrust.confidence.catalogue.LEARNED`, float64."""
    inputs = selector_inputs(features)
    return {
        "selector": _confidence(selectors.members[:1], inputs),
        "selector-ensemble": _confidence(selectors.members, inputs),
        "selector-residual": _confidence([selectors.residual], inputs, log_odds(features)),
    }
