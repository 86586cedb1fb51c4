"""The one exception for bad input, and the message about a file or folder that the system refuses."""

INTERRUPTED = 130
"""The exit code of what Ctrl-C ends, as shells have it: 128 and the number of the signal."""


class QuantrustError(Exception):
    """Bad input: the message says what is wrong, where, what was expected and what to do.

    Commands print the message without a traceback and exit with code 2.
    """


def refused_by_system(error: OSError) -> str | None:
    """Return a message if the system refused a file or folder; None if the error names neither.

    Parameters
    ----------
    error : OSError
        An error that no reader or writer handled.

    Returns
    -------
    str or None
        One line, with the path in letters that any terminal shows.
    """
    if error.filename is None or error.strerror is None:
        return None
    path = ascii(str(error.filename))[1:-1]
    return f"{path}: {error.strerror}; make it readable, and its folder writable where it is written, and run again"


def out_of_memory(error: Exception) -> str | None:
    """Return what is said where memory ran out, the host's or a GPU's; None for any other error.

    Parameters
    ----------
    error : Exception

    Returns
    -------
    str or None
        The beginning of a line, which the caller ends with what to do.
    """
    # torch's own has no other base that tells it from other errors, and torch is not imported by every job
    if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
        return None
    reason = str(error).split("\n")[0] or "no more of the host's"
    return f"out of memory ({reason})"
