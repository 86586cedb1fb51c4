"""`quantrust verify`: whether a study's artifacts are still as they were written."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantrust.commands.study_config import add_config
from quantrust.errors import QuantrustError

DAMAGED = 1
"""The exit code where an artifact is damaged."""

DESCRIPTION = """\
Read every artifact of a study, from data to page, and compare its bytes with
the digest that it was written with. Names every damaged artifact, and the
commands that build it anew. Run it where snakemake is run. A study need not be
finished: missing artifacts are counted, and are not an error."""

EPILOG = """\
examples:
  the default study
    quantrust verify
  another one
    quantrust verify --config config/quick.yaml

what is checked:
  data/       tables, each with a digest in its own footer; datasets, models,
              checkpoints and Selectors, each a folder with a record of its
              files; models trained here, and bundles, if they are there;
              records of downloads
  reports/    figures, tables and the page, with their digests in .digests/
Files of yours are not checked: official files, images and model folders that
the config names, and config/. Downloads are checked by `snakemake download`,
against config/lock/.

The exit code is 0 if all artifacts that are there are whole, 1 if one is
damaged, and 2 if the config is faulty or none of the study's artifacts is
there."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "verify",
        help="whether a study's artifacts are still as they were written",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify, say what was found and return the exit code.

    Raises
    ------
    QuantrustError
        For a faulty config, or if nothing of the study is there.
    """
    # polars takes a while to import, which the other commands' help need not wait for
    from quantrust.planning.integrity import verify_study
    from quantrust.study.config import read_study

    found = verify_study(read_study(arguments.config))
    count = len(found.whole) + len(found.damaged)
    if not count:
        raise QuantrustError(
            f"none of the study's {len(found.absent)} artifacts is here, for example {found.absent[0]}; go to the "
            "folder in which the study ran, and give the same --config"
        )
    for message in found.damaged.values():
        print(f"damaged: {message}")
    absent = f"; {len(found.absent)} more are not there" if found.absent else ""
    if not found.damaged:
        print(f"all {count} artifacts that are there are whole{absent}")
        return 0
    print(f"{len(found.damaged)} of {count} artifacts are damaged{absent}. This builds them anew:")
    print(rebuilding(list(found.damaged), arguments.config))
    return DAMAGED


def rebuilding(paths: Sequence[str], configs: Sequence[Path]) -> str:
    """Return the commands that build artifacts anew, two lines for a shell."""
    configfile = ["--configfile", *map(str, configs)] if configs else []
    return f"  {shlex.join(['rm', '-r', *paths])}\n  {shlex.join(['snakemake', *configfile, '--', *paths])}"
