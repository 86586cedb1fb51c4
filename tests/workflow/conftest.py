"""The default config and the overlays that ship with it."""

import copy

import pytest
import yaml

from study_workspace import OVERLAYS, ROOT

NAMES = [path.stem for path in OVERLAYS]


def merge(base: dict, overlay: dict) -> dict:
    """Merge as Snakemake does: maps into maps, anything else replaces."""
    merged = copy.deepcopy(base)
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def load(name: str) -> dict:
    """Return the default config, or the default under an overlay."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    return (
        config if name == "default" else merge(config, yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()))
    )


@pytest.fixture(scope="session")
def overlaid() -> dict[str, dict]:
    """The default config under every shipped overlay, by the overlay's name."""
    return {name: load(name) for name in NAMES}


@pytest.fixture(params=["default", *NAMES])
def shipped_config(request: pytest.FixtureRequest) -> dict:
    return load(request.param)


@pytest.fixture
def config() -> dict:
    return load("default")
