"""Every stage, killed at a random moment and started again, ends in the bytes of an undisturbed run.

Every run of the suite kills a job for each way in which stages write. `make hunt` kills a job of every stage.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from hunting import HUNTING, trials
from quantrust.report.contents import ENTRIES

pytestmark = pytest.mark.slow

MODEL, SCHEME = "adversary", "mbq-w3g32-full"
# What shows the paper's numbers, Selectors that are trained on fewer questions, and grids of schemes.
NO_PART = (
    "published",
    "learning_curve",
    *("grid", "importance", "interactions", "effects", "published_importance"),
    *("part_importance", "grid_heatmaps", "grid_interactions", "part_effects", "mixed_precision"),
)
STAGES = {
    "write_dataset": "data/embedded/scenes",
    "select_adversarial": "data/embedded/scenes-language",
    "build_questions": "data/questions/scenes.parquet",
    "train_model": f"data/trained/{MODEL}",
    "prepare_model": f"data/models/{MODEL}",
    "build_calibration": f"data/calibration/{MODEL}.parquet",
    "quantize_model": f"data/checkpoints/{MODEL}/{SCHEME}",
    "dump_features": f"data/features/{MODEL}/{SCHEME}/scenes.parquet",
    "train_selector": f"data/selectors/{MODEL}/{SCHEME}",
    "score_in_distribution": f"data/in_distribution/scores/{MODEL}/{SCHEME}.parquet",
    "evaluate_in_distribution": f"data/in_distribution/metrics/{MODEL}/{SCHEME}.parquet",
    "break_down_in_distribution": f"data/in_distribution/groups/{MODEL}/{SCHEME}.parquet",
    "write_scores": f"data/scores/{MODEL}/{SCHEME}.parquet",
    "build_mixtures": "data/mixtures/scenes-language.parquet",
    "evaluate_variant": f"data/metrics/{MODEL}/{SCHEME}.parquet",
    "break_down_variant": f"data/groups/{MODEL}/{SCHEME}.parquet",
    "certify_variant": f"data/certification/{MODEL}/{SCHEME}.parquet",
    "resample_variant": f"data/studies/reports/resampled/{MODEL}/{SCHEME}.parquet",
    "compare_variants": "data/studies/reports/comparisons.parquet",
    "set_operating_points": f"data/operating_points/{MODEL}/{SCHEME}.json",
    "decide_variant": f"data/decisions/{MODEL}/{SCHEME}.parquet",
    "measure_drift": "data/studies/reports/drift.parquet",
    "judge_schemes": "data/studies/reports/shipping.parquet",
    "pick_examples": "data/studies/reports/examples.parquet",
    "judge_groups": "data/studies/reports/fairness.parquet",
    "build_page": "reports/index.html",
    # Of an entry the first file; this study has nothing for the others, which are in `NO_PART`.
    **{entry.rule: next(iter(entry.files("reports").values())) for entry in ENTRIES if entry.name not in NO_PART},
}
# A stage for each way in which artifacts are written.
SAMPLE = (
    "quantize_model",  # a folder, tensor by tensor
    "dump_features",  # a table, chunk by chunk
    "train_selector",  # a folder at once
    "evaluate_variant",  # several tables together
    "set_operating_points",  # a document
    "build_page",  # a page
    "tabulate_reliability",  # a table as text, with its digest
    "risk_coverage",  # a figure in two files
)
ATTEMPTS = 6


def killed(job: psutil.Process) -> bool:
    """Kill a job; return False if it had ended already."""
    try:
        job.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def job_process(run: subprocess.Popen) -> psutil.Process:
    """Wait for the process that runs the job's script."""
    while run.poll() is None:
        try:
            for process in psutil.Process(run.pid).children(recursive=True):
                # The shell that starts the script names it as well.
                if "python" in process.name() and any(".snakemake/scripts/" in part for part in process.cmdline()):
                    return process
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.01)
    raise AssertionError(f"the run ended before its job was seen:\n{run.stdout.read()}")


def test_the_stages_are_all_there_are(study) -> None:
    printed = study.run("--list-rules")
    # No part of this study: a stressed model, a dataset in files of its own, shards of features, downloads, Selectors
    # trained on fewer questions, checkpoints of others, grids of schemes, retrieval, and what shows these. Nor are
    # bundles, which are asked for one by one.
    rules = {line.strip() for line in printed.splitlines() if line.strip().isidentifier()} - {
        "all",
        "SNAKEMAKE",
        "stress_model",
        "build_question_groups",
        "divide_dataset",
        "check_questions",
        "dump_shard",
        "gather_features",
        "download",
        "fetch_download",
        "train_on_labels",
        "score_on_labels",
        "evaluate_learning",
        "import_checkpoint",
        "weigh_components",
        "answer_cell",
        "dump_matches",
        "bundle_variant",
        *(entry.rule for entry in ENTRIES if entry.name in NO_PART),
    }
    assert rules == set(STAGES)


@pytest.mark.hunt
@pytest.mark.parametrize("trial", trials(1, 6))
@pytest.mark.parametrize("stage", STAGES if HUNTING else SAMPLE)
def test_a_killed_job_restarted_ends_in_the_same_bytes(scratch, stage: str, trial: int) -> None:
    target = STAGES[stage]
    before = scratch.digests("data", "reports")

    remove(scratch.folder / target)
    run = scratch.start(target)
    job, started = job_process(run), time.monotonic()
    job.wait()
    lasted = time.monotonic() - started
    assert run.wait() == 0, run.stdout.read()
    assert scratch.digests("data", "reports") == before

    delay = random.Random(f"{stage} {trial}").uniform(0, 0.95) * lasted
    for _ in range(ATTEMPTS):
        remove(scratch.folder / target)
        run = scratch.start(target)
        job = job_process(run)
        time.sleep(delay)
        if killed(job) and run.wait() != 0:
            break
        # The job was faster this time and had ended: it is killed earlier next time.
        assert run.wait() == 0, run.stdout.read()
        delay /= 2
    else:
        pytest.fail(f"{stage} ended before it could be killed, {ATTEMPTS} times")
    assert not (scratch.folder / target).exists()
    scratch.run(target)
    assert scratch.digests("data", "reports") == before


def test_a_run_killed_with_all_its_jobs_goes_on_after_unlocking(scratch) -> None:
    before = scratch.digests("data", "reports")
    remove(scratch.folder / STAGES["train_selector"])
    remove(scratch.folder / STAGES["dump_features"])
    run = scratch.start()
    job_process(run)
    time.sleep(1)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    scratch.run("--unlock")
    scratch.run()
    assert scratch.digests("data", "reports") == before


def test_the_number_of_cores_does_not_change_a_byte(scratch) -> None:
    before = scratch.digests("data", "reports")
    for stage in ("dump_features", "train_selector", "quantize_model"):
        remove(scratch.folder / STAGES[stage])
    scratch.run("--cores", "1")
    assert scratch.digests("data", "reports") == before
