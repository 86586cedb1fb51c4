"""The jobs that are planned are those that Snakemake would run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from quantrust.study.config import read_study
from quantrust.study.jobs import study_jobs
from study_workspace import link_workflow, record_models

OVERLAYS = {
    "quick": "config/quick.yaml",
    "stressed, in shards": {
        "models": {"wide": {"stress": {"model": "idefics3-tiny", "share": 0.25, "factor": 8}}},
        "study": {"models": ["wide"], "schemes": ["bf16", "hqq-w3g64"], "shifts": ["scenes-multimodal"]},
        "features": {"shards": 2},
    },
    "beside published numbers": {
        "models": {"qwen2-vl-7b": {"source": "resources/models/qwen2-vl-tiny", "family": "qwen2_vl"}},
        "datasets": {
            "vqav2": {
                "format": "vqav2",
                "questions": "own/questions.json",
                "annotations": "own/annotations.json",
                "images": "own",
                "split": {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 0},
            },
        },
        "study": {
            "models": ["qwen2-vl-7b"],
            "schemes": ["bf16", "hqq-w4g64"],
            "id_dataset": "vqav2",
            "shifts": ["scenes-multimodal"],
        },
        "report": {"folder": "reports/own"},
    },
    "without shifts and Selector": {
        "study": {"models": ["qwen2-vl-tiny"], "schemes": ["bf16"], "shifts": [], "estimators": ["maxprob"]},
        "evaluation": {"groups": []},
    },
    "of the Selector alone": {
        "study": {"models": ["qwen2-vl-tiny"], "schemes": ["bf16"], "shifts": [], "estimators": ["selector"]},
    },
    "with a grid": {
        "study": {"models": ["qwen2-vl-tiny"], "schemes": ["hqq-w4g64"], "shifts": ["scenes-multimodal"]},
        "factorial": {
            "parts": {
                "methods": ["hqq", "gptq"],
                "group": 64,
                "symmetric": False,
                "levels": [3, 16],
                "factors": [{"component": "vision"}, {"component": "language"}],
            },
        },
    },
    "in official files": {
        "datasets": {
            "own": {
                "format": "vqav2",
                "questions": "own/questions.json",
                "annotations": "own/annotations.json",
                "images": "own",
                "split": {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 0},
                "groups": "own/questions.json",
            },
            "shifted": {"format": "vizwiz", "splits": {"test": {"annotations": "own/questions.json", "images": "own"}}},
            "scenes": {"groups": "own/annotations.json"},
        },
        "study": {
            "models": ["qwen2-vl-tiny"],
            "schemes": ["bf16", "awq-w4g64"],
            "id_dataset": "own",
            "shifts": ["shifted"],
        },
        "calibration": {"source": {"captions": "own/annotations.json", "images": "own"}},
        "evaluation": {"groups": ["topic", "answer_type"]},
    },
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the workflow, the records of the models, and empty official files."""
    folder = tmp_path_factory.mktemp("workspace")
    link_workflow(folder)
    record_models(folder)
    (folder / "own").mkdir()
    for name in ("questions", "annotations"):
        (folder / "own" / f"{name}.json").touch()
    return folder


@pytest.mark.parametrize("overlay", OVERLAYS.values(), ids=OVERLAYS)
def test_the_plan_has_the_jobs_that_snakemake_would_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, overlay: str | dict
) -> None:
    monkeypatch.chdir(workspace)
    if isinstance(overlay, dict):
        Path("overlay.yaml").write_text(yaml.safe_dump(overlay))
        overlay = "overlay.yaml"
    command = [sys.executable, "-m", "snakemake", "--configfile", overlay, "--dry-run", "--cores", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    found = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    output: (.+)", done.stdout, re.MULTILINE)
    # `all` itself has no output
    (total,) = re.findall(r"^total +(\d+)$", done.stdout.split("Job stats:")[1], re.MULTILINE)[:1]
    assert len(found) == int(total) - 1
    jobs = study_jobs(read_study([overlay]))
    assert {(job.rule, frozenset(job.outputs)) for job in jobs} == {
        (rule, frozenset(outputs.split(", "))) for rule, outputs in found
    }
    assert len(jobs) == len(found)
    assert ("tabulate_published" in {job.rule for job in jobs}) == ("qwen2-vl-7b" in Path(overlay).read_text())
