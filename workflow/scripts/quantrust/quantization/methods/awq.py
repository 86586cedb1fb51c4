"""Activation-aware weight quantization (AWQ; Lin et al., MLSys 2024): squared errors, every token counting the same."""

from torch import Tensor

from quantrust.models.family import Role
from quantrust.quantization.methods import rtn
from quantrust.quantization.walks.scale_searching import ByRole, ScaleSearching


def token_weights(roles: Tensor) -> Tensor:
    """Return what the error of each token counts: 1, or 0 for padding.

    Parameters
    ----------
    roles : Tensor, int8, shape (tokens,)
        Values of `Role`.

    Returns
    -------
    Tensor, float32, shape (tokens,)
    """
    return (roles != Role.PAD).float()


METHOD = ScaleSearching(
    name="awq",
    label="AWQ",
    colour="#8C6D1F",
    marker="D",
    error="mse",
    weighing=ByRole(token_weights),
    rounding=rtn.METHOD,
)
