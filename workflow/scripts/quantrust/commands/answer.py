"""`quantrust answer`: a bundle answers questions about images, or abstains."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantrust.commands.numbers import as_given, count, share
from quantrust.commands.outputs import check_not_read, check_writable
from quantrust.data.format import format_names
from quantrust.errors import QuantrustError

if TYPE_CHECKING:
    from quantrust.bundle.load import Answer, Bundle

ABSTAINED = 3
"""The exit code where the bundle abstains."""

DESCRIPTION = """\
Ask a bundle about images. It answers where its confidence reaches the threshold
for the risk limit, and abstains elsewhere."""

EPILOG = """\
examples:
  one question
    quantrust answer my-bundle --image cat.png --question "what is it?"
  a caption, of a bundle of a study on captions
    quantrust answer my-captions --image cat.png
  at a stricter risk limit, as JSON
    quantrust answer my-bundle --image cat.png --question "what is it?" \\
        --risk 0.01 --json
  many: an object a line with image, question (not for captions) and, if you
  like, id
    quantrust answer my-bundle --items items.jsonl --out answers.jsonl
  the official questions of a dataset
    quantrust answer my-bundle --items v2_OpenEnded_mscoco_val2014.json \\
        --images val2014 --out answers.jsonl

With --items the file has a line for every item, in the items' order: the answer
with its confidence, whether the bundle answers or abstains, and the threshold;
or an error, where an image or a question cannot be used. What is done so far
stands in answers.jsonl.unfinished. The same command continues there, also after
it was killed.

The exit code is 0 if the question is answered, or all items have their line; 3
if the bundle abstains from the one question; 2 with a message for bad input."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "answer",
        help="ask a bundle, which answers or abstains",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the image that is asked about")
    parser.add_argument("--question", metavar="TEXT", help="the question; not for captions")
    parser.add_argument("--json", action="store_true", help="print all that is known of the answer as JSON")
    parser.add_argument(
        "--items", type=Path, metavar="FILE", help="questions about images: .jsonl, .csv, .parquet, or official .json"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the items' images (default: that of FILE)"
    )
    parser.add_argument(
        "--format",
        choices=format_names(),
        metavar="NAME",
        help=f"format of official questions: {', '.join(format_names())} (default: the one they look like)",
    )
    parser.add_argument("--out", type=Path, metavar="OUT.jsonl", help="file for the answers to the items")
    parser.add_argument(
        "--risk", type=share, metavar="R", help="risk limit, one that the bundle has (default: the bundle's own)"
    )
    parser.add_argument(
        "--threshold",
        choices=("val", "certified"),
        help="kind of threshold (default: certified where there is one for the limit)",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default: cpu)")
    parser.add_argument(
        "--kernel", choices=("reference", "packed"), help="how quantized layers multiply (default: as in the study)"
    )
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="of the processor (default: 1, as in the study)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer one question or many, and return the exit code.

    Raises
    ------
    QuantrustError
        If the bundle is damaged, there is no such operating point, the one image or question cannot be used, or items
        or output are faulty. Nothing is then written.
    """
    _check_usage(arguments)
    # torch takes seconds to import, which the other commands need not wait for
    from quantrust.bundle.load import Bundle
    from quantrust.bundle.record import read_bundle

    # what is asked for in vain is said before the weights are loaded
    record = read_bundle(arguments.bundle)
    record.point(arguments.risk, arguments.threshold)
    if arguments.items is None and arguments.question is None and record.asked is None:
        raise QuantrustError(f"{arguments.bundle}: answers questions; expected --question beside --image")
    if arguments.question is not None and (fault := record.other_question(arguments.question)) is not None:
        raise QuantrustError(f"{arguments.bundle}: {fault}")

    def load() -> "Bundle":
        return Bundle.load(arguments.bundle, arguments.device, arguments.kernel, threads=arguments.threads)

    if arguments.items is None:
        answer = load().answer(arguments.image, arguments.question, arguments.risk, kind=arguments.threshold)
        _print(answer, arguments.json)
        return 0 if answer.answered else ABSTAINED
    from quantrust.bundle.answers_file import answer_items
    from quantrust.bundle.items_file import read_items

    items = read_items(arguments.items, arguments.images, arguments.format, record.asked)
    check_not_read(arguments.out, [arguments.items])
    check_writable(arguments.out)
    done = answer_items(load(), arguments.bundle, items, arguments.out, risk=arguments.risk, kind=arguments.threshold)
    print(
        f"{arguments.out}: {done.answered:,} answered, {done.abstained:,} abstained, {done.failed:,} that could not be "
        "answered"
    )
    return 0


def _check_usage(arguments: argparse.Namespace) -> None:
    one, many = (arguments.image, arguments.question), (arguments.items, arguments.out)
    if arguments.image is not None and many == (None, None) and arguments.images is None:
        if arguments.question is not None and not arguments.question.strip():
            raise QuantrustError("--question is empty; expected a text")
    elif not (all(part is not None for part in many) and one == (None, None) and not arguments.json):
        raise QuantrustError(
            "expected either --image and --question (--image alone of a bundle for captions), or --items and --out"
        )
    if arguments.threads < 1:
        raise QuantrustError("--threads is 0; expected a number from 1 on")


def _print(answer: "Answer", as_json: bool) -> None:
    if as_json:
        from quantrust.bundle.answers_file import answer_record

        print(json.dumps(answer_record(answer), ensure_ascii=False, indent=2))
        return
    from quantrust.bundle.record import percent

    point = answer.operating_point
    promise = (
        f"certified, except with probability {as_given(point.delta)}"
        if answer.certified and point.delta
        else ("certified elsewhere, not here" if point.certified else "set on val, not certified")
    )
    print(answer.answer if answer.answered else "(abstained)")
    relation = "reaches" if answer.answered else "is below"
    print(
        f"confidence {answer.confidence!r} {relation} the threshold {point.threshold!r} for a risk of at most "
        f"{percent(point.risk_limit)} ({promise})"
    )
    if answer.note is not None:
        print(f"note: {answer.note}")
