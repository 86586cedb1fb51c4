"""Calls of the model library on files that others wrote: whatever it raises becomes one message that names the file."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from quantrust.errors import QuantrustError

LONGEST_REASON = 300
"""Characters of what the library says that are repeated; it may quote a file's whole content."""


@contextmanager
def blaming(fault: str, advice: str) -> Iterator[None]:
    """Turn what the library raises in this context into one message.

    It raises what it likes about a wrong type, value or shape, bare exceptions among it, and does not name the file.

    Parameters
    ----------
    fault : str
        What is wrong where, such as ``"config.json: describes no model"``. What the library says follows in brackets.
    advice : str
        What to do.

    Raises
    ------
    QuantrustError
        For any exception but this one, which is raised as it is, and `MemoryError`.
    """
    try:
        yield
    except (QuantrustError, MemoryError):
        raise
    except Exception as error:
        # of a key the library says no more than its name
        said = f"{error} is missing or unknown" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        reason = textwrap.shorten(said, LONGEST_REASON, placeholder=" ...")
        raise QuantrustError(f"{fault} ({reason}); {advice}") from error
