"""The normalisation of answers in the official VQA evaluation."""

import json
import re
from functools import lru_cache
from importlib.resources import files

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
    kept = (word for word in answer_words(answer) if word not in _ARTICLES)
    return " ".join(_CONTRACTIONS.get(word, word) for word in kept)


def answer_words(answer: str) -> list[str]:
    """Return the words of an answer as `normalise` makes them before it drops articles and restores contractions.

    Parameters
    ----------
    answer : str
        An answer that went through `clean`.

    Examples
    --------
    >>> answer_words("The Two-Story house, dont!")
    ['the', '2', 'story', 'house', 'dont']
    """
    text = _LEADING.sub("", answer)
    text = _TRAILING.sub("", text)
    text = _COMMA_IN_NUMBER.sub("", text)
    text = _MARK_BESIDE_SPACE_OR_MARK.sub(" ", text)
    text = _SPACES.sub(" ", text)
    text = _MARK_BETWEEN_LETTERS.sub(" ", text)
    text = _PERIOD_NOT_IN_NUMBER.sub("", text)
    return [_NUMBER_WORDS.get(word, word) for word in text.lower().split()]
