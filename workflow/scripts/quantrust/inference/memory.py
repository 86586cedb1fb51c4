"""Batches that do not fit the memory of the device are halved."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from quantrust.errors import QuantrustError

Result = TypeVar("Result")

LACKING = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""What other errors than `torch.OutOfMemoryError` say: those of CUDA's libraries, and of the CPU's allocator."""


class Halving:
    """Does the work of a batch, or of its halves if it does not fit.

    Every batch starts whole, so whether it is halved does not depend on earlier batches.

    Attributes
    ----------
    count : int
        Batches and parts of batches that were halved.
    """

    def __init__(self) -> None:
        self.count = 0

    def run(
        self,
        work: Callable[[list[int]], Result],
        places: list[int],
        where: str,
        unit: str,
        name: Callable[[int], str],
    ) -> Iterator[tuple[list[int], Result]]:
        """Yield the results of parts of a batch, in its order.

        Parameters
        ----------
        work : callable
            Maps places to a result; raises `torch.OutOfMemoryError`, or another error that says so, where they are too
            many.
        places : list of int
            The batch.
        where : str
            The batch's place, for the log.
        unit : str
            What it is a batch of, in the plural.
        name : callable
            Names one place in an error.

        Yields
        ------
        part : list of int
        result : object
            Of `work`.

        Raises
        ------
        QuantrustError
            If one place alone does not fit.
        """
        waiting = [places]
        while waiting:
            part = waiting.pop()
            try:
                result = work(part)
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and not any(word in str(error) for word in LACKING):
                    raise
                # Only its text is kept: the traceback holds the tensors that filled the memory.
                reason = str(error).split("\n")[0]
            else:
                yield part, result
                continue
            torch.cuda.empty_cache()
            if len(part) == 1:
                raise QuantrustError(
                    f"{name(part[0])} does not fit the memory of the device alone ({reason}); let the model's "
                    "processor make smaller pictures, hold fewer of them (features.images_per_chunk), or take a larger "
                    "device"
                )
            self.count += 1
            half = (len(part) + 1) // 2
            logging.getLogger(__name__).warning(
                "%s: %d %s do not fit the memory of the device and are halved (%s)", where, len(part), unit, reason
            )
            waiting += [part[half:], part[:half]]
