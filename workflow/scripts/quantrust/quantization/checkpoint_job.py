"""The job of a checkpoint, which imports what quantizes a model only if nobody has made it yet."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from quantrust.artifacts.made_early import LONGEST, make_with_others
from quantrust.quantization.early_checkpoint import EarlyCheckpoint

if TYPE_CHECKING:
    from quantrust.quantization.layer_writer import KeptWork

KEPT_LAYERS = 1 << 28
"""Bytes of the quantized layers of a model that are kept for the schemes that follow."""


def quantize_schemes(
    own: EarlyCheckpoint,
    others: Callable[[], Iterable[EarlyCheckpoint]],
    *,
    activation_bytes: int | None = None,
    longest: float = LONGEST,
) -> None:
    """Put a checkpoint in its place, made early or now, and go on with others of the same model.

    Each is, byte for byte, what `quantrust.quantization.quantize.quantize_model` writes.

    Parameters
    ----------
    own, others, longest
        As `quantrust.artifacts.made_early.make_with_others` takes them.
    activation_bytes : int or None
        As in `quantize_model`.

    Raises
    ------
    QuantrustError
        As `quantize_model` does, of the own scheme. What is wrong with another one is logged; its own job will say it.
    """

    kept: dict[str, KeptWork] = {}

    def make(checkpoint: EarlyCheckpoint, folder: str | Path) -> None:
        # what quantizes a model takes seconds to import
        from quantrust.models.device_memory import free_device_memory
        from quantrust.quantization.layer_writer import KeptWork
        from quantrust.quantization.quantize import quantize_model
        from quantrust.quantization.scheme import resolve_scheme

        free_device_memory()
        # the memory of a GPU is counted beforehand, and kept layers are not
        limit = KEPT_LAYERS if checkpoint.given["device"] == "cpu" else 0
        quantize_model(
            checkpoint.model,
            resolve_scheme(checkpoint.scheme, checkpoint.given["table"]),
            checkpoint.calibration,
            folder,
            checkpoint.given["device"],
            activation_bytes,
            kept.setdefault(checkpoint.reads(), KeptWork(limit)),
        )

    make_with_others(own, others, make, longest)
