"""Progress of long work: a line that renews itself on a terminal, one line a minute in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

TERMINAL_SECONDS = 0.2
LOG_SECONDS = 60.0


class Progress:
    """Counts what is done and says how fast it goes and how long the rest will take.

    Parameters
    ----------
    what : str
        The work, for example `quantizing`.
    total : int
        How many units there are.
    unit : str
        What is counted, for example `layers`.
    stream : TextIO or None
        Where the lines go; None is standard error.
    clock : callable
        Returns seconds; replaced in tests.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._start = self._shown = clock()
        self._terminal = self._stream.isatty()

    def update(self, count: int = 1) -> None:
        """Count `count` more units as done, and show it if it is time."""
        self.done += count
        now = self._clock()
        if now - self._shown >= (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            self._shown = now
            self._write(self._line(now), end="" if self._terminal else "\n")

    def close(self) -> None:
        """Show where the work stands and end the line."""
        self._write(self._line(self._clock()), end="\n")

    def _line(self, now: float) -> str:
        elapsed = now - self._start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        left = f", {_duration((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        return f"{self.what}: {self.done} of {self.total} {self.unit} in {_duration(elapsed)}, {rate:.3g}/s{left}"

    def _write(self, line: str, end: str) -> None:
        renew = "\r\x1b[K" if self._terminal else ""
        self._stream.write(f"{renew}{line}{end}")
        self._stream.flush()


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Progress]:
    """Yield a `Progress` on standard error whose last line is written when the block ends, however it ends."""
    bar = Progress(what, total, unit)
    try:
        yield bar
    finally:
        bar.close()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
