"""Fixtures that several parts of the suite share: small random models of every family, and a bundle of one."""

import os

# One thread gives the same bytes everywhere, and is fastest for matrices this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from hunting import choose_profile

if TYPE_CHECKING:
    from bundled_study import Study
    from quantrust.bundle.load import Bundle

choose_profile()

FAMILY_NAMES = ("qwen2_vl", "idefics3")


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders in the published layout of random float32 models, one a family, three blocks deep.

    Matrices are widened against the usual initialisation, so that answers differ from question to question.
    """
    import torch

    from quantrust.embedded.models import EmbeddedSpec, build_model, save_model_folder, train_tokenizer

    corpus = ["what color is the red circle? is there a 3 below it?", "yes no 0 1 2 3 4 5 6 7 8 9 top left"] * 10
    folders = {}
    for family in FAMILY_NAMES:
        tokenizer = train_tokenizer([f"user\nassistant\nUser: Assistant: {text}" for text in corpus], family)
        model = build_model(EmbeddedSpec(family, layers=3, vision_layers=2), tokenizer, seed=3)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() >= 2:
                    parameter.mul_(4)
        folders[family] = tmp_path_factory.mktemp("models") / family
        save_model_folder(model, tokenizer, family, folders[family], torch.float32)
    return folders


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Six different pictures of the embedded size."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(6)]


@pytest.fixture(scope="session")
def bundled_study(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> "Study":
    """A variant of a random model, all that a study measures of it, and operating points made up; not to be changed."""
    from bundled_study import make_study

    return make_study(tmp_path_factory.mktemp("bundled"), model_folders["qwen2_vl"])


@pytest.fixture(scope="session")
def bundle_folder(bundled_study: "Study", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle under maxprob; not to be changed."""
    from bundled_study import write

    return write(bundled_study, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> "Bundle":
    """The same, loaded."""
    from quantrust.bundle.load import Bundle

    return Bundle.load(bundle_folder)
