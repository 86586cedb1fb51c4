"""What several benchmarks measure by: processor time and peak memory of processes, and the error of a tensor."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_processes = multiprocessing.get_context("forkserver")


def peak_memory(process="self"):
    """Return the largest resident memory of this process since it began, or since `reset_peak`, in bytes (Linux).

    Unlike `ru_maxrss`, which a process inherits from the one that started it, it counts this process alone. That of
    another one is asked for by its number.
    """
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset_peak():
    """Begin anew with what `peak_memory` returns (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Cost:
    """What a function or a program took in a process of its own.

    Attributes
    ----------
    wall_s, cpu_s : float
        Seconds that passed, and of the processor: those of all threads of the process, without those of its children.
    peak : int
        Largest resident memory of the process, in bytes.
    before : int
        The same before it began: what Python and imports take.
    ended : bool
        Whether it came to its end; otherwise it was stopped, and the numbers are those until then, imports included.
    """

    wall_s: float
    cpu_s: float
    peak: int
    before: int
    ended: bool = True


def measured(function: Callable[..., None], *arguments: Any) -> Cost:
    """Call a function in this process and return what it took (Linux)."""
    before, wall, cpu = peak_memory(), time.perf_counter(), time.process_time()
    function(*arguments)
    return Cost(time.perf_counter() - wall, time.process_time() - cpu, peak_memory(), before)


def preload(modules: Iterable[str]) -> None:
    """Have the first call of `alone` import modules once for all processes."""
    _processes.set_forkserver_preload(list(modules))


def alone(function: Callable[..., None], *arguments: Any) -> Cost:
    """Call a function in a process of its own, so that its memory can be told from that of others (Linux).

    Parameters
    ----------
    function : callable
        Of a module, as are the classes of its arguments.
    *arguments

    Raises
    ------
    RuntimeError
        If the process dies.
    """
    with ProcessPoolExecutor(1, mp_context=_processes) as pool:
        return pool.submit(measured, function, *arguments).result()


def cpu_seconds(process: int) -> float:
    """Return the processor time of another process so far (Linux)."""
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def relative_error(found, reference):
    """Return |found - reference| / |reference|, Frobenius norms of tensors."""
    return float((found - reference).norm() / reference.norm())
