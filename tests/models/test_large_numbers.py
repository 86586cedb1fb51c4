"""A large number anywhere in a model folder: preparing it ends soon, in little memory, in a model or one message."""

import json
import os
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hunting import HUNTING
from published_layout import MINI, write_model_folder
from quantrust.errors import QuantrustError
from quantrust.models.bounded import ends_soon
from quantrust.models.model_folder import prepare_model

pytestmark = pytest.mark.hunt

FAMILIES = ("qwen2_vl", "idefics3", "llava")
FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
LARGE = (10**5, 10**8, 10**11)
SECONDS, MEMORY = 60, 3 << 30
SAMPLE = 5
# Settings that models may have and these folders do not.
FURTHER = {
    "config.json": {"text_config": {"head_dim": 16, "sliding_window": 64, "rope_theta": 10000.0}},
    "preprocessor_config.json": {"min_pixels": 64, "max_pixels": 4096, "size": {"shortest_edge": 56, "height": 56}},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("published")
    for family in FAMILIES:
        write_model_folder(top / family, family, MINI[family])
    return {family: top / family for family in FAMILIES}


def numbers(content: Any, at: tuple = ()) -> Iterator[tuple]:
    """Yield the places of all numbers in a JSON value."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from numbers(value, (*at, key))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield at


def merged(content: dict, further: dict) -> dict:
    """Return a JSON object with what another has and it lacks."""
    both = {key: merged(content[key], value) for key, value in further.items() if isinstance(content.get(key), dict)}
    return {**further, **content, **both}


def put(content: Any, at: tuple, value: Any) -> None:
    for key in at[:-1]:
        content = content[key]
    content[at[-1]] = value


def prepare(source: Path, out: Path, family: str) -> None:
    """Prepare in this process, which is a child: what is raised beside the one message ends it with another code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare_model(source, out, family)
    except QuantrustError:
        pass
    except BaseException:
        os._exit(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_large_number_in_any_file_ends_soon(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    source = shutil.copytree(folders[family], tmp_path / "source")
    contents = {
        name: merged(json.loads((source / name).read_text()), FURTHER.get(name, {}))
        for name in FILES
        if (source / name).is_file()
    }
    cases = [(name, at, value) for name, content in contents.items() for at in numbers(content) for value in LARGE]
    for name, at, value in cases if HUNTING else random.Random(family).sample(cases, SAMPLE):
        changed = json.loads(json.dumps(contents[name]))
        put(changed, at, value)
        whole = (source / name).read_text()
        (source / name).write_text(json.dumps(changed))
        assert ends_soon(lambda: prepare(source, tmp_path / "out", family), SECONDS, MEMORY), (name, at, value)
        (source / name).write_text(whole)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
