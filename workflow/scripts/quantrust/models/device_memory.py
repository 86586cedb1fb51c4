"""Whether a job fits on the GPU, found out before it starts."""

import gc

import torch

from quantrust.errors import QuantrustError


def free_device_memory() -> None:
    """Give back what models of this process have left on a GPU, which the driver would count as taken."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def require_device_memory(
    job: str, needed: int, device: str, advice: str, memory: tuple[int, int] | None = None
) -> None:
    """Raise when a GPU has less free memory than a job needs; the memory of a CPU is not looked at.

    Parameters
    ----------
    job : str
        What the message calls the job.
    needed : int
        Bytes that it takes at least, an estimate.
    device : str
        `cpu`, or `cuda` with or without an index.
    advice : str
        What to do.
    memory : tuple of int, optional
        Bytes of the GPU that no process holds, and all of them; asked of the driver by default.

    Raises
    ------
    QuantrustError
    """
    if torch.device(device).type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device) if memory is None else memory
    if needed > free:
        raise QuantrustError(
            f"{job} needs about {needed / 1e9:.3g} GB of device memory, but of the {total / 1e9:.3g} GB of {device} "
            f"{free / 1e9:.3g} GB are free; {advice}"
        )
