"""Captions of the embedded scenes, judged by the facts that they state."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from quantrust.errors import QuantrustError
from quantrust.tasks.captioning import MAX_NEW_TOKENS, check_captions
from quantrust.tasks.cider import cider_d_judge
from quantrust.tasks.scene_facts import Fact, fact_f1, facts_of
from quantrust.tasks.task import Quality, Task


def best_fact_f1(prediction: str, references: Sequence[str]) -> float:
    """Return the F1 of the facts that a caption states, against the reference that it agrees with most.

    People differ in what they mention and in what they see, so that a caption need agree with one of them only, as with
    several right answers in Rajpurkar et al., "SQuAD" (EMNLP 2016).

    Parameters
    ----------
    prediction : str
        The model's caption.
    references : sequence of str
        People's captions, at least one.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> best_fact_f1("a red 3 at the top left.", ["top left a red 8.", "there is a 3 in red at the upper left."])
    1.0
    """
    stated = facts_of(prediction)
    return max(fact_f1(stated, _facts(reference)) for reference in references)


@lru_cache(maxsize=1 << 14)
def _facts(reference: str) -> Counter[Fact]:
    return facts_of(reference)


def _check_references(references: Sequence[str], where: str) -> None:
    check_captions(references, where)
    if not any(_facts(reference) for reference in references):
        raise QuantrustError(
            f"{where}: no reference caption states a fact such as 'a red 3 at the top left'; captions of other "
            "pictures are of the format coco_captions"
        )


def _judge(references: Sequence[Sequence[str]]) -> Quality:
    return best_fact_f1


TASK = Task(
    item="picture",
    quality_name="F1 of facts",
    check_references=_check_references,
    judge=_judge,
    max_new_tokens=MAX_NEW_TOKENS,
    corpus_metrics={"cider_d": cider_d_judge},
)
