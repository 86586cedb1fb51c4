"""The settings of a folder's image processor: the library takes most values as they come, and computes with them."""

import sys
from collections.abc import Iterator
from typing import Any

from PIL.Image import Resampling
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_utils import SizeDict

CHANNELS = 3
"""Of an RGB picture."""

SIZES = ("size", "crop_size", "max_image_size")
"""Settings that hold sides of pictures, or numbers of pixels."""


def faults_of_settings(processor: ImageProcessingMixin) -> Iterator[str]:
    """Yield the settings that no processor has, each with what is expected.

    Parameters
    ----------
    processor : transformers.ImageProcessingMixin
    """
    switches = {key: value for key, value in vars(processor).items() if key.startswith("do_")}
    for key, value in switches.items():
        # the library takes any other value for yes
        if not isinstance(value, bool | None):
            yield f"{key} is {value!r}; expected true or false"
    # and here for its default
    resample = getattr(processor, "resample", None)
    if isinstance(resample, bool) or not isinstance(resample, int | Resampling | None):
        yield f"resample is {resample!r}; expected a number"
    if switches.get("do_rescale") and not _is_positive(processor.rescale_factor):
        yield f"rescale_factor is {processor.rescale_factor!r}; expected a number above 0"
    if switches.get("do_normalize"):
        if not all(map(_is_number, _channels(processor.image_mean))):
            yield f"image_mean is {processor.image_mean!r}; expected a number or {CHANNELS} numbers"
        if not all(map(_is_positive, _channels(processor.image_std))):
            yield f"image_std is {processor.image_std!r}; expected a number or {CHANNELS} numbers above 0"
    for key in SIZES:
        for name, side in _sides(getattr(processor, key, None)).items():
            if side is not None and not _is_positive(side):
                yield f"{key} has {name} {side!r}; expected a number above 0"


def _channels(value: Any) -> list[Any]:
    """Return the value of each channel, or one None if there is another number of values."""
    if not isinstance(value, (list, tuple)):
        return [value]
    return list(value) if len(value) == CHANNELS else [None]


def _sides(value: Any) -> dict[str, Any]:
    if isinstance(value, SizeDict):
        return vars(value)
    return value if isinstance(value, dict) else {"the value": value}


def _is_number(value: Any) -> bool:
    # an integer may be larger than any float
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0
