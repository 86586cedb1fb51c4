"""Retrieval: a caption looks for its image among those of its split, or an image for one of its captions."""

from collections.abc import Sequence

from quantrust.data.queries import IMAGE_TO_TEXT, TEXT_TO_IMAGE
from quantrust.errors import QuantrustError
from quantrust.tasks.task import Quality, Task


def hit(found: str, sought: Sequence[str]) -> float:
    """Return whether what ranks first is what was looked for: recall at 1 of one query.

    Parameters
    ----------
    found : str
        Identifier of the image or caption that ranks first.
    sought : sequence of str
        Identifiers of the right ones.

    Returns
    -------
    float
        0 or 1.

    Examples
    --------
    >>> hit("b.jpg", ["b.jpg"]), hit("b.jpg#1", ["a.jpg#0", "a.jpg#1"])
    (1.0, 0.0)
    """
    return float(found in sought)


def _check_references(references: Sequence[str], where: str) -> None:
    if not references:
        raise QuantrustError(f"{where}: expected what is looked for, got nothing")


def _judge(references: Sequence[Sequence[str]]) -> Quality:
    return hit


RECALLS = {f"{kind}_r{depth}": (kind, depth) for kind in (TEXT_TO_IMAGE, IMAGE_TO_TEXT) for depth in (1, 5, 10)}

TASK = Task(
    item="query",
    quality_name="R@1",
    check_references=_check_references,
    judge=_judge,
    may_be_mute=True,
    matches=True,
    recalls=RECALLS,
)
