"""A job whose input is damaged ends in one message, and leaves nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.data.questions import SCHEMA
from study_workspace import link_workflow, record_models

TARGET = "data/mixtures/scenes-multimodal.parquet"


def questions(dataset: str) -> pl.DataFrame:
    rows = [
        (str(place), dataset, "test", str(place), f"{place}.png", "what?", ["red"], "other", "colour")
        for place in range(20)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A folder with the workflow and the questions of two datasets."""
    link_workflow(tmp_path)
    record_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    for dataset in ("scenes", "scenes-multimodal"):
        write_table(questions(dataset), f"data/questions/{dataset}.parquet")
    return tmp_path


def run() -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--allowed-rules", "build_mixtures", "--", TARGET]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_job_says_which_of_its_inputs_is_damaged_and_writes_nothing(workspace):
    path = Path("data/questions/scenes-multimodal.parquet")
    whole, times = path.read_bytes(), path.stat()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = run()
    assert done.returncode == 1
    message = (
        f"error: {path} is damaged: its bytes do not have the SHA-256 that it bears; delete {path} and run the same "
        f"command again; `snakemake {path}` alone builds it anew\n"
    )
    assert message in done.stdout and "Traceback" not in done.stdout
    assert Path("logs/build_mixtures/scenes-multimodal.log").read_text() == message
    assert not Path(TARGET).exists() and not list(Path("data/mixtures").glob("*"))
    path.write_bytes(whole)
    done = run()
    assert done.returncode == 0, done.stdout
    assert [entry.name for entry in Path("data/mixtures").iterdir()] == ["scenes-multimodal.parquet"]
