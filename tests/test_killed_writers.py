"""What a stage writes is absent or whole whenever it is killed, and started again it ends in the same bytes.

Stages run as functions in processes that have everything imported, so that nearly all of their time is computing and
writing. Whole jobs are killed in `tests/end_to_end/test_interruption.py`.
"""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundled_study import make_study
from hunting import trials
from quantrust.embedded.datasets import write_dataset
from quantrust.files import sha256
from stage_writers import DATASET, WRITERS, run
from study_workspace import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.hunt]

ATTEMPTS = 8
# Its processes come from one that has used neither threads of polars nor of torch, which no fork takes along.
PROCESSES = multiprocessing.get_context("forkserver")
Start = Callable[[str, Path], multiprocessing.process.BaseProcess]


@pytest.fixture(scope="module")
def start(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Return a function that starts a stage, which writes into a folder."""
    study = make_study(tmp_path_factory.mktemp("killed"), model_folders["qwen2_vl"])
    write_dataset("scenes-multimodal", study.folder / "dataset", DATASET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT / "tests", ROOT / "workflow" / "scripts"))))
        PROCESSES.set_forkserver_preload(["stage_writers"])
        PROCESSES.Process(target=int).start()

    def started(name: str, out: Path) -> multiprocessing.process.BaseProcess:
        process = PROCESSES.Process(target=run, args=(name, study.folder, model_folders["qwen2_vl"], out))
        process.start()
        return process

    return started


def finish(process: multiprocessing.process.BaseProcess) -> float:
    """Wait for a process that ends well, and return how long it took."""
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


def killed(process: multiprocessing.process.BaseProcess, delay: float) -> bool:
    """Kill a process after some seconds; return whether it was still at work."""
    process.join(delay)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def files_of(folder: Path) -> dict[str, str]:
    """Return the digests of all files below a folder, those on their way too."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def in_place(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if ".partial" not in name}


@pytest.mark.parametrize("name", WRITERS)
def test_a_killed_stage_leaves_nothing_half_written_and_ends_in_the_same_bytes(
    name: str, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    # The first run in a process reads much from the disk.
    for _ in range(2):
        lasted = finish(start(name, tmp_path / "whole"))
    whole = files_of(tmp_path / "whole")
    for trial in trials(2, 25):
        out, delay = tmp_path / str(trial), random.Random(f"{name} {trial}").uniform(0, 1) * lasted
        out.mkdir()
        for _ in range(ATTEMPTS):
            if killed(start(name, out), delay):
                break
            # It was faster this time: it is killed earlier next time.
            assert files_of(out) == whole
            delay /= 2
        else:
            pytest.fail(f"{name} ended before it could be killed, {ATTEMPTS} times")
        assert in_place(files_of(out)).items() <= whole.items()
        finish(start(name, out))
        assert files_of(out) == whole
