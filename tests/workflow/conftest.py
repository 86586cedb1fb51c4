"""The config of every shipped study."""

import pytest

from study_workspace import OVERLAYS, shipped_config


@pytest.fixture(scope="session")
def overlaid() -> dict[str, dict]:
    """The default config under every shipped overlay, by the overlay's name."""
    return {path.stem: shipped_config(path.stem) for path in OVERLAYS}
