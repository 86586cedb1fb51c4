"""The option by which commands take a study's config, as snakemake does."""

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, the overlays that `quantrust.study.config.read_study` reads as one study."""
    parser.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="configs laid over config.yaml, as snakemake's --configfile",
    )
