"""Where the project lies: what a study finds there when it runs in another folder."""

import os
from pathlib import Path

from quantrust.digest import SCRIPTS

PROJECT = SCRIPTS.parents[1]
"""The folder of the Snakefile."""
DEFAULT = PROJECT / "config.yaml"
"""What every config is laid over."""
SCHEMA = PROJECT / "workflow" / "schemas" / "config.schema.yaml"
CAPTIONS = PROJECT / "workflow" / "report"


def from_here(path: Path) -> str:
    """Return the path of a part of the project as seen from the working folder: a moved study reruns nothing."""
    return os.path.relpath(path)


def here_or_in_project(path: str) -> str:
    """Return a path of a config as it is, or that of the same place in the project if the file is only there.

    Parameters
    ----------
    path : str
        Relative to the working folder, or absolute.
    """
    return path if Path(path).exists() or not (PROJECT / path).exists() else from_here(PROJECT / path)
