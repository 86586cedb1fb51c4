"""Workspaces with a tiny study: the real workflow, every stage of it, on a few dozen questions and two small models.

One model is trained for some seconds by the workflow's own rule, so that it answers some questions rightly; the other
is random.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from filelock import FileLock

from quantrust.files import sha256, write_json
from study_workspace import Workspace

SCHEMES = ["bf16", "hqq-w3g32-full", "mbq-w3g32-full"]
ESTIMATORS = ["maxprob", "length-normalised", "min-token", "entropy", "margin", "selector", "maxprob+temperature"]
# The smallest of the embedded models, for half a minute of training; and one whose weights are random.
TRAINED, RANDOM = "adversary", "random"
TRAINING = {
    "images": 200,
    "questions": 6,
    "vision_steps": 20,
    "vision_batch": 16,
    "language_steps": 150,
    "language_horizon": 150,
    "language_cooldown": 0,
    "language_batch": 16,
    "refining_steps": 0,
    "warmup": 10,
    # Not every machine has instructions for bfloat16.
    "precision": "float32",
}


def study_config(models: Iterable[str], shifts: Iterable[str]) -> dict:
    """Return the overlay that makes the default study tiny."""
    return {
        "study": {"models": list(models), "schemes": SCHEMES, "shifts": list(shifts), "estimators": ESTIMATORS},
        "models": {
            TRAINED: {"source": f"data/trained/{TRAINED}", "training": TRAINING},
            RANDOM: {"source": f"models/{RANDOM}", "family": "qwen2_vl", "training": {}},
        },
        "datasets": {
            "scenes": {"images": {"dev": 24, "val": 12, "test": 14}, "questions_per_image": 2, "captions": 16},
            # The random model is wrong nearly always.
            "scenes-language": {
                "images": 24,
                "questions_per_image": 2,
                "adversary": RANDOM,
                "questions": 24,
                "wrong_share": 1,
            },
            "scenes-multimodal": {"images": 24},
        },
        "calibration": {"samples": 8},
        "features": {"max_new_tokens": 4, "batch_size": 16, "images_per_chunk": 16},
        "selector": {"epochs": 2, "members": 2},
        "evaluation": {"resamples": 20},
        "certification": {"splits": 5},
        "comparison": {"resamples": 20},
    }


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return a folder for what is computed once.

    All workers of a test run share it. Where the environment names a folder in QUANTRUST_STUDIES, test runs on the same
    code share it too: the fast and the slow tier then compute the studies once.
    """
    own = tmp_path_factory.getbasetemp()
    shared = os.environ.get("QUANTRUST_STUDIES")
    folder = Path(shared) if shared else (own if worker_id == "master" else own.parent) / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def once(folder: Path, make: Callable[[Path], None]) -> Workspace:
    """Return the workspace in `folder`, made by the first worker that asks for it."""
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return Workspace(folder)


@pytest.fixture(scope="session")
def first_study(studies: Path, model_folders: dict[str, Path]) -> Workspace:
    """A study of one model and one shift, computed from nothing; not to be changed."""

    def make(folder: Path) -> None:
        workspace = Workspace.make(folder)
        random = folder / "models" / RANDOM
        shutil.copytree(model_folders["qwen2_vl"], random)
        write_json(random / "training.json", {"files": {path.name: sha256(path) for path in sorted(random.iterdir())}})
        workspace.configure(study_config(models=[TRAINED], shifts=["scenes-multimodal"]))
        workspace.run(f"data/trained/{TRAINED}")
        workspace.run()

    return once(studies / "first", make)


@pytest.fixture(scope="session")
def study(first_study: Workspace, studies: Path) -> Workspace:
    """The first study with the second shift added to it, which needs the random model's answers; not to be changed."""

    def make(folder: Path) -> None:
        workspace = first_study.copy(folder)
        workspace.configure(study_config(models=[TRAINED], shifts=["scenes-multimodal", "scenes-language"]))
        workspace.run()

    return once(studies / "second", make)


@pytest.fixture
def scratch(study: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the whole study that a test may change."""
    return study.copy(tmp_path / "study")
