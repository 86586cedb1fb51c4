"""Every shipped study plans its jobs, and a faulty config stops before any."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the workflow and with models of which only the records exist."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("Snakefile", "config.yaml", "config", "workflow", "profiles", "envs"):
        (folder / name).symlink_to(ROOT / name)
    for model in ("qwen2-vl-tiny", "idefics3-tiny", "adversary"):
        record = folder / "resources" / "models" / model / "training.json"
        record.parent.mkdir(parents=True)
        record.write_text("{}\n")
    return folder


def snakemake(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_shipped_study_plans_its_figures(workspace: Path, name: str) -> None:
    done = snakemake(workspace, "--configfile", f"config/{name}.yaml", "--dry-run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    assert "rule risk_coverage:" in done.stdout


def test_the_default_study_plans_a_job_for_every_variant(workspace: Path) -> None:
    done = snakemake(workspace, "--dry-run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    # Two models under nine schemes; the unquantized adversary is one checkpoint more, and answers its candidates.
    counts = {rule: done.stdout.count(f"rule {rule}:") for rule in ("quantize_model", "dump_features", "write_scores")}
    assert counts == {"quantize_model": 19, "dump_features": 55, "write_scores": 18}


FAULTS = {
    "study: {schemes: [mbq-w4]}": "config: study.schemes[0] is 'mbq-w4': scheme 'mbq-w4' does not parse",
    "evaluation: {resample: 10}": "config: evaluation.resample is no key of this config",
    "study: {models: [llava]}": "config: study.models[0] is 'llava'; allowed: a name under models",
}


@pytest.mark.parametrize(("overlay", "message"), FAULTS.items(), ids=FAULTS)
def test_a_faulty_config_stops_before_any_job(workspace: Path, overlay: str, message: str) -> None:
    (workspace / "faulty.yaml").write_text(overlay)
    done = snakemake(workspace, "--configfile", "faulty.yaml", "--cores", "1")
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert not (workspace / "data").exists()


def test_a_model_folder_that_does_not_exist_is_named_before_any_job(workspace: Path) -> None:
    (workspace / "faulty.yaml").write_text("models: {qwen2-vl-tiny: {source: nowhere}}")
    done = snakemake(workspace, "--configfile", "faulty.yaml", "--cores", "1")
    assert done.returncode != 0
    assert "nowhere/training.json" in done.stdout
    assert not (workspace / "data").exists()
