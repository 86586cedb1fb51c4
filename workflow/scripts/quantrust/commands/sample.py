"""Arguments of the commands that ask a bundle the items of a user's table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from quantrust.commands.numbers import share
from quantrust.errors import QuantrustError
from quantrust.report.item_words import words_for
from quantrust.tasks.task import load_task, task_names

if TYPE_CHECKING:
    from quantrust.bundle.record import BundleRecord

USUAL_TASK = "vqa"
"""How answers to questions are judged where nothing else is asked for."""

ITEMS = """\
ITEMS is a table (.jsonl, .csv or .parquet) with the columns image, question and
answers, and if you like id and image_id. In JSONL a line is
  {"image": "cat.png", "question": "what animal is it?", "answers": ["cat"]}
Paths of images start from the folder of the table. answers is a text or a list
of texts. Rows with the same image_id are about one image; without that column,
rows whose image files have the same bytes are. A bundle that asks the same
about every picture, as one that captions does, needs no question."""


def add_asking(parser: argparse.ArgumentParser) -> None:
    """Add what is asked, how it is judged and on what the bundle runs."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    parser.add_argument("--items", type=Path, required=True, metavar="ITEMS", help="table of questions, see below")
    parser.add_argument(
        "--task",
        choices=task_names(),
        metavar="TASK",
        help=f"how answers are judged: {', '.join(task_names())} (default: as in the study; of questions {USUAL_TASK})",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs (default: %(default)s)")
    parser.add_argument(
        "--kernel",
        choices=("reference", "packed"),
        help="how quantized layers multiply (default: as in the study)",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="dtype (default: as in the study)")
    parser.add_argument(
        "--attention",
        choices=("eager", "sdpa", "flash_attention_2"),
        help="attention of the model (default: as in the study)",
    )


def task_for(record: "BundleRecord", given: str | None) -> str:
    """Return the task by which a bundle's answers are judged.

    Parameters
    ----------
    record : BundleRecord
    given : str or None
        The task that was asked for; None for that of the study. Where several call their quality an accuracy, that is
        `USUAL_TASK`.

    Raises
    ------
    QuantrustError
        If the task judges other items than those of the bundle, or none is like that of the study.
    """
    tasks = {name: load_task(name) for name in sorted(task_names(), key=lambda name: name != USUAL_TASK)}
    if given is None:
        given = next((n for n, task in tasks.items() if words_for(task.item, task.quality_name) == record.words), None)
        if given is None:
            raise QuantrustError(f"no task has {record.quality} as its quality; name one with --task")
    if tasks[given].item != record.item:
        fitting = ", ".join(sorted(name for name, task in tasks.items() if task.item == record.item)) or "none"
        raise QuantrustError(
            f"--task {given} judges answers to a {tasks[given].item}, but this bundle was measured on "
            f"{record.words.items}; tasks of these: {fitting}"
        )
    return given


def inner(text: str) -> float:
    """Read a number between 0 and 1."""
    value = share(text)
    if value in (0.0, 1.0):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
