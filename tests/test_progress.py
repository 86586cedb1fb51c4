"""Progress: a log gets its start, a line a minute and its end, a terminal renews one line."""

import io
import re

import pytest
import tqdm.std

from quantrust.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


def test_a_log_gets_its_start_a_line_a_minute_and_its_end(clock: list[float]) -> None:
    stream = io.StringIO()
    with progress("quantizing", 100, "layers", stream=stream) as bar:
        for _ in range(100):
            clock[0] += 2.0
            bar.update()
    assert stream.getvalue() == (
        "quantizing: 0 of 100 layers in 00:00, ? left\n"
        "quantizing: 30 of 100 layers in 01:00, 02:20 left\n"
        "quantizing: 60 of 100 layers in 02:00, 01:20 left\n"
        "quantizing: 90 of 100 layers in 03:00, 00:20 left\n"
        "quantizing: 100 of 100 layers in 03:20, 00:00 left\n"
    )


def test_a_terminal_renews_its_line(clock: list[float]) -> None:
    stream = Terminal()
    with progress("answers", 4, "questions", stream=stream) as bar:
        for count in (1, 3):
            clock[0] += 1.0
            bar.update(count)
    written = stream.getvalue()
    assert written.count("\n") == 1 and written.endswith("\n")
    states = re.findall(r"\ranswers: +(\d+) %\|.*?\| (\d) of 4 questions in 00:0(\d), (\S+) left", written)
    assert states[:3] == [("0", "0", "0", "?"), ("25", "1", "1", "00:03"), ("100", "4", "2", "00:00")]
    assert set(states) == set(states[:3])


def test_what_is_for_terminals_alone_leaves_a_log_empty(clock: list[float]) -> None:
    for stream, shown in ((io.StringIO(), False), (Terminal(), True)):
        with progress("resampling", 1, "resamples", only_on_terminals=True, stream=stream) as bar:
            clock[0] += 100.0
            bar.update()
        assert (stream.getvalue() != "") == shown


def test_work_that_fails_still_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress("quantizing", 3, "layers") as bar:
        bar.update()
        raise RuntimeError
    assert "quantizing: 1 of 3 layers" in capsys.readouterr().err
