# Before the config is read: where the project lies, and how a study ends when it cannot run.
import shlex
import sys
from pathlib import Path

# Of this file and not of the workflow, which may be another one that uses this one as a module.
BASE = Path(str(workflow.current_basedir)).parents[1]


def stop(message):
    """End snakemake with one message, as its jobs end; around an exception it would put files, lines and wildcards."""
    sys.exit(f"error: {message}")


# Snakemake reads the paths of scripts as patterns.
if {"{", "}"} & set(str(BASE)):
    stop(
        f"the project lies in {BASE}, and Snakemake takes braces in a path for wildcards; give the folder another name"
    )
# Snakemake writes the interpreter into shell commands as it is. Quoted, its path may hold spaces; an environment in a
# project folder has them in its path as well.
if Path(sys.executable).is_file():
    sys.executable = shlex.quote(sys.executable)
# A config in the folder where the study runs is laid over the project's own.
CONFIG = "config.yaml" if Path("config.yaml").is_file() else str(BASE / "config.yaml")
