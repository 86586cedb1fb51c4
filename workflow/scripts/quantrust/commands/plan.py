"""`quantrust plan`: what a study will take, before any of it runs."""

import argparse
import math
import os
import shutil
from pathlib import Path
from typing import Any

from quantrust.commands.numbers import parsed
from quantrust.commands.outputs import check_table, write_table
from quantrust.commands.study_config import add_config
from quantrust.errors import QuantrustError

GIGABYTE = 10**9

DESCRIPTION = """\
Print what the jobs of a study take: questions, bytes on disk, device and host
memory. Everything is computed from configs: no weight is read and nothing is
downloaded. Run it where snakemake is run.

Sizes of weights files are exact to the byte. Everything else is an estimate,
rounded up where it is not known. The jobs are all those that a first run of
`snakemake` starts, from data to page, in one screen; downloads have a line of
their own. --details prints a line for every kind of job, --out writes a row for
every job."""

EPILOG = """\
examples:
  the default study
    quantrust plan
  the published study, and whether it fits a GPU with 24 GB
    quantrust plan --config config/paper.yaml --device-memory 24
  more lines: every scheme and dataset
    quantrust plan --config config/paper.yaml --details
  every job as a row, in bytes
    quantrust plan --config config/paper.yaml --out plan.csv

what is read:
  of a model      config.json in the folder models.NAME.source; for memory also
                  the files of its processor and tokenizer. For the two
                  published models the project brings these facts along. For
                  another model without files, the message says how to get them
                  without the weights.
  of a dataset    the settings of an embedded one; the official files of others,
                  or the config's entry size while the files are not there
  of a download   the config's entry bytes

what is estimated:
  device          the peak on a GPU, for the largest pictures that the model's
                  processor lets through; - if compute.device is cpu
  host            the peak of the process and its workers
  ?               not known; > a lower bound; ~ a share of a known number

the disk and the memory:
  A line adds up all downloads, artifacts (those already there included)
  and the largest scratch files, and compares the sum with the free space on the
  disk of data/ (of the current folder, if there is no data/). If that is too
  little, a warning follows. Another warning follows if a job may take more host
  memory than this machine has, or than --host-memory says. Jobs that run at the
  same time take more together. Warnings do not change the exit code, because
  the study may be meant for another machine.

how models are asked:
  Of a model that was not made for this project, the last lines show the prompt
  and the longest answer, in tokens, for each dataset. The default is the bare
  question and 8 tokens, which suit the embedded models. models.NAME.prompt and
  features.max_new_tokens change them.

The exit code is 2 if something could not be planned, or if a job does not fit
into --device-memory."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "plan",
        help="what a study will take on disk and in memory",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    parser.add_argument(
        "--device-memory",
        type=_gigabytes,
        metavar="GB",
        help="memory of the GPU; jobs that take more are marked",
    )
    parser.add_argument(
        "--host-memory",
        type=_gigabytes,
        metavar="GB",
        help="host memory of the machine that jobs are for; this machine's by default",
    )
    parser.add_argument("--details", action="store_true", help="print a line for every kind of job")
    parser.add_argument("--out", type=Path, metavar="OUT", help="write all jobs to this .csv or .json file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Plan, write what was asked for and print a table.

    Raises
    ------
    QuantrustError
        For a faulty config; and, after what is known was printed, if something could not be planned or does not fit.
    """
    # torch takes seconds to import, which the other commands need not wait for
    from quantrust.planning.estimates import check_fit, plan_study, with_fit
    from quantrust.planning.text import asking_text, disk_text, host_text, plan_text, summary_text
    from quantrust.study.config import HERE, read_study
    from quantrust.study.places import DEFAULT

    if arguments.out is not None:
        check_table(arguments.out, (HERE, DEFAULT, *arguments.config))
    config = read_study(arguments.config)
    limit = arguments.device_memory
    if limit is not None and config["compute"]["device"] == "cpu":
        raise QuantrustError("--device-memory is given, but compute.device of the config is cpu: no job uses a GPU")
    plan = plan_study(config)
    jobs = with_fit(plan.jobs, limit)
    if arguments.out is not None:
        head = {"device_memory": limit, "downloads": plan.downloads, "unknown": plan.unknown}
        write_table(arguments.out, jobs, head)
    # data/ often is a link to a larger disk
    study = next(folder for folder in (Path("data"), Path()) if folder.is_dir())
    table = plan_text(jobs) if arguments.details else summary_text(jobs, plan.downloads)
    print(table, disk_text(jobs, plan.downloads, shutil.disk_usage(study).free), sep="\n\n")
    given = arguments.host_memory
    memory, where = (_memory_here(), "this machine has") if given is None else (given, "--host-memory says")
    for further in (host_text(jobs, memory, where), asking_text(config)):
        if further:
            print(further)
    if plan.unknown:
        raise QuantrustError("\n".join(plan.unknown))
    check_fit(jobs, limit)


def _memory_here() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gigabytes(text: str) -> int:
    value = parsed(float, text, "a number of gigabytes")
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not an amount of memory; expected gigabytes, a number above 0")
    return round(value * GIGABYTE)
