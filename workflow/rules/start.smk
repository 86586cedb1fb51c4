# Before the config is read: where the project lies, how a study ends when it cannot run, and whether configs can be read.
import os
import shlex
import sys
from pathlib import Path

# Of this file and not of the workflow, which may be another one that uses this one as a module.
BASE = Path(str(workflow.current_basedir)).parents[1]
SCRIPTS = BASE / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))
# Jobs import the package that is digested here, even where the environment has that of another checkout installed.
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")])))
# The C library gives the memory of large arrays back after each operation, and the next one asks for it anew, page by
# page. Jobs keep up to 256 MiB, which saves half of the time that they spend in the kernel, a thirtieth of a dump. The
# library adjusts both numbers itself until one of them is set; 32 MiB is as far as it would raise the second one.
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 << 20))
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 << 20))

from quantrust.errors import QuantrustError
from quantrust.study.config_file import read_config_file


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
# Snakemake would show a traceback of a file that it cannot read, and let the last of several equal keys count. Overlays
# it has read by now, whatever is done here. A module gets its config from another workflow, and reads no file.
if not workflow.modifier.skip_configfile:
    try:
        for path in (CONFIG, *map(os.path.relpath, workflow.overwrite_configfiles)):
            read_config_file(path)
    except QuantrustError as error:
        stop(error)
