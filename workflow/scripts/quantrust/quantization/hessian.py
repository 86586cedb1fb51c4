"""The Hessian of a linear layer's squared output error: the sum of x x^T over its inputs."""

import torch
from torch import Tensor

SUMMED_COLUMNS = 1024
"""Columns of the Hessian that are summed in one product, from their first row on the diagonal on."""


class HessianSum:
    """The sum of x x^T over the inputs of a linear layer, micro-batch by micro-batch.

    It is symmetric, so that little more than one half is summed, and mirrored in the end.

    Parameters
    ----------
    columns : int
        Input channels.
    device : torch.device or str
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        self._matrix = torch.zeros(columns, columns, dtype=torch.float32, device=device)

    def add(self, inputs: Tensor) -> None:
        """Add inputs, shape (tokens, in)."""
        inputs = inputs.float()
        for start in range(0, len(self._matrix), SUMMED_COLUMNS):
            rows = self._matrix[start : start + SUMMED_COLUMNS, start:]
            rows.addmm_(inputs[:, start : start + SUMMED_COLUMNS].t(), inputs[:, start:])

    def take(self) -> Tensor:
        """Return the matrix, which may hold gigabytes, and keep nothing of it."""
        matrix = self._matrix
        del self._matrix
        for start in range(0, len(matrix), SUMMED_COLUMNS):
            stop = start + SUMMED_COLUMNS
            matrix[stop:, start:stop] = matrix[start:stop, stop:].t()
        return matrix
