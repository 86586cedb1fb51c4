"""Facts are read from captions as people write them, and from the faulty ones that models write."""

import pytest

from quantrust.tasks.scene_facts import fact_f1, facts_of


@pytest.mark.parametrize(
    ("caption", "facts"),
    [
        ("a red 3 at the top left.", [("3",), ("3", "red"), ("3", "top left")]),
        ("An 8 in ORANGE in the upper right corner", [("8",), ("8", "orange"), ("8", "top right")]),
        ("lower left a blue star", [("star",), ("star", "blue"), ("star", "bottom left")]),
        ("a red 3 and a blue 7", [("3",), ("3", "red"), ("7",), ("7", "blue")]),
        # twice the same fact counts twice
        ("a red 3, a red 3", [("3",), ("3",), ("3", "red"), ("3", "red")]),
        ("an empty picture.", []),
        ("", []),
        # neither of two readings is stated
        ("a 3 or 8 in red", []),
        ("a red or blue 3 at the left", [("3",)]),
        # no digit is read out of a number
        ("a red 38", []),
        ("a squared redness", []),
    ],
)
def test_facts_of_a_caption(caption, facts):
    assert sorted(facts_of(caption).elements()) == sorted(facts)


def test_f1_of_facts_by_hand():
    right = facts_of("a red 3 at the top left, a blue star at the top right.")
    assert fact_f1(facts_of("a red 3 at the top left."), right) == pytest.approx(2 * 3 / (3 + 6))
    assert fact_f1(facts_of("a red 3 at the top right, a pink star top right."), right) == pytest.approx(2 * 4 / 12)
    # saying it twice costs precision
    assert fact_f1(facts_of("a red 3 at the top left, a red 3 at the top left."), right) == pytest.approx(6 / 12)
    assert fact_f1(facts_of(""), right) == 0.0
    assert fact_f1(right, right) == 1.0
    assert fact_f1(facts_of(""), facts_of("an empty picture.")) == 1.0
