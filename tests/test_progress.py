"""Progress lines: a log gets one a minute and the last, a terminal renews one line."""

import io

import pytest

from quantrust.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_a_minute_and_the_last():
    now = [0.0]
    stream = io.StringIO()
    bar = Progress("quantizing", 100, "layers", stream, lambda: now[0])
    for _ in range(100):
        now[0] += 2.0
        bar.update()
    bar.close()
    assert stream.getvalue().splitlines() == [
        "quantizing: 30 of 100 layers in 1 min 00 s, 0.5/s, 2 min 20 s left",
        "quantizing: 60 of 100 layers in 2 min 00 s, 0.5/s, 1 min 20 s left",
        "quantizing: 90 of 100 layers in 3 min 00 s, 0.5/s, 20 s left",
        "quantizing: 100 of 100 layers in 3 min 20 s, 0.5/s",
    ]


def test_a_terminal_renews_its_line():
    now = [0.0]
    stream = Terminal()
    bar = Progress("answers", 4, "questions", stream, lambda: now[0])
    for count in (1, 3):
        now[0] += 1.0
        bar.update(count)
    bar.close()
    assert stream.getvalue() == (
        "\r\x1b[Kanswers: 1 of 4 questions in 1 s, 1/s, 3 s left"
        "\r\x1b[Kanswers: 4 of 4 questions in 2 s, 2/s"
        "\r\x1b[Kanswers: 4 of 4 questions in 2 s, 2/s\n"
    )


def test_work_that_fails_still_says_how_far_it_came(capsys):
    with pytest.raises(RuntimeError), progress("quantizing", 3, "layers") as bar:
        bar.update()
        raise RuntimeError
    assert "quantizing: 1 of 3 layers" in capsys.readouterr().err
