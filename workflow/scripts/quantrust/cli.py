"""The console command `quantrust`."""

import argparse
import sys
from collections.abc import Sequence

from quantrust.commands import (
    answer,
    bundle,
    certify,
    compare,
    export,
    importance,
    plan,
    power,
    recalibrate,
    recheck,
    score,
    serve,
    verify,
)
from quantrust.errors import INTERRUPTED, QuantrustError, out_of_memory, refused_by_system

COMMANDS = (
    plan,
    score,
    compare,
    certify,
    power,
    importance,
    bundle,
    answer,
    serve,
    recalibrate,
    recheck,
    export,
    verify,
)
DESCRIPTION = """\
How far can the answers of a visual question answering model be trusted? These
commands work on files: on tables of scores and predictions of any model, and on
the scores and checkpoints that a study leaves in data/. bundle makes one folder
of what is fit to ship, and answer asks it. plan says what a study will take,
and verify checks its files. A study itself is run with snakemake; see
docs/commands.md."""
EPILOG = """\
examples:
  disk and memory of every job of a study, before it runs
    quantrust plan --config config/paper.yaml
  accuracy, risk-coverage and calibration of own answers
    quantrust score answers.csv --plot reliability.pdf
  thresholds that keep a risk of 5 % with a probability of 90 %
    quantrust certify answers.csv --risks 0.05 --delta 0.1
  how many images show a difference of one point between two variants?
    quantrust power A.csv B.csv --difference 0.01
  which part of a model moves a metric, from a grid of schemes
    quantrust importance grid.csv --metric accuracy \\
        --factors vision_bits language_bits
  what did quantization cost, and is the difference more than chance?
    quantrust compare data/scores/qwen2-vl-tiny/bf16.parquet \\
        data/scores/qwen2-vl-tiny/hqq-w3g64-full.parquet
  a variant that answers or abstains, and a question to it
    quantrust bundle data/checkpoints/qwen2-vl-tiny/hqq-w4g64-full \\
        --risk 0.05 --out my-bundle
    quantrust answer my-bundle --image cat.png --question "what is it?"
  a quantized checkpoint for users of transformers
    quantrust export data/checkpoints/qwen2-vl-tiny/mbq-w4g64-full \\
        --format compressed-tensors --out exported
  thresholds of a bundle for your own questions
    quantrust recalibrate BUNDLE --items labelled.jsonl --out own-bundle
  answers over HTTP, or abstentions
    quantrust serve data/bundles/qwen2-vl-tiny/hqq-w4g64-full --risk 0.05
  has any artifact of the study changed since it was written?
    quantrust verify

quantrust COMMAND --help explains a command with its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code. 0 is success. 2 comes with a message on standard error: bad input, a file that cannot be read or
        written, or a package that is not installed. 1 means that memory ran out, 130 that the user interrupted it. A
        command may state others.
    """
    parser = argparse.ArgumentParser(
        prog="quantrust",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        return parsed.run(parsed) or 0
    except QuantrustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if (message := refused_by_system(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("quantrust"):
            raise
        print(
            f"error: this command needs the package {error.name}, which is not installed; install the project with "
            'its extras: pip install "quantrust[models,workflow,report,serve]"',
            file=sys.stderr,
        )
        return 2
    except Exception as error:
        if (fault := out_of_memory(error)) is None:
            raise
        print(f"error: {fault}; ask for less, such as fewer --resamples, or use a larger machine", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
