"""The Selector: a learned estimate of an answer's quality (Whitehead et al., ECCV 2022, section 4).

An MLP with two hidden layers reads the max-pooled image and question states, the state that produces the first answer
token, and the joint answer probability, and is trained by binary cross-entropy on the quality. One Selector
belongs to one variant. Inputs are standardised with the training questions' moments, which are stored with the weights.

`selector-residual` is this project's own and not the paper's: the same network, whose output is added to MaxProb's
log-odds before the sigmoid. It starts as MaxProb and learns only what to correct, so that little data cannot make it
forget what MaxProb knows.

Here networks are applied, without torch, which takes longer to import than they take to score a study's questions.
`quantrust.confidence.selector_training` trains them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import safe_open

from quantrust.artifacts.folder_record import check_folder
from quantrust.confidence.catalogue import member_name
from quantrust.errors import QuantrustError

STATES = ("image_state", "question_state", "answer_state")
INPUTS = (*STATES, "joint_log_prob")
"""Columns of a features file that the networks read."""
WEIGHTS = "selector.safetensors"
RECORD = "selector.json"
PLAIN, RESIDUAL = "plain", "residual"
"""What the names of the networks in the file begin with."""
LINEARS = ("layers.1", "layers.4", "layers.7")
"""The linears of a network by their names in the file; what drops units in training lies between them."""
ROWS_AT_ONCE = 1 << 6
"""Questions that a network is applied to at a time, in float64. Fewer are filled up: how a product is summed depends on
its size, and an answer alone is to have the confidence that it has among others.
"""
LARGEST_LOG_PROBABILITY = -(2.0**-26)
"""Of an answer whose float32 probability rounds to 1; its log-odds are 18."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """Two hidden layers over standardised inputs, in float64; the output is a logit, or an addition to one.

    Attributes
    ----------
    mean, deviation : ndarray of float64, shape (inputs,)
    linears : tuple of (ndarray of float64, ndarray of float64)
        Weight, shape (outputs, inputs), and bias, shape (outputs,), of each of the three.
    """

    mean: Floats
    deviation: Floats
    linears: tuple[tuple[Floats, Floats], ...]

    def __call__(self, inputs: NDArray[np.float32]) -> Floats:
        """Map inputs of shape (rows, inputs) to outputs of shape (rows,)."""
        outputs = np.empty(len(inputs))
        for first in range(0, len(inputs), ROWS_AT_ONCE):
            rows = inputs[first : first + ROWS_AT_ONCE]
            filled = np.zeros((ROWS_AT_ONCE, self.mean.size))
            filled[: len(rows)] = rows
            outputs[first : first + len(rows)] = self._outputs(filled)[: len(rows)]
        return outputs

    def _outputs(self, inputs: Floats) -> Floats:
        *hidden, (weight, bias) = self.linears
        units = (inputs - self.mean) / self.deviation
        for hidden_weight, hidden_bias in hidden:
            units = np.maximum(units @ hidden_weight.T + hidden_bias, 0.0)
        return (units @ weight.T + bias)[:, 0]


@dataclass(frozen=True)
class Selectors:
    """The trained networks of one variant.

    Attributes
    ----------
    members : list of Network
        The first is `selector`; their mean is `selector-ensemble`.
    residuals : list of Network
        Networks whose output is added to MaxProb's log-odds; with the first, that is `selector-residual`.
    """

    members: list[Network]
    residuals: list[Network]


def selector_inputs(features: pl.DataFrame) -> NDArray[np.float32]:
    """Return the inputs of features rows, shape (rows, 3 * hidden + 1)."""
    states = [features[name].to_numpy().astype(np.float32) for name in STATES]
    probability = np.exp(features["joint_log_prob"].to_numpy().astype(np.float64)).astype(np.float32)
    return np.concatenate([*states, probability[:, None]], axis=1)


def log_odds(features: pl.DataFrame) -> Floats:
    """Return the log-odds of MaxProb, shape (rows,); where it is 1, those of the nearest probability below."""
    log_probability = np.minimum(features["joint_log_prob"].to_numpy().astype(np.float64), LARGEST_LOG_PROBABILITY)
    return log_probability - np.log(-np.expm1(log_probability))


def load_selector(folder: str | Path) -> Selectors:
    """Load the networks of a trained Selector; fails on any damage and any missing or unexpected weight."""
    check_folder(folder)
    path = Path(folder) / WEIGHTS
    with safe_open(path, framework="np") as handle:
        tensors = {name: handle.get_tensor(name).astype(np.float64) for name in handle.keys()}  # noqa: SIM118 - no dict
    count = max(1, len({name.split(".", 1)[0] for name in tensors}) // 2)
    names = [f"{kind}-{member}" for kind in (PLAIN, RESIDUAL) for member in range(count)]
    parts = ("mean", "deviation", *(f"{linear}.{part}" for linear in LINEARS for part in ("weight", "bias")))
    if wrong := tensors.keys() ^ {f"{name}.{part}" for name in names for part in parts}:
        raise QuantrustError(f"{path}: weights are missing or unexpected: {', '.join(sorted(wrong))}; train it again")

    def network(name: str) -> Network:
        mean, deviation = (tensors[f"{name}.{part}"] for part in ("mean", "deviation"))
        linears = [(tensors[f"{name}.{linear}.weight"], tensors[f"{name}.{linear}.bias"]) for linear in LINEARS]
        sizes = [mean.size, *(bias.size for _, bias in linears)]
        fits = mean.shape == deviation.shape == (sizes[0],) and sizes[-1] == 1
        for (weight, bias), inputs, outputs in zip(linears, sizes[:-1], sizes[1:], strict=True):
            fits = fits and weight.shape == (outputs, inputs) and bias.shape == (outputs,)
        if not fits:
            raise QuantrustError(f"{path}: the weights of {name} do not fit together; train it again")
        return Network(mean, deviation, tuple(linears))

    networks = [network(name) for name in names]
    return Selectors(networks[:count], networks[count:])


def selector_confidence(selectors: Selectors, features: pl.DataFrame) -> dict[str, Floats]:
    """Return a confidence column for each of `quantrust.confidence.catalogue.LEARNED` and for each member."""
    inputs, offset = selector_inputs(features), log_odds(features)
    members = [_sigmoid(network(inputs)) for network in selectors.members]
    residuals = [_sigmoid(network(inputs) + offset) for network in selectors.residuals]
    return {
        "selector-ensemble": np.mean(members, axis=0),
        **{member_name("selector", member): column for member, column in enumerate(members)},
        **{member_name("selector-residual", member): column for member, column in enumerate(residuals)},
    }


def _sigmoid(logits: Floats) -> Floats:
    # of the logit of a confidence that rounds to 0 the exponential is infinite
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-logits))
