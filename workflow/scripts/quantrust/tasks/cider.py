"""CIDEr-D of captions against references, and the words that it compares.

Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation" (CVPR 2015), in the form of the
released COCO caption evaluation.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

LONGEST = 4
"""n-grams of up to so many words are compared."""
SPREAD = 6.0
"""Standard deviation, in words, of the Gaussian in the difference of lengths."""
SCALE = 10.0

# The longest first: "won't" is will and not, not wo and n't with a t left over.
_CLITIC = re.compile(r"(?<=[a-z])(n't|'s|'re|'ve|'ll|'d|'m)(?![a-z])")
_JOINED = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "gimme": "gim me",
    "lemme": "lem me",
}
_WORD = re.compile(r"n't|'(?:s|re|ve|ll|d|m)\b|\d+(?:[.,:/]\d+)*|[^\W_]+(?:[-'/.&][^\W_]+)*|[$%#&@+*=]", re.UNICODE)

Ngram = tuple[str, ...]
Vector = dict[Ngram, float]


# References are compared with every answer and with each other.
@lru_cache(maxsize=1 << 17)
def caption_words(caption: str) -> tuple[str, ...]:
    """Return the words of a caption, in lower case and without punctuation.

    Words are those of the Penn treebank, as far as captions need them: n't and what follows an apostrophe are words,
    hyphens and the points of numbers stay inside theirs.

    Examples
    --------
    >>> caption_words("The man's T-shirt isn't red; it costs $1,000.50!")
    ('the', 'man', "'s", 't-shirt', 'is', "n't", 'red', 'it', 'costs', '$', '1,000.50')
    """
    text = caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = _CLITIC.sub(r" \1", text)
    return tuple(part for word in _WORD.findall(text) for part in _JOINED.get(word, word).split())


def ngrams(words: Sequence[str]) -> Counter[Ngram]:
    """Return how often each run of one to `LONGEST` words occurs."""
    return Counter(
        tuple(words[start : start + n]) for n in range(1, LONGEST + 1) for start in range(len(words) - n + 1)
    )


class CiderD:
    """CIDEr-D with the document frequencies of given references.

    Parameters
    ----------
    references : sequence of sequence of str
        The reference captions of each image. The frequency of an n-gram is the number of images in whose captions it
        occurs.

    Notes
    -----
    An n-gram has the weight ``count * (ln N - ln max(1, df))`` in a caption, of N images. For each n from 1 to 4 the
    similarity of an answer and a reference is the cosine of their weights, where the answer's are clipped to the
    reference's, times ``exp(-d**2 / 72)`` for lengths that differ by d words. CIDEr-D is the mean over n and over
    references, times 10.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        frequency: Counter[Ngram] = Counter()
        for captions in references:
            frequency.update({ngram for caption in captions for ngram in ngrams(caption_words(caption))})
        self._log_images = math.log(len(references)) if references else 0.0
        self._log_frequency = {ngram: math.log(count) for ngram, count in frequency.items()}
        self._weights_of = lru_cache(maxsize=1 << 15)(self._weights)

    def score(self, answer: str, references: Sequence[str]) -> float:
        """Return the CIDEr-D of one answer against the references of its image.

        Parameters
        ----------
        answer : str
        references : sequence of str
            At least one.

        Returns
        -------
        float
            From 0 to 10; 0 where no n-gram of the answer is rarer than to be in the captions of every image.
        """
        return SCALE * math.fsum(self._similarity(answer, reference) for reference in references) / len(references)

    def _similarity(self, answer: str, reference: str) -> float:
        (own, own_norms, own_length), (right, norms, length) = self._weights_of(answer), self._weights_of(reference)
        products = [0.0] * LONGEST
        for ngram, weight in own.items():
            if ngram in right:
                products[len(ngram) - 1] += min(weight, right[ngram]) * right[ngram]
        cosines = (
            product / (a * b) if a and b else 0.0 for product, a, b in zip(products, own_norms, norms, strict=True)
        )
        return math.fsum(cosines) / LONGEST * math.exp(-((own_length - length) ** 2) / (2 * SPREAD**2))

    def _weights(self, caption: str) -> tuple[Vector, list[float], int]:
        """Return the weights of a caption's n-grams, their norms for each n, and the number of words."""
        words = caption_words(caption)
        weights = {
            ngram: count * (self._log_images - self._log_frequency.get(ngram, 0.0))
            for ngram, count in ngrams(words).items()
        }
        squares = [0.0] * LONGEST
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight**2
        return weights, [math.sqrt(square) for square in squares], len(words)


def cider_d_judge(references: Sequence[Sequence[str]]) -> Callable[[str, Sequence[str]], float]:
    """Return the CIDEr-D of single answers, whose mean is the CIDEr-D of a set of answers.

    Parameters
    ----------
    references : sequence of sequence of str
        The reference captions of each image of the set, which give the document frequencies.

    Returns
    -------
    callable
        Takes an answer and the reference captions of its image; see `CiderD.score`.
    """
    return CiderD(references).score


def cider_d(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the CIDEr-D of a set of answers, with the document frequencies of its own references.

    Parameters
    ----------
    answers : sequence of str
        One for each image.
    references : sequence of sequence of str
        The reference captions of each image, one or more.

    Returns
    -------
    float
        From 0 to 10. The published 128.5 is 1.285. 0 for one image, whose n-grams are all in every image.

    Raises
    ------
    ValueError
        If there are no answers, not as many as images, or an image has no references.

    Examples
    --------
    >>> cider_d(["a red bus", "a black cat"], [["a red bus on a road", "the bus is red"], ["a cat"]])
    2.6...
    """
    if not answers:
        raise ValueError("expected at least one answer, got none")
    score = cider_d_judge(references)
    return math.fsum(score(answer, captions) for answer, captions in zip(answers, references, strict=True)) / len(
        answers
    )


def ceiling(references: Sequence[Sequence[str]]) -> float:
    """Return what people reach: the mean CIDEr-D of every reference against the others of its image.

    Parameters
    ----------
    references : sequence of sequence of str
        The reference captions of each image, two or more. Document frequencies are those of all of them.

    Returns
    -------
    float
        From 0 to 10.

    Raises
    ------
    ValueError
        If there are no images, or one has fewer than two references.
    """
    if not references or min(map(len, references)) < 2:
        raise ValueError("expected two references or more of every image")
    scorer = CiderD(references)
    return math.fsum(
        scorer.score(caption, [*captions[:place], *captions[place + 1 :]]) / len(captions)
        for captions in references
        for place, caption in enumerate(captions)
    ) / len(references)
