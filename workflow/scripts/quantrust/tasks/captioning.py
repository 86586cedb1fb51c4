"""Captions of pictures, judged by CIDEr-D against those that people wrote: COCO captions."""

from collections.abc import Sequence

from quantrust.errors import QuantrustError
from quantrust.tasks.cider import CiderD, caption_words, ceiling, cider_d_judge
from quantrust.tasks.task import Quality, Task

MAX_NEW_TOKENS = 96
"""Captions of photographs take some 15 tokens, those of the embedded scenes up to 90."""


def check_captions(references: Sequence[str], where: str) -> None:
    """Raise a `QuantrustError` unless there are two reference captions or more, each with a word in it."""
    if len(references) < 2:
        raise QuantrustError(
            f"{where}: expected two reference captions or more, got {len(references)}; one says nothing about how much "
            "people differ: use a dataset with several, or take the image out"
        )
    for number, reference in enumerate(references, start=1):
        if not caption_words(reference):
            raise QuantrustError(f"{where}: reference caption {number} holds no word; correct it, or take it out")


def _judge(references: Sequence[Sequence[str]]) -> Quality:
    """Return the CIDEr-D of an answer as a share of what people reach, at most 1.

    Document frequencies and the ceiling are those of the whole dataset, all splits together, so that the quality of an
    answer is the same in every split. That CIDEr-D becomes a quality in [0, 1] in this way is this project's choice.
    """
    scorer, best = CiderD(references), ceiling(references)

    def quality(prediction: str, captions: Sequence[str]) -> float:
        return min(1.0, scorer.score(prediction, captions) / best) if best > 0 else 0.0

    return quality


TASK = Task(
    item="picture",
    quality_name="share of people's CIDEr-D",
    check_references=check_captions,
    judge=_judge,
    max_new_tokens=MAX_NEW_TOKENS,
    may_be_mute=True,
    corpus_metrics={"cider_d": cider_d_judge},
)
