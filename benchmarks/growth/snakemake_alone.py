"""Snakemake in this process, which imports nothing else of note and writes what it took.

Usage: python snakemake_alone.py COST_JSON SNAKEMAKE_ARGUMENTS...
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from measuring import measured


def run() -> None:
    """Run Snakemake, and end this process where it does not end well."""
    from snakemake.cli import main

    try:
        main(sys.argv[2:])
    except SystemExit as ended:
        if ended.code:
            raise


if __name__ == "__main__":
    cost = measured(run)
    Path(sys.argv[1]).write_text(json.dumps(asdict(cost)))
