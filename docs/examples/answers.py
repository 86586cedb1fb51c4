"""AWQ's search for scales, in which only the error of answer tokens counts."""

from torch import Tensor

from quantrust.models.family import Role
from quantrust.quantization.methods import rtn
from quantrust.quantization.walks.scale_searching import ByRole, ScaleSearching


def token_weights(roles: Tensor) -> Tensor:
    """Return what the error of each token counts, given the roles of the tokens."""
    return (roles == Role.ANSWER).float()


METHOD = ScaleSearching(
    name="answers",
    label="Answers only",
    error="mse",
    weighing=ByRole(token_weights),
    rounding=rtn.METHOD,
)
