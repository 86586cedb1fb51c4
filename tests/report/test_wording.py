"""Thresholds in words: rounded up, told from 1, and as many digits as tell an answer from its threshold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.report.wording import threshold_in_words, told_apart

near_one = st.floats(3.0, 15.9).map(lambda exponent: 1 - 10.0**-exponent)
thresholds = st.floats(0, 1) | near_one | st.floats(allow_nan=False, allow_infinity=False)


def value(text: str) -> float:
    """Return the number that a text states."""
    one, minus, distance = text.partition("1 - ")
    return 1 - float(distance) if minus else float(one)


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0.95, "0.95"),
        (0.93121, "0.9313"),
        (0.9999, "0.9999"),
        (0.99983, "0.99983"),
        (0.999838, "0.99984"),
        (0.99991, "1 - 9e-5"),
        (1 - 3e-7, "1 - 3e-7"),
        (1 - 1.1102230246251565e-16, "1 - 1e-16"),
        (1.0, "1"),
        (0.0, "0"),
        (2.0001e-7, "2.001e-7"),
        (12.3456, "12.35"),
        (-12.3456, "-12.34"),
        (123456.7, "123500"),
        (None, "none"),
    ],
)
def test_a_threshold_has_four_digits_or_its_distance_from_one(threshold: float | None, text: str) -> None:
    assert threshold_in_words(threshold) == text


@given(thresholds)
def test_what_is_shown_answers_no_more_and_is_not_one_below_one(threshold: float) -> None:
    text = threshold_in_words(threshold)
    assert value(text) >= threshold
    assert (text == "1") == (threshold == 1)


@given(near_one)
def test_the_distance_from_one_has_two_digits(threshold: float) -> None:
    distance = 1 - threshold
    assert 1 - value(threshold_in_words(threshold)) == pytest.approx(distance, rel=0.1, abs=2.0**-53)


@given(thresholds, st.integers(-9, 9) | thresholds)
def test_a_confidence_and_its_threshold_are_told_apart(threshold: float, other: float) -> None:
    confidence = other
    if isinstance(other, int):
        # So many floats beside the threshold.
        confidence = threshold
        for _ in range(abs(other)):
            confidence = math.nextafter(confidence, math.copysign(math.inf, other))
    shown, held = told_apart(confidence, threshold)
    assert (shown != held) == (confidence != threshold)
    assert (value(shown) >= value(held)) or confidence < threshold
    assert value(held) >= threshold
