"""The default config, and those of the shipped studies."""

import pytest

import study_workspace
from study_workspace import OVERLAYS


@pytest.fixture(params=["default", *(path.stem for path in OVERLAYS)])
def shipped_config(request: pytest.FixtureRequest) -> dict:
    return study_workspace.shipped_config(request.param)


@pytest.fixture
def config() -> dict:
    return study_workspace.shipped_config("default")
