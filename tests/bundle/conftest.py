"""A bundle of a small random model, and the study's artifacts that it is made of."""

from pathlib import Path

import pytest

from bundled_study import Study, make_study, write
from quantrust.bundle.load import Bundle


@pytest.fixture(scope="session")
def bundled_study(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A variant of a random model, all that a study measures of it, and operating points made up; not to be changed."""
    return make_study(tmp_path_factory.mktemp("bundled"), model_folders["qwen2_vl"])


@pytest.fixture(scope="session")
def bundle_folder(bundled_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle under maxprob; not to be changed."""
    return write(bundled_study, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    """The same, loaded."""
    return Bundle.load(bundle_folder)
