# Before the config is read: where a study runs, and how it ends when it cannot.
import os
import shlex
import sys
from pathlib import Path

BASE = Path(workflow.basedir)


def stop(message):
    """End snakemake with one message, as its jobs end; around an exception it would put files, lines and wildcards."""
    sys.exit(f"error: {message}")


# Snakemake reads the paths of scripts as patterns.
if {"{", "}"} & set(str(BASE)):
    stop(
        f"the project lies in {BASE}, and Snakemake takes braces in a path for wildcards; give the folder another name"
    )
if not Path("config.yaml").is_file():
    stop(
        f"{Path.cwd()} holds no config.yaml, which every study is laid over; go to the folder of the project, {BASE}, or "
        "name it with --directory"
    )
# Snakemake writes the interpreter into shell commands as it is. Quoted, its path may hold spaces; an environment in a
# project folder has them in its path as well.
if Path(sys.executable).is_file():
    sys.executable = shlex.quote(sys.executable)
