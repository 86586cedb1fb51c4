"""What a report calls the items of a study and the quality of answers, by what the task of the ID dataset says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """What a report calls the items of a study, and the quality of answers.

    Attributes
    ----------
    item, items : str
        One item, and several.
    quality : str
        The mean quality of answers.
    """

    item: str = "question"
    items: str = "questions"
    quality: str = "accuracy"


PICTURE = "picture"
"""What an item is called that is an image and nothing else."""

USUAL = Words()


def words_for(item: str, quality: str) -> Words:
    """Return the words for a task's item and quality.

    Every quality that is an accuracy is called so; others have the names that their tasks give them.

    Examples
    --------
    >>> words_for("query", "R@1").items, words_for("question", "soft accuracy").quality
    ('queries', 'accuracy')
    """
    items = f"{item[:-1]}ies" if item.endswith("y") else f"{item}s"
    return Words(item, items, "accuracy" if "accuracy" in quality else quality)
