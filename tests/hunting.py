"""How far a test searches for damage that nobody has thought of: a fixed sample of it, or at length in `make hunt`."""

import os

from hypothesis import settings

HUNTING = os.environ.get("QUANTRUST_HUNT") == "1"
"""Set by `make hunt`."""


def trials(sample: int, hunt: int) -> range:
    """Return the numbers of a test's trials: so many in every run of the suite, so many in a hunt."""
    return range(hunt if HUNTING else sample)


def choose_profile() -> None:
    """Let hypothesis try the same few examples in every run of the suite, and many new ones in a hunt."""
    settings.register_profile("sample", derandomize=True, deadline=None, max_examples=100)
    settings.register_profile("hunt", deadline=None, max_examples=3000, print_blob=True)
    settings.load_profile("hunt" if HUNTING else "sample")
