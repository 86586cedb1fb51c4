"""A small study on a real Slurm, through the profile that ships: interrupted, taken up again, and run to its end."""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hunting import HUNTING
from study_workspace import ROOT, STUDY, Workspace

pytestmark = pytest.mark.slurm

# A shipped model, on a few dozen questions.
MODEL, SCHEMES = "adversary", ("bf16", "hqq-w3g32-full")
OVERLAY = {
    "study": {
        "models": [MODEL],
        "schemes": list(SCHEMES),
        "shifts": ["scenes-multimodal"],
        "estimators": ["maxprob", "selector"],
    },
    "datasets": {
        "scenes": {"images": {"dev": 24, "val": 12, "test": 14}, "questions_per_image": 2, "captions": 16},
        "scenes-multimodal": {"images": 24},
    },
    "features": {"workers": 1},
    "selector": {"epochs": 2, "members": 2},
    "evaluation": {"resamples": 20},
    "certification": {"splits": 5},
    "comparison": {"resamples": 20},
}
# What comes after them, figures and tables, is submitted as they are. In a hunt the study is run whole.
TARGETS = (
    [] if HUNTING else [*(f"data/metrics/{MODEL}/{scheme}.parquet" for scheme in SCHEMES), "reports/risk_coverage.pdf"]
)
PROFILE = Path("workflow", "profiles", "slurm", "config.yaml")
# MB in which no process fits that loads torch; it fits in twice as much.
TOO_LITTLE = 400
# What a cluster without a database of its jobs needs; and the first look after a second, because jobs here are short.
FOR_THIS_CLUSTER = [
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
    "--slurm-no-account",
]


