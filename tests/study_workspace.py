"""Folders with a copy of the workflow, in which tests run studies as a user would."""

import copy
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

from quantrust.files import sha256

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "envs")
# The shipped studies; beside them lie figures that the report shows.
OVERLAYS = sorted(path for path in (ROOT / "config").glob("*.yaml") if path.name != "paper_reference.yaml")
STUDY = "study.yaml"


def overlay_files(name: str) -> list[str]:
    """Return the files of a shipped study, in the project: its overlay, below it the one that it is laid over."""
    names = ["mmq", name] if name.startswith("mmq_") else [name]
    return [f"config/{file}.yaml" for file in names]


def merge(base: dict, overlay: dict) -> dict:
    """Merge as Snakemake does: maps into maps, anything else replaces."""
    merged = copy.deepcopy(base)
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def shipped_config(name: str) -> dict:
    """Return the default config, or the default under an overlay."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    for file in [] if name == "default" else overlay_files(name):
        config = merge(config, yaml.safe_load((ROOT / file).read_text()))
    return config


def link_workflow(folder: Path) -> None:
    """Link the workflow into a folder where tests plan or run a few jobs; its `config` can be written to."""
    (folder / "config").mkdir()
    names = [name for name in WORKFLOW if name != "config"]
    for path in (*map(Path, names), *(Path("config", path.name) for path in (ROOT / "config").glob("*.yaml"))):
        (folder / path).symlink_to(ROOT / path)


def record_models(folder: Path) -> None:
    """Write the records of the shipped models, and nothing else of them, as is enough to plan."""
    for model in ("qwen2-vl-tiny", "idefics3-tiny", "adversary"):
        record = folder / "resources" / "models" / model / "training.json"
        record.parent.mkdir(parents=True)
        record.write_text("{}\n")


class Workspace:
    """A folder with a copy of the workflow, in which a study runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, folder: Path) -> "Workspace":
        """Copy the workflow to a folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in WORKFLOW:
            source = ROOT / name
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy2(source, folder / name, follow_symlinks=False)
        return cls(folder)

    def configure(self, overlay: dict) -> None:
        """Write the study's overlay."""
        (self.folder / STUDY).write_text(yaml.safe_dump(overlay))

    def change(self, *keys: str, value: object) -> None:
        """Change one key of the study's overlay."""
        config = yaml.safe_load((self.folder / STUDY).read_text())
        section = config
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        section[keys[-1]] = value
        (self.folder / STUDY).write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a run."""
        return [sys.executable, "-m", "snakemake", "--configfile", STUDY, "--cores", "2", *arguments]

    def environment(self) -> dict[str, str]:
        """Return the environment of a run: that of a user, who has no PYTHONPATH into the package, and no hqq."""
        return os.environ | {"PYTHONPATH": str(ROOT / "tests" / "without_hqq")}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a run, in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> str:
        """Run the workflow to its end and return what it printed."""
        process = self.start(*arguments)
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        return printed

    def plan(self, *arguments: str) -> tuple[Counter[str], set[str]]:
        """Return how many jobs of each rule a run would start, and the files and folders that they would write."""
        printed = self.run("--dry-run", *arguments)
        jobs = re.findall(r"^(?:local)?rule (\w+):$", printed, flags=re.MULTILINE)
        outputs = re.findall(r"^    output: (.+)$", printed, flags=re.MULTILINE)
        written = {path for line in outputs for path in line.split(", ")}
        return Counter(job for job in jobs if job != "all"), written

    def digests(self, *below: str) -> dict[str, str]:
        """Return the digest of every artifact below these folders, Snakemake's own marks left out."""
        paths = sorted(path for top in below for path in (self.folder / top).rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.folder)): sha256(path) for path in paths if path.name != ".snakemake_timestamp"
        }

    def copy(self, folder: Path) -> "Workspace":
        """Copy everything, times included, so that nothing is out of date in the copy."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace(folder)
