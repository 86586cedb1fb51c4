"""Where a project may lie and be run from: what works does so to the end of a job, all else is one message at once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study_workspace import ROOT, link_workflow, record_models

TARGET = "data/embedded/scenes-multimodal"
MODEL = "data/models/adversary"


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


def test_a_run_from_elsewhere_that_names_the_folder_plans_the_study(tmp_path: Path) -> None:
    folder = project(tmp_path / "it's a {project}")
    arguments = ("--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--", TARGET)
    done = snakemake(tmp_path, sys.executable, "--configfile", str(folder / "one.yaml"), *arguments)
    assert done.returncode == 0, done.stdout
    assert (folder / TARGET).is_dir()


def planned_inputs(done: subprocess.CompletedProcess[str], rule: str) -> list[list[str]]:
    """Return the input files of every job of a rule in what a dry run printed."""
    assert done.returncode == 0, done.stdout
    return [line.split(", ") for line in re.findall(rf"^rule {rule}:\n    input: (.+)$", done.stdout, re.MULTILINE)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder without any part of the project, with an overlay in which a dataset is tiny."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "one.yaml").write_text("datasets: {scenes-multimodal: {images: 1}}")
    return folder


IN_PROJECT = ("--snakefile", str(ROOT / "Snakefile"))


def test_a_study_is_planned_in_a_folder_without_the_project(elsewhere: Path) -> None:
    """Models are those of the project, all else lies in the folder; nothing is named by an absolute path."""
    done = snakemake(elsewhere.parent, sys.executable, *IN_PROJECT, "--directory", str(elsewhere), "--dry-run")
    records = [elsewhere / path for (path,) in planned_inputs(done, "prepare_model")]
    models = ("adversary", "idefics3-tiny", "qwen2-vl-tiny")
    assert sorted(path.resolve() for path in records) == [
        ROOT / "resources" / "models" / name / "training.json" for name in models
    ]
    assert f" {ROOT}" not in done.stdout.split("Job stats:")[1]


def test_a_job_runs_in_a_folder_without_the_project(elsewhere: Path) -> None:
    before = sorted(ROOT.iterdir())
    arguments = ("--directory", str(elsewhere), "--configfile", str(elsewhere / "one.yaml"), "--", TARGET)
    done = snakemake(elsewhere.parent, sys.executable, *IN_PROJECT, *arguments)
    assert done.returncode == 0, done.stdout
    assert (elsewhere / TARGET).is_dir()
    assert sorted(ROOT.iterdir()) == before


USES = """
module quantrust:
    snakefile:
        {snakefile!r}
    config:
        {config!r}


use rule * from quantrust{renamed}


rule own:
    input:
        {target!r},
    output:
        "own.txt",
    shell:
        "ls {{input}} > {{output}}"
"""


@pytest.mark.parametrize(
    ("renamed", "rule"), [("", "write_dataset"), (" as study_*", "study_write_dataset")], ids=["as it is", "renamed"]
)
def test_another_workflow_uses_the_rules_as_a_module(tmp_path: Path, renamed: str, rule: str) -> None:
    """It gives what differs from the default config, and its own config is another."""
    config = {"datasets": {"scenes-multimodal": {"images": 1}}}
    text = USES.format(snakefile=str(ROOT / "Snakefile"), config=config, renamed=renamed, target=TARGET)
    (tmp_path / "Snakefile").write_text(text)
    (tmp_path / "config.yaml").write_text("unrelated: true\n")
    done = snakemake(tmp_path, sys.executable, "--", "own.txt")
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^(?:local)?rule (\w+):$", done.stdout, re.MULTILINE) == [rule, "own"]
    assert "annotations_test.json" in (tmp_path / "own.txt").read_text()


def test_a_module_with_a_faulty_config_ends_in_one_message(tmp_path: Path) -> None:
    text = USES.format(snakefile=str(ROOT / "Snakefile"), config={"seed": -1}, renamed="", target=TARGET)
    (tmp_path / "Snakefile").write_text(text)
    done = snakemake(tmp_path, sys.executable, "--dry-run", "--", "own.txt")
    assert one_message(done) == "error: config: seed is -1; allowed: a whole number from 0 on, at most 4294967295"


def test_a_whole_study_is_planned_as_a_module(tmp_path: Path) -> None:
    quick = yaml.safe_load((ROOT / "config" / "quick.yaml").read_text())
    text = USES.format(snakefile=str(ROOT / "Snakefile"), config=quick, renamed="", target=TARGET)
    (tmp_path / "Snakefile").write_text(text)
    done = snakemake(tmp_path, sys.executable, "--dry-run", "--", "reports/quick/index.html")
    assert [len(paths) for paths in planned_inputs(done, "prepare_model")] == [1, 1]
    assert "rule build_page:" in done.stdout


@pytest.mark.parametrize(
    ("overlay", "target", "message"),
    [
        ("seed: -1", MODEL, "error: config: seed is -1; allowed: a whole number from 0 on, at most 4294967295"),
        (
            "models: {adversary: {source: nowhere}}",
            MODEL,
            "error: nowhere does not exist, but models.adversary.source of the config names it; correct the path",
        ),
        (
            "models: {adversary: {source: /dev/null}}",
            MODEL,
            "error: /dev/null is neither a file nor a folder, but models.adversary.source of the config names it; "
            "correct the path",
        ),
        (
            "calibration: {source: {captions: nowhere.json, images: config}}",
            "data/calibration/adversary.parquet",
            "error: nowhere.json does not exist, but calibration.source.captions of the config names it; correct the "
            "path",
        ),
    ],
    ids=["config", "input", "device", "captions"],
)
def test_a_study_that_cannot_run_ends_in_one_message(tmp_path: Path, overlay: str, target: str, message: str) -> None:
    folder = project(tmp_path / "project")
    (folder / "faulty.yaml").write_text(overlay)
    done = snakemake(folder, sys.executable, "--configfile", "faulty.yaml", "--", target)
    assert one_message(done) == message


def test_a_config_that_snakemake_cannot_read_ends_in_one_message(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").write_bytes("seed: 1 # é".encode("latin-1"))
    message = one_message(snakemake(folder, sys.executable, "--dry-run"))
    assert message == "error: config.yaml: is not UTF-8 text at byte 10; save it as UTF-8"


def test_a_key_that_an_overlay_gives_twice_ends_in_one_message(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    (folder / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    message = one_message(snakemake(folder, sys.executable, "--dry-run", "--configfile", "twice.yaml"))
    assert message == "error: twice.yaml: line 2 gives seed again, after line 1; take one of them out"
