"""Numbers on the command line, and a note where there are too few images for them."""

import argparse
from collections.abc import Callable, Iterable
from typing import TypeVar

from quantrust.evaluation.limits import as_given, too_low_to_judge

Number = TypeVar("Number", int, float)

MOST_RESAMPLES = 1_000_000
"""As in the config. More would not end soon and tell nothing more."""


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    value = parsed(float, text, "a number from 0 to 1")
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is outside [0, 1]")
    return value


def inner_share(text: str) -> float:
    """Read a number between 0 and 1."""
    value = parsed(float, text, "a number between 0 and 1")
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def count(text: str) -> int:
    """Read a whole number from 0 on."""
    value = parsed(int, text, "a whole number from 0 on")
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def number_of_resamples(text: str) -> int:
    """Read a number of resamples, from 0 to `MOST_RESAMPLES`."""
    value = count(text)
    if value > MOST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"more than {MOST_RESAMPLES:,} resamples would not end soon; expected fewer")
    return value


def parsed(kind: Callable[[str], Number], text: str, expected: str) -> Number:
    """Read a number of a kind, or say what was expected."""
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None


def chance_note(limits: Iterable[float], images: int, level: float) -> str | None:
    """Return a note on the risk limits whose threshold is a matter of chance on so few images; None if there are none.

    Examples
    --------
    >>> chance_note([0.01, 0.05, 0.2], 60, 0.95)
    'thresholds are set on 60 images: where they lie is chance at 0.01 (takes 381 images), 0.05 (takes 73 images)'
    """
    few = too_low_to_judge(limits, images, level)
    if not few:
        return None
    named = ", ".join(f"{as_given(limit)} (takes {fewest} images)" for limit, fewest in few.items())
    return f"thresholds are set on {images} images: where they lie is chance at {named}"