class ClusterWorkspace(Workspace):
    """A folder with a copy of the workflow, in which a study runs on a cluster."""

    def __init__(self, folder: Path, cluster) -> None:
        super().__init__(folder)
        self.cluster = cluster

    def command(self, *arguments: str) -> list[str]:
        # A process in the background of a shell, and all that it starts, would ignore Ctrl-C.
        python = ["env", "--default-signal=INT", super().command()[0]]
        profile = ["--workflow-profile", "slurm", *FOR_THIS_CLUSTER]
        return [*python, "-m", "snakemake", *profile, "--configfile", STUDY, *arguments]

    def environment(self) -> dict[str, str]:
        return {key: value for key, value in self.cluster.environment.items() if key != "PYTHONPATH"}

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Start a run that does not outlive the block."""
        run = self.start("--", *TARGETS)
        try:
            yield run
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()

    def written(self) -> dict[str, int]:
        """Return when each file of finished artifacts was written; of unfinished features there may be parts."""
        folders = (self.folder / "data" / name for name in ("embedded", "questions", "models", "checkpoints"))
        return {
            str(path.relative_to(self.folder)): path.stat().st_mtime_ns
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file()
        }


@dataclass
class Run:
    """How a run ended, what it printed, its jobs as Slurm knows them, and when each artifact was written."""

    status: int
    printed: str
    jobs: list[dict[str, str]]
    written: dict[str, int]

    def states(self) -> dict[str, list[str]]:
        """Return how the jobs ended, by rule and wildcards."""
        states: dict[str, list[str]] = {}
        for job in self.jobs:
            states.setdefault(job["Comment"], []).append(job["JobState"])
        return states


def rule_of(job: dict[str, str]) -> str:
    return job["Comment"].removeprefix("rule_").split("_wildcards_")[0]


def wait_for(condition: Callable[[], bool], run: subprocess.Popen[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if run.poll() is not None or time.monotonic() > deadline:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
            pytest.fail(f"what was waited for did not happen:\n{run.communicate()[0]}")
        time.sleep(0.5)


@pytest.fixture(scope="module")
def profile() -> dict:
    return yaml.safe_load((ROOT / PROFILE).read_text())


@pytest.fixture(scope="module")
def workspace(cluster, profile: dict, tmp_path_factory: pytest.TempPathFactory) -> ClusterWorkspace:
    """A study on CPU, its profile edited in two places: one rule asks for a GPU, another one for too little memory."""
    folder = tmp_path_factory.mktemp("study")
    Workspace.make(folder)
    shutil.copytree(ROOT / "resources" / "models" / MODEL, folder / "resources" / "models" / MODEL)
    edited = {
        rule: {
            **resources,
            **({"gpu": 1} if rule == "dump_features" else {}),
            **({"mem_mb": f"{TOO_LITTLE} * attempt"} if rule == "train_selector" else {}),
        }
        for rule, resources in profile["set-resources"].items()
    }
    (folder / PROFILE).write_text(yaml.safe_dump({**profile, "set-resources": edited}))
    workspace = ClusterWorkspace(folder, cluster)
    workspace.configure(OVERLAY)
    return workspace


@pytest.fixture(scope="module")
def interrupted(workspace: ClusterWorkspace) -> Run:
    """A run that is told to end, as by Ctrl-C, while it answers questions."""

    def answering() -> bool:
        return any(rule_of(job) == "dump_features" and job["JobState"] == "RUNNING" for job in cluster.jobs())

    cluster = workspace.cluster
    with workspace.running() as run:
        wait_for(answering, run, seconds=600)
        run.send_signal(signal.SIGINT)
        printed, _ = run.communicate(timeout=120)
    cluster.wait_for_jobs()
    return Run(run.returncode, printed, cluster.jobs(), workspace.written())


@pytest.fixture(scope="module")
def finished(workspace: ClusterWorkspace, interrupted: Run) -> Run:
    """The run that takes the study up again, to its end."""
    with workspace.running() as run:
        printed, _ = run.communicate()
    jobs = workspace.cluster.jobs()[len(interrupted.jobs) :]
    return Run(run.returncode, printed, jobs, workspace.written())


def test_an_interrupted_run_cancels_its_jobs(interrupted: Run) -> None:
    assert interrupted.status != 0
    states = Counter(job["JobState"] for job in interrupted.jobs)
    assert states["CANCELLED"] > 0
    assert set(states) == {"COMPLETED", "CANCELLED"}


def test_the_next_run_ends_the_study(workspace: ClusterWorkspace, finished: Run) -> None:
    assert finished.status == 0, finished.printed
    for path in TARGETS or ["reports/index.html"]:
        assert (workspace.folder / path).is_file()
    # To a run without the cluster nothing is missing, and nothing out of date.
    assert Workspace(workspace.folder).plan("--", *TARGETS) == (Counter(), set())


def test_the_next_run_does_again_what_was_cancelled_and_nothing_that_was_done(interrupted: Run, finished: Run) -> None:
    ended = {job: states[-1] for job, states in interrupted.states().items()}
    cancelled = {job for job, state in ended.items() if state == "CANCELLED"}
    assert cancelled <= set(finished.states())
    assert not (ended.keys() - cancelled) & finished.states().keys()
    assert interrupted.written
    assert interrupted.written.items() <= finished.written.items()


def test_a_job_killed_for_its_memory_is_submitted_again_with_more(workspace: ClusterWorkspace, finished: Run) -> None:
    for scheme in SCHEMES:
        attempts = [job for job in finished.jobs if job["Comment"] == f"rule_train_selector_wildcards_{MODEL}_{scheme}"]
        memory = [(job["JobState"], job["MinMemoryNode"]) for job in attempts]
        assert memory == [("FAILED", f"{TOO_LITTLE}M"), ("COMPLETED", f"{2 * TOO_LITTLE}M")]
        logs = workspace.folder / ".snakemake" / "slurm_logs" / "rule_train_selector" / f"{MODEL}_{scheme}"
        assert "exceeded memory limit" in (logs / f"{attempts[0]['JobId']}.log").read_text()
    # No other job failed.
    failed = {rule_of(job) for job in finished.jobs if job["JobState"] != "COMPLETED"}
    assert failed == {"train_selector"}


def test_jobs_with_a_gpu_go_where_there_are_some_and_others_do_not(finished: Run) -> None:
    for job in finished.jobs:
        if rule_of(job) == "dump_features":
            assert (job["Partition"], job["TresPerJob"]) == ("gpu", "gres:gpu:1")
            # One for the model, one for the process that preprocesses pictures.
            assert job["NumCPUs"] == "2"
        else:
            assert job["Partition"] == "cpu"
            assert "TresPerJob" not in job
            assert job["NumCPUs"] == "1"


def test_a_job_asks_for_the_memory_and_time_of_the_profile_or_of_its_rule(
    interrupted: Run, finished: Run, profile: dict
) -> None:
    asked = {rule_of(job): (job["MinMemoryNode"], job["TimeLimit"]) for job in interrupted.jobs + finished.jobs}
    for rule in ("quantize_model", "evaluate_variant"):
        resources = profile["set-resources"][rule]
        memory, minutes = (at_first_attempt(resources[name]) for name in ("mem_mb", "runtime"))
        assert asked[rule] == (f"{memory}M", f"{minutes // 60:02}:{minutes % 60:02}:00")
    assert "risk_coverage" not in profile["set-resources"]
    assert asked["risk_coverage"] == ("1000M", "00:05:00")


def at_first_attempt(resource: str) -> int:
    amount, _, factor = resource.partition(" * ")
    assert factor == "attempt"
    return int(amount)
