"""The console command `quantrust`."""

import argparse
import sys
from collections.abc import Sequence

from quantrust.commands import score
from quantrust.errors import QuantrustError

COMMANDS = (score,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code: 0, or 2 for bad input, whose message then stands on standard error.
    """
    parser = argparse.ArgumentParser(prog="quantrust", description="Reliability of visual question answering.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except QuantrustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
