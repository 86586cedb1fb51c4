"""Snakemake's own part of a study: the dry run of so many jobs, and the scheduling of trivial ones."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from growth.study import scheme_names
from measuring import Cost, cpu_seconds, peak_memory
from quantrust.study.config import study_config
from quantrust.study.jobs import study_jobs
from study_workspace import link_workflow, record_models

RUNNER = Path(__file__).parent / "snakemake_alone.py"
LOG, COST = "run.log", "cost.json"
OVERLAY = "study.yaml"
DONE, LATER = "trivial", "later"
"""Folders of the files that trivial jobs make, and of those that are made when all of these have ended."""
CORES, WAITING = 2, 12
"""Then as many jobs as there are cores do nothing for a while, and these jobs wait for them."""
TRIVIAL = """
include: "Snakefile"


ours = workflow._onstart


onstart:
    {hook}


rule trivial:
    output:
        "{done}/{{number}}",
    localrule: True
    shell:
        "touch {{output}}"


rule then:
    input:
        expand("{done}/{{number}}", number=range({jobs})),
    output:
        "{later}/then",
    localrule: True
    shell:
        "touch {{output}}"


rule hold:
    input:
        "{later}/then",
    output:
        "{later}/hold{{number}}",
    localrule: True
    priority: 1
    shell:
        "sleep {held_s}; touch {{output}}"


rule wait:
    input:
        "{later}/then",
    output:
        "{later}/wait{{number}}",
    localrule: True
    shell:
        "touch {{output}}"


rule all_trivial:
    input:
        expand("{later}/hold{{number}}", number=range({cores})),
        expand("{later}/wait{{number}}", number=range({waiting})),
    localrule: True
"""
HOOKS = {"as the Snakefile has it": "ours(log)", "with the limit of jobs per second": "pass"}
"""What happens when a run starts, by what it does to Snakemake's limit of jobs per second."""


def overlay_of(jobs: int) -> dict[str, Any]:
    """Return the overlay of the study whose number of jobs is nearest: the default one with as many schemes."""

    def overlay(schemes: int) -> dict[str, Any]:
        return {"study": {"schemes": scheme_names(schemes)}}

    def count(schemes: int) -> int:
        return len(study_jobs(study_config(overlay(schemes))))

    few, more = 10, 20
    each = (count(more) - count(few)) / (more - few)
    return overlay(max(2, few + round((jobs - count(few)) / each)))


def prepare_plan(folder: Path, jobs: int) -> int:
    """Write the workspace of a study of about so many jobs, and return how many it has."""
    folder.mkdir(parents=True)
    link_workflow(folder)
    record_models(folder)
    overlay = overlay_of(jobs)
    (folder / OVERLAY).write_text(yaml.safe_dump(overlay))
    return len(study_jobs(study_config(overlay)))


def plan(folder: Path) -> Cost:
    """Have Snakemake plan the study in a folder, as `snakemake -n` does, and return what it took."""
    return run_snakemake(folder, "--configfile", OVERLAY, "--cores", str(CORES), "--dry-run")


def prepare_trivial(folder: Path, jobs: int, hook: str, held_s: float) -> None:
    """Write a workspace with so many jobs that do nothing, all of them ready when the run starts, and the few later."""
    folder.mkdir(parents=True)
    link_workflow(folder)
    record_models(folder)
    sizes = {"jobs": jobs, "held_s": held_s, "cores": CORES, "waiting": WAITING}
    (folder / "trivial.smk").write_text(TRIVIAL.format(hook=hook, done=DONE, later=LATER, **sizes))


def run_trivial(folder: Path, limit_s: float) -> Cost:
    """Run the jobs that do nothing on two cores, at most for so many seconds, and return what the main process took."""
    arguments = ("--snakefile", "trivial.smk", "--cores", str(CORES), "--", "all_trivial")
    return run_snakemake(folder, *arguments, limit_s=limit_s)


def jobs_done(folder: Path) -> int:
    """Return how many of the jobs that do nothing have ended."""
    return len(list((folder / DONE).glob("*")))


def run_snakemake(folder: Path, *arguments: str, limit_s: float | None = None) -> Cost:
    """Run Snakemake in a process of its own; what it prints goes to a file in the folder.

    Raises
    ------
    RuntimeError
        If it does not end well, with the end of what it printed.
    """
    path = os.pathsep.join(filter(None, [str(RUNNER.parents[1]), os.environ.get("PYTHONPATH")]))
    with open(folder / LOG, "wb") as log:
        command = [sys.executable, str(RUNNER), COST, *arguments]
        environment = os.environ | {"PYTHONPATH": path}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        started = time.perf_counter()
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            cpu_s, peak = cpu_seconds(process.pid), peak_memory(process.pid)
            return Cost(time.perf_counter() - started, cpu_s, peak, before=0, ended=False)
        finally:
            process.kill()
            process.wait()
    if code:
        raise RuntimeError("".join((folder / LOG).read_text().splitlines(keepends=True)[-20:]))
    return Cost(**json.loads((folder / COST).read_text()))
