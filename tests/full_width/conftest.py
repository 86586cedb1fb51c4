"""The published study at full width: two blocks of each model, 200 questions of each dataset, everything else as it is.

Files lie where `config/paper.yaml` names them, so that the overlay says nothing of them.
"""

import re
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from official_files import write_captions, write_vizwiz, write_vqav2
from published_layout import FULL_WIDTH, write_model_folder
from study_workspace import STUDY, Workspace

PAPER = "config/paper.yaml"
SCHEMES = ["bf16", "hqq-w4g64", "mbq-w4g64"]
QUESTIONS = 200
DISK_BYTES = 32 * 10**9
OVERLAY = {
    "study": {"schemes": SCHEMES},
    "compute": {"device": "cpu"},
    "models": {
        # 4 to 12 tokens a picture, and 169: the least that one tile has.
        "qwen2-vl-7b": {"processor": {"max_pixels": 112 * 112}},
        "idefics3-8b": {"processor": {"size": {"longest_edge": 364}}},
    },
    "calibration": {"samples": 4},
    # Two chunks of pictures at least, one for each shard.
    "features": {"max_new_tokens": 3, "batch_size": 50, "images_per_chunk": 25, "shards": 2, "kernel": "packed"},
}


class PaperStudy(Workspace):
    """A folder with the published study under an overlay, which makes it smaller and lets it run on CPU."""

    # What the run from nothing did, and the bytes that its largest process held at once.
    rules_run: frozenset[str] = frozenset()
    peak_memory: int = 0

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--configfile", PAPER, STUDY, "--cores", "2", *arguments]

    @property
    def overlay(self) -> dict:
        """What makes the study smaller, and lets its quantized layers multiply with the kernels for CPUs."""
        return OVERLAY

    def restore(self) -> None:
        """Put the overlay back after another was tried."""
        self.configure(OVERLAY)

    @property
    def config(self) -> dict:
        """The published study's own part of the config."""
        return yaml.safe_load((self.folder / PAPER).read_text())

    def write_sources(self) -> None:
        """Write models, datasets and captions where the config names them."""
        for model in self.config["models"].values():
            write_model_folder(self.folder / model["source"], model["family"], FULL_WIDTH[model["family"]])
        datasets = self.config["datasets"]
        vqav2, advqa = datasets["vqav2"], datasets["advqa"]["splits"]["test"]
        for files, image_ids, each in (
            (vqav2, range(1000, 1000 + QUESTIONS // 4), 4),
            # Ten of the pictures are also in VQAv2, as some of AdVQA's are.
            (advqa, range(1040, 1040 + QUESTIONS // 4), 4),
        ):
            paths = [self.folder / files[key] for key in ("questions", "annotations", "images")]
            write_vqav2(*paths, image_ids, each, seed=each)
        vizwiz = datasets["vizwiz"]["splits"]["test"]
        write_vizwiz(self.folder / vizwiz["annotations"], self.folder / vizwiz["images"], QUESTIONS, seed=3)
        source = self.config["calibration"]["source"]
        names = [f"{source['only']}{number:012d}.jpg" for number in range(500_000, 500_012)]
        write_captions(self.folder / source["captions"], self.folder / source["images"], names, seed=5)


@pytest.fixture(scope="session")
def paper_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperStudy]:
    """The study, run from nothing to its page; not to be changed."""
    folder = tmp_path_factory.mktemp("full-width")
    free = shutil.disk_usage(folder).free
    if free < DISK_BYTES:
        pytest.skip(f"needs {DISK_BYTES / 1e9:.0f} GB of disk for models of full width; free are {free / 1e9:.0f}")
    try:
        study = make_study(folder / "study")
        printed = study.run()
        study.rules_run = frozenset(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", printed, re.MULTILINE)) - {
            "all"
        }
        # The largest of all processes that ended and were waited for, down to the jobs; Linux counts kilobytes.
        study.peak_memory = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        yield study
    finally:
        shutil.rmtree(folder)


def make_study(folder: Path) -> PaperStudy:
    """Make a folder in which the study can run."""
    study = PaperStudy.make(folder)
    study.configure(OVERLAY)
    study.write_sources()
    return study
