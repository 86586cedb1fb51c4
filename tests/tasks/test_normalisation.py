import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.tasks.normalisation import answer_words, clean, normalise


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("none", "0"),
        ("zero", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("the cat and a dog in an hour", "cat and dog in hour"),
        ("dont", "don't"),
        ("DONT", "don't"),
        ("Im", "im"),  # the table's capitalised keys cannot match: lower case comes first
        ("somebody'd", "somebodyd"),
        ("1,000", "1000"),
        ("1,,000", "1000"),
        ("1, 2", "1 2"),
        ("5.5", "5.5"),
        ("5.", "5"),
        (".5", ".5"),
        ("a.m.", "am"),
        ("u.s.a", "usa"),
        ("two-story", "2 story"),
        ("red/white", "red white"),
        ("2-3", "2-3"),
        ("5-foot", "5-foot"),
        ("red-5", "red-5"),
        ("red - white", "red white"),
        ("red -- white", "red white"),
        ("(red)", "red"),
        ("  ?red!? ", "red"),
        ("$5", "$5"),
        ("5%", "5%"),
        ("a&b", "a&b"),
        ("12:30", "12:30"),
        ("dog's", "dog's"),
        ("it's", "it's"),
        ("caf\u00e9-bar", "caf\u00e9-bar"),  # only ASCII letters make a mark between letters a space
        ("blue,green", "blue green"),
        ('"stop"', "stop"),
        ("stop_sign", "stop sign"),
        ("x@y", "x y"),
        ("`ok`", "ok"),
        ("x=y+z", "x y z"),
        ("???", ""),
        ("", ""),
        ("-5", "5"),
        ("#1", "#1"),
    ],
)
def test_normalisation(answer, expected):
    assert normalise(clean(answer)) == expected


def test_a_mark_next_to_another_mark_becomes_a_space_and_spaces_collapse():
    assert normalise("red,;white   blue") == "red white blue"


def test_number_words_come_before_articles_and_contractions_after():
    assert normalise("the one thats here") == "1 that's here"


@given(st.text(max_size=30))
def test_a_normalised_answer_has_no_upper_case_and_single_spaces(answer):
    result = normalise(clean(answer))
    assert result == " ".join(result.split())
    assert result == result.lower()


def test_the_words_before_articles_go_and_contractions_come():
    assert answer_words("The two cats, dont!") == ["the", "2", "cats", "dont"]
