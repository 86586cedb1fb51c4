"""Soft VQA accuracy: a predicted answer against ten references, with the official conditional normalisation."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from quantrust.data.official import REFERENCES

# Mean over the ten leave-one-out subsets of min(1, matches / 3), by the number of references that match: a reference
# that matches sees one match fewer among the other nine. (1: 9/3, 2: 2 * 1/3 + 8 * 2/3, 3: 3 * 2/3 + 7, each over 10.)
_ACCURACY_BY_MATCHES = (0.0, 0.3, 0.6, 0.9) + (1.0,) * (REFERENCES - 3)

_COUNTING = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(_COUNTING)}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTIONS: dict[str, str] = json.loads(files("quantrust.tasks").joinpath("contractions.json").read_text("utf-8"))

_MARKS = re.escape('\\;/"`[](){}<>@=+_-,?!')
_LEADING = re.compile(rf"\A[ {_MARKS}]+(?=[a-zA-Z0-9 ])")
_TRAILING = re.compile(rf"(?<=[a-zA-Z0-9 ])[ {_MARKS}]+\Z")
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_MARK_BESIDE_SPACE_OR_MARK = re.compile(rf"(?<=[ {_MARKS}])[{_MARKS}]|[{_MARKS}](?=[ {_MARKS}])")
_SPACES = re.compile(r" +")
_MARK_BETWEEN_LETTERS = re.compile(rf"(?<=[a-zA-Z])[{_MARKS}](?=[a-zA-Z])")
_PERIOD_NOT_IN_NUMBER = re.compile(r"\.(?!\d)")


def clean(answer: str) -> str:
    """Turn newlines and tabs into spaces and strip the ends: what every answer goes through.

    Examples
    --------
    >>> clean(" light\\tblue\\n")
    'light blue'
    """
    return answer.replace("\n", " ").replace("\t", " ").strip()


# A few thousand answers make up most of any dataset's references.
@lru_cache(maxsize=1 << 16)
def normalise(answer: str) -> str:
    """Normalise punctuation, case, number words, articles and contractions as the official VQA evaluation does.

    The order of steps is that of the evaluator released with Whitehead et al., "Reliable Visual Question Answering"
    (ECCV 2022). Marks are ``\\ ; / " ` [ ] ( ) { } < > @ = + _ - , ? !``; a period, a colon, an apostrophe and
    ``$ # % &`` are not. A mark between a digit and anything but a space or a mark stays.

    Parameters
    ----------
    answer : str
        An answer that went through `clean`.

    Returns
    -------
    str
        The normalised answer; possibly empty.

    Examples
    --------
    >>> normalise("The Two-Story house, dont!")
    "2 story house don't"
    >>> normalise("1,000 a.m.")
    '1000 am'
    """
    text = _LEADING.sub("", answer)
    text = _TRAILING.sub("", text)
    text = _COMMA_IN_NUMBER.sub("", text)
    text = _MARK_BESIDE_SPACE_OR_MARK.sub(" ", text)
    text = _SPACES.sub(" ", text)
    text = _MARK_BETWEEN_LETTERS.sub(" ", text)
    text = _PERIOD_NOT_IN_NUMBER.sub("", text)
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Return the soft VQA accuracy of one answer.

    For each of the ten references, taken by position, the other nine are searched for the prediction and
    ``min(1, matches / 3)`` is scored; the accuracy is the mean. Normalisation applies only if the ten references
    are not all identical; otherwise the cleaned strings are compared as they are.

    Parameters
    ----------
    prediction : str
        The model's answer.
    references : sequence of str
        The ten reference answers, in any order.

    Returns
    -------
    float
        One of 0, 0.3, 0.6, 0.9 and 1.

    Raises
    ------
    ValueError
        If there are not exactly ten references.

    Notes
    -----
    Antol et al., "VQA: Visual Question Answering" (ICCV 2015), as evaluated by the released VQA evaluation code.

    Examples
    --------
    >>> soft_accuracy("Two", ["2", "two"] + ["3"] * 8)
    0.6
    >>> soft_accuracy("Two", ["2"] * 10)
    0.0
    """
    if len(references) != REFERENCES:
        raise ValueError(f"expected {REFERENCES} reference answers, got {len(references)}")
    answer = clean(prediction)
    cleaned = [clean(reference) for reference in references]
    if len(set(cleaned)) > 1:
        answer = normalise(answer)
        cleaned = [normalise(reference) for reference in cleaned]
    return _ACCURACY_BY_MATCHES[cleaned.count(answer)]
