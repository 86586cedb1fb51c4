"""Whether what a file says to compute ends soon and in little memory, found out in a process that may be lost.

A chat template is a program, and a tokenizer's file holds patterns and steps of any kind. The template's sandbox and
the tokenizer's library keep them from files and from Python's own objects, but not from a loop without an end, or from
a text that fills the memory.
"""

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 3
"""Of processor time. A template is rendered in thousandths of one."""
MEMORY = 1 << 30
"""Bytes beside what the process has already."""
WAITED_SECONDS = 900
"""On the clock. A busy machine may give a child its processor time slowly; one that waits for ever takes none."""

_STATM = Path("/proc/self/statm")
_PAUSE_SECONDS = 0.005


def ends_soon(call: Callable[[], object], seconds: int | None = None, memory: int | None = None) -> bool:
    """Return whether a call ends within limits on time and memory, even if with an exception.

    Parameters
    ----------
    call : callable
        Of code that needs no other thread of this process, because a child does without them. It is made in that child:
        what it returns or raises is lost, and nothing changes here.
    seconds : int, optional
        Of processor time; `SECONDS` by default.
    memory : int, optional
        Bytes beside what the process has already; `MEMORY` by default.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _limit(SECONDS if seconds is None else seconds, MEMORY if memory is None else memory)
            call()
            code = 0
        except MemoryError:
            pass
        except Exception:
            # the caller meets it as well, and says what it is
            code = 0
        finally:
            os._exit(code)
    # the system ends what goes beyond its processor time with a signal
    return os.waitstatus_to_exitcode(_status(child)) == 0


def _status(child: int) -> int:
    """Wait for a child, not for ever, and return its status."""
    end = time.monotonic() + WAITED_SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(_PAUSE_SECONDS)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _limit(seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    # a native library ends itself where memory ends: no file of that
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # other systems than Linux do not say what a process has; there the time alone is limited
    if _STATM.is_file():
        there = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + memory, there + memory))
