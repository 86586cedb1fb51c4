import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.tasks.accuracy import clean, normalise, soft_accuracy


@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_accuracy_is_the_mean_over_the_ten_leave_one_out_subsets(matches, expected):
    assert soft_accuracy("cat", ["cat"] * matches + ["dog"] * (10 - matches)) == expected


def test_accuracy_agrees_with_the_definition_row_by_row():
    for matches in range(11):
        references = ["cat"] * matches + ["dog"] * (10 - matches)
        scores = []
        for left_out in range(10):
            others = references[:left_out] + references[left_out + 1 :]
            scores.append(min(1, others.count("cat") / 3))
        assert soft_accuracy("cat", references) == pytest.approx(sum(scores) / 10, abs=1e-15)


def test_two_annotators_with_the_same_answer_are_two_references():
    # Left out by equality, both would go at once and one match in nine subsets would remain: .4 less.
    assert soft_accuracy("cat", ["cat", "cat"] + [f"dog {i}" for i in range(8)]) == 0.6


def test_identical_references_are_compared_raw():
    assert soft_accuracy("Cat", ["cat"] * 10) == 0.0
    assert soft_accuracy("the cat", ["cat"] * 10) == 0.0
    assert soft_accuracy("two", ["2"] * 10) == 0.0
    assert soft_accuracy("The Cat", ["The Cat"] * 10) == 1.0


def test_references_that_differ_only_in_case_are_not_identical_and_so_are_normalised():
    assert soft_accuracy("CAT!", ["cat"] * 9 + ["Cat"]) == 1.0


def test_newlines_tabs_and_ends_are_cleaned_even_where_references_are_identical():
    assert soft_accuracy("\tlight\nblue ", ["light blue"] * 10) == 1.0
    assert soft_accuracy("light blue", ["light\tblue\n"] * 10) == 1.0


def test_references_that_are_identical_after_cleaning_are_identical():
    assert soft_accuracy("Cat", ["cat", "cat "] + ["\tcat"] * 8) == 0.0


def test_an_empty_answer_matches_references_that_normalise_to_nothing():
    assert soft_accuracy("the", ["a", "an"] + ["cat"] * 8) == 0.6


@pytest.mark.parametrize("count", [0, 1, 9, 11])
def test_other_than_ten_references_are_refused(count):
    with pytest.raises(ValueError, match=f"10 reference answers, got {count}"):
        soft_accuracy("cat", ["cat"] * count)


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
        ("Im", "im"),  # the table's capitalised keys can not match: lower case comes first
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


@given(st.text(max_size=30), st.lists(st.text(max_size=10), min_size=10, max_size=10))
def test_accuracy_is_one_of_five_values_and_ignores_the_order_of_references(prediction, references):
    accuracy = soft_accuracy(prediction, references)
    assert accuracy in (0.0, 0.3, 0.6, 0.9, 1.0)
    assert soft_accuracy(prediction, references[::-1]) == accuracy


@given(st.text(max_size=30))
def test_a_normalised_answer_has_no_upper_case_and_single_spaces(answer):
    result = normalise(clean(answer))
    assert result == " ".join(result.split())
    assert result == result.lower()
