"""Questions with one right answer, which an answer matches or not: GQA and multiple choice."""

from collections.abc import Sequence

from quantrust.data.texts import shown
from quantrust.errors import QuantrustError
from quantrust.tasks.normalisation import answer_words, clean, normalise
from quantrust.tasks.task import Quality, Task


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return whether an answer is the reference answer, both normalised by the rules of the VQA evaluation.

    Articles are kept where nothing else is left of an answer: otherwise the choice A would be an empty answer.

    Parameters
    ----------
    prediction : str
        The model's answer.
    references : sequence of str
        The one reference answer.

    Returns
    -------
    float
        0 or 1.

    Raises
    ------
    ValueError
        If there is not exactly one reference.

    Notes
    -----
    The accuracy of Hudson and Manning, "GQA: A New Dataset for Real-World Visual Reasoning and Compositional Question
    Answering" (CVPR 2019), which compares strings as they are, with the normalisation of the released VQA evaluation
    code (`quantrust.tasks.normalisation.normalise`).

    Examples
    --------
    >>> exact_match("The Table.", ["table"]), exact_match("a.", ["A"]), exact_match("", ["A"])
    (1.0, 1.0, 0.0)
    """
    (reference,) = references
    return float(_form(prediction) == _form(reference))


def _form(answer: str) -> str:
    cleaned = clean(answer)
    return normalise(cleaned) or " ".join(answer_words(cleaned))


def _check_references(references: Sequence[str], where: str) -> None:
    if len(references) != 1:
        raise QuantrustError(f"{where}: expected one reference answer, got {len(references)}")
    if not _form(references[0]):
        raise QuantrustError(
            f"{where}: the reference answer is {shown(references[0])}, and normalisation leaves nothing of it; "
            "expected a word"
        )


def _judge(references: Sequence[Sequence[str]]) -> Quality:
    return exact_match


TASK = Task(item="question", quality_name="accuracy", check_references=_check_references, judge=_judge)
