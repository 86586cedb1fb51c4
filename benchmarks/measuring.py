"""What several benchmarks measure by: the peak memory of this process, and the error of a tensor."""

from pathlib import Path


def peak_memory():
    """Return the largest resident memory of this process since it began, or since `reset_peak`, in bytes (Linux).

    Unlike `ru_maxrss`, which a process inherits from the one that started it, it counts this process alone.
    """
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset_peak():
    """Begin anew with what `peak_memory` returns (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def relative_error(found, reference):
    """Return |found - reference| / |reference|, Frobenius norms of tensors."""
    return float((found - reference).norm() / reference.norm())
