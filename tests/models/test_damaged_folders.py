"""A damaged model folder gets one message when it is prepared, which names it, and nothing is written."""

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from damaged_folders import JSON_FILES, TEMPLATE, WEIGHTS, damages
from hunting import trials
from quantrust.errors import QuantrustError
from quantrust.models.model_folder import prepare_model

FAMILIES = ("qwen2_vl", "idefics3")
CASES = [(family, name) for family in FAMILIES for name in damages(family)]
# of each family and file a few, the same in every run
SAMPLE = CASES[::19]
STRANGE = [
    None,
    True,
    0,
    -1,
    3,
    2.5,
    1e300,
    float("nan"),
    float("inf"),
    10**30,
    "",
    "x",
    "\ud800",
    [],
    [0],
    {},
    {"a": 0},
]


@pytest.fixture
def folder(model_folders, tmp_path) -> Callable[[str], Path]:
    """Return a function that copies a model folder."""
    return lambda family: shutil.copytree(model_folders[family], tmp_path / "models" / family)


def fault(source: Path, out: Path, family: str) -> str | None:
    """Return what preparing says of a folder, None when it is taken; whatever else is raised fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare_model(source, out, family)
    except QuantrustError as error:
        assert "\n" not in str(error) and ".partial" not in str(error)
        assert str(source) in str(error)
        assert not any(path.name.startswith((out.name, f".{out.name}")) for path in out.parent.iterdir())
        return str(error)
    return None


def refuse(family: str, name: str, folder: Callable[[str], Path], out: Path) -> None:
    source = folder(family)
    damages(family)[name](source)
    assert fault(source, out, family) is not None


@pytest.mark.parametrize(("family", "name"), SAMPLE)
def test_a_damaged_folder_is_refused(family, name, folder, tmp_path):
    refuse(family, name, folder, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), [case for case in CASES if case not in SAMPLE])
def test_every_damaged_folder_is_refused(family, name, folder, tmp_path):
    refuse(family, name, folder, tmp_path / "out")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_folder_is_taken(family, folder, tmp_path):
    """Without which the tests above would say nothing."""
    assert fault(folder(family), tmp_path / "out", family) is None
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.hunt
@pytest.mark.parametrize("trial", trials(8, 2000))
def test_whatever_a_folder_holds_is_taken_or_refused_in_one_message(trial, folder, tmp_path):
    rng = random.Random(trial)
    family = rng.choice(FAMILIES)
    source = folder(family)
    for _ in range(rng.randint(1, 3)):
        change_at_random(source / rng.choice((*JSON_FILES, TEMPLATE, WEIGHTS)), rng)
    fault(source, tmp_path / "out", family)


def change_at_random(path: Path, rng: random.Random) -> None:
    """Change a value of a JSON file, or bytes of any file."""
    if path.name in JSON_FILES and rng.random() < 0.8:
        try:
            content = json.loads(path.read_text())
        except ValueError:
            return
        place, key = rng.choice(list(places(content)) or [({}, "x")])
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(STRANGE)
        path.write_text(json.dumps(content))
        return
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 50))):
        # headers come first
        content[rng.randrange(min(len(content), rng.choice((64, 4096, 10**7))))] = rng.randrange(256)
    path.write_bytes(content)


def places(content: Any) -> list[tuple[Any, Any]]:
    """Return every place of a JSON value: what holds it, and its key or number there."""
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    found = [(content, key) for key in keys]
    return found + [place for key in keys for place in places(content[key])]
