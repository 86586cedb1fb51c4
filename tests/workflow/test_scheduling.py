"""A local run leaves its waiting jobs alone until a running one has ended."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from quantrust.study import paths
from study_workspace import link_workflow, record_models

# Six jobs end at once; then one runs for seconds while another waits for the only core. Each of the eight has to be
# chosen once, and there is nothing else to choose.
JOBS = 8
EXTENDED = """
include: "Snakefile"

ours = workflow._onstart
chosen = []


onstart:
    {hook}
    choose = workflow.scheduler.job_selector

    def counting(jobs):
        chosen.append(jobs)
        return choose(jobs)

    workflow.scheduler.job_selector = counting


onsuccess:
    print("choices:", len(chosen))


rule quick:
    output:
        "quick/{{number}}",
    localrule: True
    shell:
        "touch {{output}}"


rule slow:
    input:
        expand("quick/{{number}}", number=range(6)),
    output:
        "slow/{{number}}",
    localrule: True
    shell:
        "sleep 3; touch {{output}}"
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    link_workflow(tmp_path)
    record_models(tmp_path)
    return tmp_path


def run(workspace: Path, hook: str, *arguments: str) -> str:
    """Run the slow jobs and return what was printed."""
    return run_extended(workspace, EXTENDED.format(hook=hook), *arguments, "--", "slow/0", "slow/1")


def run_extended(workspace: Path, workflow: str, *arguments: str, status: int = 0) -> str:
    """Run Snakemake with a workflow of the test's own, which must end with this status, and return what was printed."""
    (workspace / "extended.smk").write_text(workflow)
    command = [sys.executable, "-m", "snakemake", "--snakefile", "extended.smk", *arguments]
    done = subprocess.run(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status, done.stdout
    return done.stdout


def choices(printed: str) -> int:
    """Return how often a run chose among the jobs that were ready."""
    (number,) = re.findall(r"^choices: (\d+)$", printed, re.MULTILINE)
    return int(number)


def test_a_local_run_chooses_among_waiting_jobs_only_when_one_has_ended(workspace: Path) -> None:
    assert choices(run(workspace, "ours(log)", "--cores", "1")) <= JOBS


def test_snakemake_itself_would_choose_again_and_again(workspace: Path) -> None:
    """Where this fails, Snakemake has mended its limit of jobs per second: the Snakefile's onstart can go."""
    assert choices(run(workspace, "pass", "--cores", "1")) > 1.5 * JOBS


def test_a_cluster_keeps_the_limit_of_jobs_per_second(workspace: Path) -> None:
    # It ends there: with Slurm's executor a run waits most of a minute before its end.
    hook = "ours(log); print('limit:', workflow.scheduler.job_rate_limiter, flush=True); os._exit(0)"
    printed = run(workspace, hook, "--executor", "slurm", "--jobs", "1", "--local-cores", "1")
    assert "limit: <" in printed


@pytest.mark.parametrize("status", [0, 1], ids=["done", "failed"])
def test_what_a_run_asks_for_is_noted_while_it_runs_and_forgotten_when_it_ends(workspace: Path, status: int) -> None:
    rule = 'include: "Snakefile"\n\n\nrule look:\n    output:\n        "seen",\n    localrule: True\n    shell:\n'
    look = f"cp {paths.ASKED} found; touch {{output}}; exit {status}"
    run_extended(workspace, f"{rule}        {look!r}\n", "--cores", "1", "--", "seen", status=status)
    assert (workspace / "found").is_file()
    assert not (workspace / paths.ASKED).exists()
