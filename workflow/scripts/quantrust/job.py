"""The frame around every script of the workflow: its output goes to a log, and bad input ends in one message."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantrust.errors import INTERRUPTED, QuantrustError, out_of_memory, refused_by_system


@contextmanager
def job_log(path: str | Path) -> Iterator[None]:
    """Send standard output, standard error and log records of the process to a file while the block runs.

    The file descriptors themselves are redirected, so that the output of native libraries arrives there too.

    Parameters
    ----------
    path : str or Path
        The log, which is written anew.

    Raises
    ------
    SystemExit
        With code 2, when the block raises `QuantrustError`: its message then stands in the log and on the standard
        error that the process had before, without a traceback; also when the log cannot be written, or the system
        refuses another file. With code 1, when it runs out of memory. The log then has the traceback as well. With code
        130, when it is interrupted. Other errors stand in the log too, and are raised.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "wb")  # noqa: SIM115 closed below, once it is what the process writes to
    except OSError as error:
        reason = f"the log cannot be written ({error.strerror}); make its folder writable"
        print(f"error: {path}: {reason}", file=sys.stderr)
        raise SystemExit(2) from None
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        with log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
        yield
    except QuantrustError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        # names of files may hold bytes that are not text
        os.write(saved[1], f"error: {error}\n".encode(errors="backslashreplace"))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, OSError) and (refused := refused_by_system(error)) is not None:
            os.write(saved[1], f"error: {refused}\n".encode())
            raise SystemExit(2) from None
        if (fault := out_of_memory(error)) is None:
            raise
        message = f"error: {fault}; `quantrust plan` says what the study's jobs take"
        os.write(saved[1], f"{message}\n".encode())
        raise SystemExit(1) from None
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, number in zip(saved, (1, 2), strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
