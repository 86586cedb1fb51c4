"""The Selector: a learned estimate of an answer's soft accuracy (Whitehead et al., ECCV 2022, section 4).

An MLP with two hidden layers reads the max-pooled image and question states, the state that produces the first answer
token, and the joint answer probability, and is trained by binary cross-entropy on the soft accuracy. One Selector
belongs to one variant. Inputs are standardised with the training questions' moments, which are stored with the weights.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from quantrust.errors import QuantrustError
from quantrust.files import atomic_directory, write_json

STATES = ("image_state", "question_state", "answer_state")
WEIGHTS = "selector.safetensors"
RECORD = "selector.json"


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
        Networks, differing in their seeds. `selector` is the first one, `selector-ensemble` the mean of all.
    """

    hidden: int = 64
    dropout: float = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 256
    epochs: int = 60
    patience: int = 12
    members: int = 3


class Selector(nn.Module):
    """Two hidden layers over standardised inputs; the output is a logit.

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
        """Map (batch, inputs) to logits of shape (batch,)."""
        return self.layers((inputs - self.mean) / self.deviation).squeeze(-1)


def selector_inputs(features: pl.DataFrame) -> torch.Tensor:
    """Return the inputs of features rows, float32, shape (rows, 3 * hidden + 1)."""
    states = [torch.from_numpy(features[name].to_numpy().astype(np.float32)) for name in STATES]
    probability = torch.from_numpy(np.exp(features["joint_log_prob"].to_numpy().astype(np.float32)))
    return torch.cat([*states, probability[:, None]], dim=1)


def _area_under_risk_coverage(confidence: np.ndarray, accuracy: np.ndarray) -> float:
    """Area for choosing an epoch: mean risk over all coverages, ties in row order."""
    risk = 1 - accuracy[np.argsort(-confidence, kind="stable")]
    return float(np.mean(np.cumsum(risk) / np.arange(1, len(risk) + 1)))


def _train_member(
    train: tuple[torch.Tensor, torch.Tensor],
    val: tuple[torch.Tensor, torch.Tensor],
    settings: SelectorSettings,
    seed: int,
) -> tuple[Selector, list[dict[str, float]]]:
    """Train one network; return the best epoch's and the curve."""
    torch.manual_seed(seed)
    inputs, target = train
    network = Selector(inputs.shape[1], settings.hidden, settings.dropout)
    network.mean.copy_(inputs.mean(dim=0))
    network.deviation.copy_(inputs.std(dim=0).clamp_min(1e-3))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    best, best_epoch, best_state = float("inf"), 0, copy.deepcopy(network.state_dict())
    curve = []
    for epoch in range(1, settings.epochs + 1):
        network.train()
        total = 0.0
        for rows in torch.randperm(len(inputs), generator=generator).split(settings.batch_size):
            loss = F.binary_cross_entropy_with_logits(network(inputs[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        confidence = _confidence([network], val[0])
        area = _area_under_risk_coverage(confidence, val[1].numpy())
        curve.append({"epoch": epoch, "train_loss": total / len(inputs), "val_aurc": area})
        if area < best:
            best, best_epoch, best_state = area, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(best_state)
    return network, curve


@torch.no_grad()
def _confidence(networks: Sequence[Selector], inputs: torch.Tensor) -> np.ndarray:
    """Return the mean confidence of the networks, float64 in [0, 1], shape (rows,)."""
    for network in networks:
        network.eval()
    return torch.stack([torch.sigmoid(network(inputs)).double() for network in networks]).mean(dim=0).numpy()


def _split(features: pl.DataFrame, split: str, path: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    rows = features.filter(pl.col("split") == split)
    if rows.is_empty():
        raise QuantrustError(
            f"{path} holds no questions of split {split!r}, which the Selector needs; check the dataset's splits"
        )
    return selector_inputs(rows), torch.from_numpy(rows["accuracy"].to_numpy().astype(np.float32))


def train_selector(features_path: str | Path, out_dir: str | Path, settings: SelectorSettings, seed: int) -> None:
    """Train the Selectors of one variant on dev, choosing epochs on val.

    Parameters
    ----------
    features_path : str or Path
        Features of the in-distribution dataset, with the splits `dev` and `val`.
    out_dir : str or Path
        Gets `selector.safetensors` (all members) and `selector.json` (settings, seed, curves).
    settings : SelectorSettings
    seed : int

    Raises
    ------
    QuantrustError
        If either split is empty.
    """
    columns = [*STATES, "joint_log_prob", "accuracy", "split"]
    features = pl.read_parquet(features_path, columns=columns)
    train, val = _split(features, "dev", features_path), _split(features, "val", features_path)
    trained = [_train_member(train, val, settings, seed + member) for member in range(settings.members)]
    with atomic_directory(out_dir) as folder:
        tensors = {
            f"{member}.{name}": value.contiguous()
            for member, (network, _) in enumerate(trained)
            for name, value in network.state_dict().items()
        }
        save_file(tensors, folder / WEIGHTS)
        write_json(
            folder / RECORD,
            {
                "inputs": train[0].shape[1],
                "settings": asdict(settings),
                "seed": seed,
                "train_questions": len(train[1]),
                "val_questions": len(val[1]),
                "curves": [curve for _, curve in trained],
            },
        )


def load_selector(folder: str | Path) -> list[Selector]:
    """Load the members of a trained Selector; fails on any missing or unexpected weight."""
    with safe_open(Path(folder) / WEIGHTS, framework="pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
    members: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        member, key = name.split(".", 1)
        members.setdefault(int(member), {})[key] = value
    networks = []
    for _, state in sorted(members.items()):
        hidden, inputs = state["layers.1.weight"].shape
        network = Selector(inputs, hidden, dropout=0.0)
        network.load_state_dict(state, strict=True)
        networks.append(network.eval())
    return networks


def selector_confidence(networks: Sequence[Selector], features: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return the confidence columns `selector` (first member) and `selector-ensemble` (mean of all), float64."""
    inputs = selector_inputs(features)
    return {"selector": _confidence(networks[:1], inputs), "selector-ensemble": _confidence(networks, inputs)}
