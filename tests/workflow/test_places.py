"""Where a project may lie and be run from: what works does so to the end of a job, all else is one message at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from study_workspace import ROOT, link_workflow, record_models

TARGET = "data/embedded/scenes-multimodal"


def project(folder: Path) -> Path:
    """Make a project whose Snakefile is its own, with an environment in it as `make study` puts it there."""
    folder.mkdir(parents=True)
    link_workflow(folder)
    record_models(folder)
    (folder / "Snakefile").unlink()
    (folder / "Snakefile").write_text((ROOT / "Snakefile").read_text())
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "one.yaml").write_text("datasets: {scenes-multimodal: {images: 1}}")
    return folder


def snakemake(folder: Path, python: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "snakemake", "--cores", "1", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def one_message(done: subprocess.CompletedProcess[str]) -> str:
    """Return the message that ended a run, which is its last line and has no traceback before it."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout and 'Snakefile", line' not in done.stdout
    *others, last = done.stdout.strip().splitlines()
    assert not [line for line in others if line.startswith("error:")]
    return last


@pytest.mark.parametrize("name", ["a b é 日本", 'it\'s "$HOME" `x`; & (y)'])
def test_a_project_folder_may_have_spaces_quotes_and_letters_of_any_script(tmp_path: Path, name: str) -> None:
    folder = project(tmp_path / name)
    done = snakemake(folder, folder / ".venv" / "bin" / "python", "--configfile", "one.yaml", "--", TARGET)
    assert done.returncode == 0, done.stdout
    assert (folder / TARGET).is_dir()


@pytest.mark.parametrize("name", ["{x}", "a{b", "a}b"])
def test_braces_in_a_project_folder_are_refused_at_once(tmp_path: Path, name: str) -> None:
    folder = project(tmp_path / name)
    message = one_message(snakemake(folder, sys.executable, "--configfile", "one.yaml", "--", TARGET))
    assert message == (
        f"error: the project lies in {folder}, and Snakemake takes braces in a path for wildcards; give the folder "
        "another name"
    )


@pytest.mark.parametrize("arguments", [(), ("--configfile", str(ROOT / "config" / "quick.yaml"))], ids=["", "overlay"])
def test_a_run_from_elsewhere_says_that_the_config_is_not_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = snakemake(tmp_path, sys.executable, "--snakefile", str(ROOT / "Snakefile"), *arguments, "--dry-run")
    assert one_message(done) == (
        f"error: {tmp_path} holds no config.yaml, which every study is laid over; go to the folder of the project, "
        f"{ROOT}, or name it with --directory"
    )


def test_a_run_from_elsewhere_that_names_the_folder_plans_the_study(tmp_path: Path) -> None:
    folder = project(tmp_path / "it's a {project}")
    arguments = ("--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--", TARGET)
    done = snakemake(tmp_path, sys.executable, "--configfile", str(folder / "one.yaml"), *arguments)
    assert done.returncode == 0, done.stdout
    assert (folder / TARGET).is_dir()


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("seed: -1", "error: config: seed is -1; allowed: a whole number from 0 on, at most 4294967295"),
        (
            "models: {adversary: {source: nowhere}}",
            "error: nowhere does not exist, but models.adversary.source of the config names it; correct the path",
        ),
    ],
    ids=["config", "input"],
)
def test_a_study_that_cannot_run_ends_in_one_message(tmp_path: Path, overlay: str, message: str) -> None:
    folder = project(tmp_path / "project")
    (folder / "faulty.yaml").write_text(overlay)
    done = snakemake(folder, sys.executable, "--configfile", "faulty.yaml", "--", "data/models/adversary")
    assert one_message(done) == message
