from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.errors import QuantrustError
from quantrust.tasks.task import load_task
from quantrust.tasks.vqa import soft_accuracy


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


# By hand: the mean over the references of min(1, matches among the others / k), with k the lesser of 3 and the others.
GENERALISED = [
    (1, [0, 1]),
    # of two others' one: an answer of one annotator is what the other one sees
    (2, [0, Fraction(1, 2), 1]),
    # k = 2. One match: 0, 1/2, 1/2. Two: 1/2, 1/2, 1
    (3, [0, Fraction(1, 3), Fraction(2, 3), 1]),
    # k = 3. One match: 0 and thrice 1/3. Two: twice 1/3, twice 2/3. Three: thrice 2/3, once 1
    (4, [0, Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), 1]),
    # k = 3. One match: four times 1/3. Two: twice 1/3, thrice 2/3. Three: thrice 2/3, twice 1
    (5, [0, Fraction(4, 15), Fraction(8, 15), Fraction(4, 5), 1, 1]),
    # k = 3. One match: ten times 1/3. Two: twice 1/3, nine times 2/3. Three: thrice 2/3, eight times 1
    (11, [0, Fraction(10, 33), Fraction(20, 33), Fraction(10, 11), *[1] * 8]),
]


@pytest.mark.parametrize(("references", "expected"), GENERALISED)
def test_accuracy_of_any_number_of_references_is_the_leave_one_out_mean(references, expected):
    found = [soft_accuracy("cat", ["cat"] * m + ["dog"] * (references - m)) for m in range(references + 1)]
    assert found == [float(value) for value in expected]


def test_one_reference_is_normalised():
    assert soft_accuracy("The Cat", ["cat"]) == 1.0


def test_no_reference_is_refused():
    with pytest.raises(ValueError, match="at least one reference answer"):
        soft_accuracy("cat", [])
    with pytest.raises(QuantrustError, match=r"a\.json: question 1: expected at least one reference answer, got none"):
        load_task("vqa").check_references([], "a.json: question 1")


@given(st.text(max_size=30), st.lists(st.text(max_size=10), min_size=1, max_size=12))
def test_accuracy_lies_between_0_and_1_and_ignores_the_order_of_references(prediction, references):
    accuracy = soft_accuracy(prediction, references)
    assert 0.0 <= accuracy <= 1.0
    assert soft_accuracy(prediction, references[::-1]) == accuracy


@given(st.text(max_size=30), st.lists(st.text(max_size=10), min_size=10, max_size=10))
def test_accuracy_is_one_of_five_values_and_ignores_the_order_of_references(prediction, references):
    accuracy = soft_accuracy(prediction, references)
    assert accuracy in (0.0, 0.3, 0.6, 0.9, 1.0)
    assert soft_accuracy(prediction, references[::-1]) == accuracy
