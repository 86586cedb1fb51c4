"""What a task consists of, and how it is found by its name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from quantrust.data.format import load_format
from quantrust.named_modules import TASKS, load_module, module_names

BARE = "{question}"
"""A prompt that is the question alone."""
Quality = Callable[[str, Sequence[str]], float]
"""What an answer is worth, in [0, 1], given the reference answers of its question."""
Judge = Callable[[Sequence[Sequence[str]]], Quality]
"""Takes the reference answers of all items, and returns what an answer to one of them is worth."""


@dataclass(frozen=True)
class Task:
    """What is asked and how an answer is judged. A module of `quantrust.tasks` has one, called ``TASK``.

    Attributes
    ----------
    item : str
        What one item is called, in the singular.
    quality_name : str
        What quality is called in figures and tables.
    check_references : callable
        Takes the reference answers of a question and its place, for messages. Raises a `QuantrustError` where an answer
        cannot be judged by them.
    judge : callable
        A `Judge`, which takes the reference answers of a whole dataset. A task may learn what it needs from all of
        them, such as the frequencies of words.
    prompt : str
        The user's text around ``{question}``, where the config has none.
    max_new_tokens : int
        Limit on the tokens of an answer, the end token included, where the config has none.
    may_be_mute : bool
        Whether an item may have no text: the model is then shown the picture alone.
    matches : bool
        Whether an answer is not written by a language model but found among the images and texts of its split, by a
        model that matches them. What it is sure of is then the margin of a score and no probability.
    corpus_metrics : mapping of str to callable
        Metrics of all answers to a split together, by the names of their records in
        `quantrust.evaluation.metric_records`. Each is a `Judge`, which takes the reference answers of that split and
        may return any number for an answer: the metric is the mean of these.
    recalls : mapping of str to (str, int)
        Of a task that matches, shares of queries that find what they look for, by the names of their records in
        `quantrust.evaluation.metric_records`: the kind of the queries, and among how many of what ranks first.
    """

    item: str
    quality_name: str
    check_references: Callable[[Sequence[str], str], None]
    judge: Judge
    prompt: str = BARE
    max_new_tokens: int = 8
    may_be_mute: bool = False
    matches: bool = False
    corpus_metrics: Mapping[str, Judge] = field(default_factory=dict)
    recalls: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def further_metrics(self) -> tuple[str, ...]:
        """The names of the metrics that this task has and others have not."""
        return (*self.corpus_metrics, *self.recalls)


def how_asked(task: Task, *sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prompt of a task's questions and the limit on the tokens of an answer.

    Parameters
    ----------
    task : Task
        What it has counts where no section has anything.
    *sections : mapping
        Sections of a config that may have ``prompt`` and ``max_new_tokens``. The first one that has a value, and not
        null, decides.

    Returns
    -------
    dict
        With ``prompt`` and ``max_new_tokens``.

    Examples
    --------
    >>> how_asked(load_task("vqa"), {"prompt": "{question} Briefly:"}, {"prompt": None, "max_new_tokens": 16})
    {'prompt': '{question} Briefly:', 'max_new_tokens': 16}
    """
    own = {"prompt": task.prompt, "max_new_tokens": task.max_new_tokens}
    return {key: next(section[key] for section in (*sections, own) if section.get(key) is not None) for key in own}


def task_module(name: str) -> str:
    """Return the dotted name of a task's module."""
    return f"{TASKS}.{name}"


def task_names() -> list[str]:
    """Return the names of the tasks: of the modules of `quantrust.tasks` that have one."""
    return [name for name in module_names(TASKS) if hasattr(import_module(task_module(name)), "TASK")]


def load_task(name: str) -> Task:
    """Return the task of a name.

    Raises
    ------
    QuantrustError
        If its module defines no task.
    """
    found: Task = load_module(TASKS, name, ("TASK",)).TASK
    return found


def task_of_format(name: str) -> Task:
    """Return the task whose questions the files of a format hold."""
    return load_task(load_format(name).task)
