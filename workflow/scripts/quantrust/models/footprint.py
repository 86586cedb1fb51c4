"""What an estimate of a job's memory consists of, and what every such estimate adds for libraries and the allocator."""

from dataclasses import dataclass

SLACK = 1.1
"""What an allocator loses between blocks."""

LIBRARIES = 600_000_000
"""Of a process that has loaded what computes, in host memory."""

CUDA_LIBRARIES = 3_000_000_000
"""Of one that computes on a GPU, in host memory. A guess: no GPU was at hand."""


@dataclass(frozen=True)
class Footprint:
    """Estimated peaks of a job, bytes.

    Attributes
    ----------
    device : int
        On a GPU; 0 for a job on the CPU.
    least : int
        The same with batches of one, to which a batch that does not fit is halved in the end.
    host : int
    scratch : int
        In files that are deleted at the end.
    """

    device: int
    least: int
    host: int
    scratch: int = 0
