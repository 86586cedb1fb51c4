"""What a file says to compute is tried in a child that may be lost, and changes nothing here."""

import os

import pytest

from quantrust.models import bounded
from quantrust.models.bounded import ends_soon


def test_what_ends_ends_soon_whatever_it_raises():
    def fail() -> None:
        raise ValueError

    changed: list[int] = []
    assert ends_soon(lambda: changed.append(1))
    assert ends_soon(fail)
    assert not changed


def test_a_loop_without_an_end_is_ended(monkeypatch):
    def loop() -> None:
        while True:
            pass

    monkeypatch.setattr(bounded, "SECONDS", 1)
    assert not ends_soon(loop)


@pytest.mark.skipif(not os.path.isfile("/proc/self/statm"), reason="only there is memory limited")
def test_what_takes_too_much_memory_is_refused_before_it_has_it():
    assert ends_soon(lambda: bytearray(1 << 20))
    assert not ends_soon(lambda: bytearray(1 << 40))


def test_a_child_that_is_killed_is_no_end():
    assert not ends_soon(lambda: os.kill(os.getpid(), 9))
