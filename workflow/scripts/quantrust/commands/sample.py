"""Arguments of the commands that ask a bundle the items of a user's table."""

import argparse
from pathlib import Path

from quantrust.commands.numbers import share
from quantrust.tasks.task import task_names

ITEMS = """\
ITEMS is a table (.jsonl, .csv or .parquet) with the columns image, question and
answers, and if you like id and image_id. In JSONL a line is
  {"image": "cat.png", "question": "what animal is it?", "answers": ["cat"]}
Paths of images start from the folder of the table. answers is a text or a list
of texts. Rows with the same image_id are about one image; without that column,
rows whose image files have the same bytes are."""


def add_asking(parser: argparse.ArgumentParser) -> None:
    """Add what is asked, how it is judged and on what the bundle runs."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    parser.add_argument("--items", type=Path, required=True, metavar="ITEMS", help="table of questions, see below")
    parser.add_argument(
        "--task",
        choices=task_names(),
        default="vqa",
        metavar="TASK",
        help=f"how answers are judged: {', '.join(task_names())} (default: vqa)",
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


def inner(text: str) -> float:
    """Read a number between 0 and 1."""
    value = share(text)
    if value in (0.0, 1.0):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
