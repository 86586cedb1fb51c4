"""Features dumped in shards: the bytes of one job, and a run that goes on with the shards that it has."""

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from quantrust.files import sha256, write_json
from study_workspace import Workspace

pytestmark = pytest.mark.slow

MODEL = "random"
TARGET = f"data/features/{MODEL}/bf16/scenes.parquet"
SHARDS = f"data/shards/{MODEL}/bf16/scenes"
STUDY = {
    "study": {"models": [MODEL], "schemes": ["bf16"], "shifts": ["scenes-multimodal"]},
    "models": {MODEL: {"source": f"models/{MODEL}", "family": "qwen2_vl", "training": {}}},
    "datasets": {"scenes": {"images": {"dev": 24, "val": 12, "test": 14}, "captions": 2}},
    "calibration": {"samples": 2},
    "features": {"max_new_tokens": 4, "batch_size": 16, "images_per_chunk": 16},
}


@pytest.fixture
def workspace(model_folders: dict[str, Path], tmp_path: Path) -> Workspace:
    """A study of one small random model, with its answers dumped by one job."""
    workspace = Workspace.make(tmp_path / "study")
    model = workspace.folder / "models" / MODEL
    shutil.copytree(model_folders["qwen2_vl"], model)
    write_json(model / "training.json", {"files": {path.name: sha256(path) for path in sorted(model.iterdir())}})
    workspace.configure(STUDY)
    workspace.run(TARGET)
    return workspace


def test_a_run_killed_between_shards_goes_on_with_the_finished_ones_and_ends_in_the_same_bytes(
    workspace: Workspace,
) -> None:
    target, shards = workspace.folder / TARGET, workspace.folder / SHARDS
    before = target.read_bytes()
    target.unlink()
    workspace.change("features", "shards", value=2)
    run = workspace.start("--cores", "1", TARGET)
    # The whole run dies as soon as its first shard is there.
    for line in run.stdout:
        if "1 of 3 steps" in line:
            os.killpg(run.pid, signal.SIGKILL)
            break
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    finished = [path.name for path in shards.glob("[12]-of-2.parquet")]
    assert len(finished) == 1
    workspace.run("--unlock")
    jobs, written = workspace.plan(TARGET)
    assert jobs == Counter(dump_shard=1, gather_features=1)
    assert f"{SHARDS}/{finished[0]}" not in written
    workspace.run(TARGET)
    assert target.read_bytes() == before
    # Shards are gone with the file that they make; what would change them is not forgotten.
    assert not list(shards.glob("*.parquet"))
    assert workspace.plan(TARGET) == (Counter(), set())
    workspace.change("features", "workers", value=1)
    assert workspace.plan(TARGET) == (Counter(), set())
    workspace.change("models", MODEL, "prompt", value="{question} Now:")
    assert workspace.plan(TARGET)[0] == Counter(dump_shard=2, gather_features=1)
