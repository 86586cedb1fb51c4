"""CIDEr-D against values worked out by hand, and against a plain computation over whole dictionaries."""

import math
from collections import Counter

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from quantrust.tasks.cider import CiderD, caption_words, ceiling, cider_d

WORDS = ["a", "red", "bus", "cat", "dog", "on", "the", "road", "black", "small"]


def plain_cider_d(answers, references):
    """The definition, one n at a time, with vectors over every n-gram of the references and answers."""

    def counts(text, n):
        words = text.split()
        return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))

    scores = []
    for answer, captions in zip(answers, references, strict=True):
        total = 0.0
        for n in (1, 2, 3, 4):
            df = Counter()
            for others in references:
                df.update(set().union(*(counts(text, n) for text in others)))
            every = sorted(set(df) | set().union(*(counts(text, n) for text in answers)))
            idf = np.array([math.log(len(references)) - math.log(max(1, df[gram])) for gram in every])
            own = np.array([counts(answer, n)[gram] for gram in every]) * idf
            for caption in captions:
                right = np.array([counts(caption, n)[gram] for gram in every]) * idf
                norms = np.linalg.norm(own) * np.linalg.norm(right)
                cosine = (np.minimum(own, right) * right).sum() / norms if norms else 0.0
                apart = len(answer.split()) - len(caption.split())
                total += cosine * math.exp(-(apart**2) / 72) / len(captions)
        scores.append(10 * total / 4)
    return np.mean(scores)


def sentences(rng, count):
    return [" ".join(rng.choice(WORDS, size=int(rng.integers(1, 9)))) for _ in range(count)]


def test_it_is_the_plain_computation():
    rng = np.random.default_rng(0)
    for _ in range(20):
        references = [sentences(rng, int(rng.integers(1, 6))) for _ in range(int(rng.integers(2, 7)))]
        answers = sentences(rng, len(references))
        assert cider_d(answers, references) == pytest.approx(plain_cider_d(answers, references), abs=1e-9)


def test_it_is_what_the_coco_caption_evaluation_computes():
    """Its scorer is given the words of the Penn treebank, which it would take from a Java program."""
    rng = np.random.default_rng(1)
    references = [sentences(rng, int(rng.integers(2, 6))) for _ in range(40)]
    answers = sentences(rng, len(references))
    by_number = (dict(enumerate(references)), {place: [answer] for place, answer in enumerate(answers)})
    whole, each = Cider().compute_score(*by_number)
    assert cider_d(answers, references) == pytest.approx(whole, abs=1e-12)
    own = CiderD(references)
    assert [own.score(*pair) for pair in zip(answers, references, strict=True)] == pytest.approx(each, abs=1e-12)
    assert whole > 0.1


def test_an_answer_that_is_the_only_reference_has_all_of_every_n():
    """Four words have an n-gram of each n, and two have none of three and four."""
    assert cider_d(["a red bus here", "one black cat sits"], [["a red bus here"], ["one black cat sits"]]) == 10.0
    assert cider_d(["red bus", "black cat"], [["red bus"], ["black cat"]]) == 5.0


def test_one_word_of_two_by_hand():
    """Both words are as rare, so that the cosine of single words is a half; no pair of words is common."""
    scorer = CiderD([["red bus"], ["black cat"]])
    assert scorer.score("red cat", ["red bus"]) == pytest.approx(10 * 0.5 / 4)
    # one word: a cosine of 1 / sqrt(2), one word shorter
    assert scorer.score("red", ["red bus"]) == pytest.approx(10 * math.sqrt(0.5) * math.exp(-1 / 72) / 4)
    # a word more often than the reference has it counts as often as there, but lengthens the answer
    assert scorer.score("red red", ["red bus"]) == pytest.approx(10 * math.sqrt(0.5) / 2 / 4)
    assert scorer.score("", ["red bus"]) == 0.0


def test_what_is_in_the_captions_of_every_image_says_nothing():
    assert cider_d(["a", "a"], [["a bus"], ["a cat"]]) == 0.0
    assert cider_d(["a bus"], [["a bus"]]) == 0.0


def test_the_ceiling_is_that_of_each_reference_against_the_others():
    references = [["a red bus", "the red bus", "a bus"], ["a cat", "one black cat"]]
    scorer = CiderD(references)
    by_hand = [
        [
            scorer.score(caption, [other for k, other in enumerate(captions) if k != place])
            for place, caption in enumerate(captions)
        ]
        for captions in references
    ]
    assert ceiling(references) == pytest.approx(np.mean([np.mean(scores) for scores in by_hand]))


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man, a plan.", "a man a plan"),
        ("Don't! It can't; she'll", "do n't it ca n't she 'll"),
        ("the dogs' and the dog\N{RIGHT SINGLE QUOTATION MARK}s", "the dogs and the dog 's"),
        ('t-shirt -- and - a "no" (yes)...', "t-shirt and a no yes"),
        ("cannot cost $1,000.50 at 3:30", "can not cost $ 1,000.50 at 3:30"),
        ("ein Café, 二", "ein café 二"),
        ("...", ""),
        ("", ""),
    ],
)
def test_words_of_a_caption(caption, words):
    assert list(caption_words(caption)) == words.split()


def test_what_cannot_be_scored_is_a_value_error():
    with pytest.raises(ValueError, match="at least one answer"):
        cider_d([], [])
    with pytest.raises(ValueError, match="two references or more"):
        ceiling([["a cat", "the cat"], ["a bus"]])
