"""Whether what a file says to compute ends soon and in little memory, found out in a process that may be lost.

A chat template is a program. The sandbox that it runs in keeps it from files and from Python's own objects, but not
from a loop without an end, or from a text that fills the memory.
"""

import os
import resource
from collections.abc import Callable
from pathlib import Path

SECONDS = 3
"""Of processor time. A template is rendered in thousandths of one."""
MEMORY = 1 << 30
"""Bytes beside what the process has already."""

_STATM = Path("/proc/self/statm")


def ends_soon(call: Callable[[], object]) -> bool:
    """Return whether a call ends within `SECONDS` and `MEMORY`, even if with an exception.

    Parameters
    ----------
    call : callable
        Of plain Python, whose threads a child of this process does without. It is made in that child: what it returns
        or raises is lost, and nothing changes here.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _limit()
            call()
            code = 0
        except MemoryError:
            pass
        except Exception:
            # the caller meets it as well, and says what it is
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    # the system ends what goes beyond its time with a signal
    return os.waitstatus_to_exitcode(status) == 0


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    # other systems than Linux do not say what a process has; there the time alone is limited
    if _STATM.is_file():
        there = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
