"""Progress lines: a log gets one a minute and the last, a terminal renews one line."""

import io

from quantrust.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_a_minute_and_the_last():
    now = [0.0]
    stream = io.StringIO()
    progress = Progress("quantizing layers", 100, stream, lambda: now[0])
    for _ in range(100):
        now[0] += 2.0
        progress.advance()
    assert stream.getvalue().splitlines() == [
        "quantizing layers: 30 of 100 in 1 min 00 s, 0.5/s, 2 min 20 s left",
        "quantizing layers: 60 of 100 in 2 min 00 s, 0.5/s, 1 min 20 s left",
        "quantizing layers: 90 of 100 in 3 min 00 s, 0.5/s, 20 s left",
        "quantizing layers: 100 of 100 in 3 min 20 s, 0.5/s",
    ]


def test_a_terminal_renews_its_line():
    now = [0.0]
    stream = Terminal()
    progress = Progress("layers", 2, stream, lambda: now[0])
    for _ in range(2):
        now[0] += 1.0
        progress.advance()
    assert stream.getvalue() == "\r\x1b[Klayers: 1 of 2 in 1 s, 1/s, 1 s left\r\x1b[Klayers: 2 of 2 in 2 s, 1/s\n"
