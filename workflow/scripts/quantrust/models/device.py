"""Where a model computes and with which attention: checked before any work."""

from importlib.util import find_spec

import torch

from quantrust.errors import QuantrustError

DEVICES = ("cpu", "cuda")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
"""Implementations of attention, by their names in the transformers library."""

FLASH_DTYPES = (torch.float16, torch.bfloat16)


def check_device(device: str, attention: str, dtype: torch.dtype) -> None:
    """Raise when a model cannot compute as it is asked to.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    attention : {"eager", "sdpa", "flash_attention_2"}
    dtype : torch.dtype
        The dtype that the model computes in.

    Raises
    ------
    QuantrustError
        If there is no such device or attention here, or they do not go together.
    """
    if device not in DEVICES:
        raise QuantrustError(f"device {device!r} is unknown; allowed: {', '.join(DEVICES)}")
    if attention not in ATTENTIONS:
        raise QuantrustError(f"attention {attention!r} is unknown; allowed: {', '.join(ATTENTIONS)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise QuantrustError(
            f"compute.device or --device is cuda, but torch {torch.__version__} sees no GPU; make it cpu, or install a "
            "CUDA build of torch and see that nvidia-smi lists a GPU to this job"
        )
    if attention == "flash_attention_2":
        _check_flash(device, dtype)


def _check_flash(device: str, dtype: torch.dtype) -> None:
    wanted = "compute.attention is flash_attention_2, which needs"
    if device != "cuda":
        raise QuantrustError(f"{wanted} compute.device: cuda, not {device}; set compute.attention: sdpa")
    if dtype not in FLASH_DTYPES:
        raise QuantrustError(f"{wanted} bfloat16, not {dtype}; set that dtype, or compute.attention: sdpa")
    # Without the package the library would look for a build of it on the hub.
    if find_spec("flash_attn") is None:
        raise QuantrustError(f"{wanted} the package flash-attn; install it, or set compute.attention: sdpa")


def device_name(device: str) -> str:
    """Return what a record calls a device: `cpu`, or the name of the GPU."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)
