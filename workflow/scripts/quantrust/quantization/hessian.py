"""The Hessian of a linear layer's squared output error: the sum of x x^T over its inputs."""

import torch
from torch import Tensor


class HessianSum:
    """The sum of x x^T over the inputs of a linear layer, micro-batch by micro-batch.

    Parameters
    ----------
    columns : int
        Input channels.
    device : torch.device or str
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        self.matrix = torch.zeros(columns, columns, dtype=torch.float32, device=device)

    def add(self, inputs: Tensor) -> None:
        """Add inputs, shape (tokens, in)."""
        inputs = inputs.float()
        self.matrix.addmm_(inputs.t(), inputs)

    def take(self) -> Tensor:
        """Return the matrix, which may hold gigabytes, and keep nothing of it."""
        matrix = self.matrix
        del self.matrix
        return matrix
