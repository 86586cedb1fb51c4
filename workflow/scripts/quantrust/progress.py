"""Progress of long work: a line that renews itself on a terminal, one line a minute in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")

TERMINAL_SECONDS = 0.2
LOG_SECONDS = 60.0


class Progress:
    """Counts what is done and says how fast it goes and how long the rest will take.

    Parameters
    ----------
    what : str
        The work, for example `quantizing layers`.
    total : int
        How many steps there are.
    stream : TextIO or None
        Where the lines go; None is standard error.
    clock : callable
        Returns seconds; replaced in tests.
    """

    def __init__(
        self, what: str, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what, self.total, self.done = what, total, 0
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._start = self._shown = clock()
        self._terminal = self._stream.isatty()

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more as done, and show it if it is time or the work is finished."""
        self.done += steps
        now = self._clock()
        if self.done >= self.total or now - self._shown >= (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            self._shown = now
            self._show(now - self._start)

    def _show(self, elapsed: float) -> None:
        rate = self.done / elapsed if elapsed > 0 else 0.0
        left = f", {_duration((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        line = f"{self.what}: {self.done} of {self.total} in {_duration(elapsed)}, {rate:.3g}/s{left}"
        if self._terminal:
            end = "\n" if self.done >= self.total else ""
            self._stream.write(f"\r\x1b[K{line}{end}")
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Yield the items, counting each as done when the next is asked for."""
    progress = Progress(what, total)
    for item in items:
        yield item
        progress.advance()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
