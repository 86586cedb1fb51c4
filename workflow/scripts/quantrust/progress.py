"""Progress of long work: a bar on a terminal, a line a minute in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, TypeAlias

from tqdm import tqdm

TERMINAL_SECONDS = 0.2
LOG_SECONDS = 60.0
BAR = "{desc}: {percentage:3.0f} %|{bar}| {n_fmt} of {total_fmt} {unit} in {elapsed}, {remaining} left"
LINE = "{desc}: {n_fmt} of {total_fmt} {unit} in {elapsed}, {remaining} left"

Progress: TypeAlias = tqdm
"""A bar that is told by its method `update` how many more units are done."""


class _Lines:
    """A stream that gets a line of its own for each state of a bar, where a terminal would renew one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def progress(
    what: str, total: int, unit: str, *, only_on_terminals: bool = False, stream: TextIO | None = None
) -> Iterator[Progress]:
    """Yield a bar on standard error, whose last state is written when the block ends, however it ends.

    Parameters
    ----------
    what : str
        The work, for example `quantizing`.
    total : int
        How many units there are.
    unit : str
        What is counted, for example `layers`.
    only_on_terminals : bool
        Whether nothing is written where the stream is not a terminal.
    stream : TextIO, optional
        Where to write instead.
    """
    stream = sys.stderr if stream is None else stream
    on_terminal = stream.isatty()
    with tqdm(
        desc=what,
        total=total,
        unit=unit,
        file=stream if on_terminal else _Lines(stream),
        disable=only_on_terminals and not on_terminal,
        dynamic_ncols=on_terminal,
        bar_format=BAR if on_terminal else LINE,
        mininterval=TERMINAL_SECONDS if on_terminal else LOG_SECONDS,
        # Looks at the clock at every unit, and takes the mean speed since the start.
        miniters=1,
        smoothing=0,
    ) as bar:
        yield bar
