"""Whether a job fits on the GPU, found out before it starts."""

import torch

from quantrust.errors import QuantrustError


def require_device_memory(job: str, needed: int, device: str, advice: str, total: int | None = None) -> None:
    """Raise when a GPU has less memory than a job needs; the memory of a CPU is not looked at.

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
    total : int, optional
        All the memory of the GPU; asked of the driver by default.

    Raises
    ------
    QuantrustError
    """
    if torch.device(device).type != "cuda":
        return
    if total is None:
        total = torch.cuda.get_device_properties(device).total_memory
    if needed > total:
        raise QuantrustError(
            f"{job} needs about {needed / 1e9:.3g} GB of device memory, but {device} has {total / 1e9:.3g} GB in all; "
            f"{advice}"
        )
