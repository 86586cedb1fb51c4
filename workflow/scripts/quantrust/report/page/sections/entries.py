"""The page's sections in their order. A new section is an entry here and a template beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]


def _always(values: Values) -> bool:
    return True


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    name : str
        Its anchor, and its template `<name>.html` in this folder, which holds what stands below the heading.
    title : str
        Its heading, and its entry in the list of contents.
    folded : bool
        Whether the page starts with the heading alone. A press on the heading or on the entry in the list of contents
        unfolds it, and printing does so too. A chart has no width in a folded section.
    wanted : callable
        Takes the values of the templates and returns whether the study has anything to show here.
    """

    name: str
    title: str
    folded: bool = False
    wanted: Callable[[Values], bool] = _always


SECTIONS = (
    Section("verdicts", "Verdicts"),
    Section("summary", "In words", folded=True),
    Section("decide", "Decide"),
    Section("risk-coverage", "Risk and coverage"),
    Section("mixtures", "Mixtures", wanted=lambda values: bool(values["shifts"])),
    Section("fairness", "Fairness by group", folded=True, wanted=lambda values: values["fairness"] is not None),
    Section("published", "Beside the paper", wanted=lambda values: values["published"] is not None),
    Section("shares", "Beside the published shares", wanted=lambda values: values["shares"] is not None),
    Section("figures", "Figures", folded=True),
    Section("examples", "Examples", folded=True),
    Section("checkpoints", "Checkpoints", folded=True),
    Section("questions", "Data", folded=True),
    Section("provenance", "Provenance", folded=True),
)


def sections_of(values: Values) -> list[Section]:
    """Return the sections that a page has, from the values of its templates."""
    return [section for section in SECTIONS if section.wanted(values)]
