"""Visual question answering with several reference answers, judged by soft accuracy: VQAv2, AdVQA and VizWiz."""

from collections.abc import Sequence

from quantrust.errors import QuantrustError
from quantrust.tasks.normalisation import clean, normalise
from quantrust.tasks.task import Quality, Task

ENOUGH = 3
"""Other annotators who must have given an answer for it to be fully right."""


def soft_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Return the soft VQA accuracy of one answer.

    Each of the n references, taken by its position, is left out in turn, the other n - 1 are searched for the
    prediction, and ``min(1, matches / k)`` is scored with k = 3. The accuracy is the mean of the n scores. This is the
    official formula, which is published for n = 10 and gives 0, 0.3, 0.6, 0.9 or 1.

    It is generalised to fewer references so that an answer that all annotators gave is worth 1: k is
    ``min(3, n - 1)``, which changes nothing from n = 4 on. One reference leaves no others: it is searched itself,
    and the accuracy is 0 or 1.

    Normalisation applies only if the references are not all identical; otherwise the cleaned strings are compared as
    they are. One reference, which shows no agreement, is always normalised.

    Parameters
    ----------
    prediction : str
        The model's answer.
    references : sequence of str
        The reference answers, at least one, in any order.

    Returns
    -------
    float
        In [0, 1], a multiple of 1 / (n k).

    Raises
    ------
    ValueError
        If there are no references.

    Notes
    -----
    Antol et al., "VQA: Visual Question Answering" (ICCV 2015), as evaluated by the released VQA evaluation code. What
    holds for fewer than four references is this project's choice.

    Examples
    --------
    >>> soft_accuracy("Two", ["2", "two"] + ["3"] * 8)
    0.6
    >>> soft_accuracy("Two", ["2"] * 10)
    0.0
    >>> soft_accuracy("Two", ["2"])
    1.0
    """
    n = len(references)
    if n == 0:
        raise ValueError("expected at least one reference answer, got none")
    answer = clean(prediction)
    cleaned = [clean(reference) for reference in references]
    if n == 1 or len(set(cleaned)) > 1:
        answer = normalise(answer)
        cleaned = [normalise(reference) for reference in cleaned]
    matches = cleaned.count(answer)
    if n == 1:
        return float(matches)
    enough = min(ENOUGH, n - 1)
    # A reference that matches sees one match fewer among the others. Whole numbers, so that one division rounds once.
    total = matches * min(enough, matches - 1) + (n - matches) * min(enough, matches)
    return total / (n * enough)


def _check_references(references: Sequence[str], where: str) -> None:
    if not references:
        raise QuantrustError(f"{where}: expected at least one reference answer, got none")


def _judge(references: Sequence[Sequence[str]]) -> Quality:
    return soft_accuracy


TASK = Task(item="question", quality_name="soft accuracy", check_references=_check_references, judge=_judge)
