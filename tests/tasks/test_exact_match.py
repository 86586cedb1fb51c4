import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.errors import QuantrustError
from quantrust.tasks.exact_match import exact_match
from quantrust.tasks.task import load_task


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("table", "table", 1.0),
        ("The Table.", "table", 1.0),
        ("two", "2", 1.0),
        ("dont", "don't", 1.0),
        ("tables", "table", 0.0),
        ("", "table", 0.0),
        # Choices: articles are kept where nothing else is left.
        ("A", "A", 1.0),
        ("a.", "A", 1.0),
        ("(A)", "A", 1.0),
        ("B", "A", 0.0),
        ("", "A", 0.0),
        ("the", "A", 0.0),
        ("?", "A", 0.0),
        ("a cat", "A", 0.0),
    ],
)
def test_an_answer_matches_or_not(prediction, reference, expected):
    assert exact_match(prediction, [reference]) == expected


@given(st.text(max_size=20))
def test_an_answer_matches_itself(answer):
    assert exact_match(answer, [answer]) == 1.0


@pytest.mark.parametrize("references", [[], ["a", "b"]])
def test_other_than_one_reference_is_refused(references):
    with pytest.raises(ValueError, match="values to unpack"):
        exact_match("a", references)
    with pytest.raises(
        QuantrustError, match=rf"q\.json: question 1: expected one reference answer, got {len(references)}"
    ):
        load_task("exact_match").check_references(references, "q.json: question 1")


def test_a_reference_that_every_empty_answer_would_match_is_refused():
    with pytest.raises(
        QuantrustError, match=r"question 1: the reference answer is '\?!', and normalisation leaves nothing of it"
    ):
        load_task("exact_match").check_references(["?!"], "q.json: question 1")
