"""A hostile tokenizer.json is refused in one line when its folder is prepared, before it can stop anything."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from quantrust.errors import QuantrustError
from quantrust.models import bounded_tokenizer
from quantrust.models.bounded_tokenizer import check_tokenizer
from quantrust.models.model_folder import prepare_model

DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
HOSTILE: dict[str, tuple[str, Any, str]] = {
    "a pattern without an end": (
        "pre_tokenizer",
        {"type": "Split", "pattern": {"Regex": "((a|aa)+)+$"}, "behavior": "Isolated", "invert": False},
        "does not read short texts within 1 seconds",
    ),
    "steps that fill the memory": (
        "normalizer",
        {"type": "Sequence", "normalizers": [DOUBLED] * 60},
        "does not read short texts within 1 seconds and 2 GiB of memory",
    ),
    "steps that make many tokens": (
        "normalizer",
        {"type": "Sequence", "normalizers": [{**DOUBLED, "content": "e1e1e1e1e1"}]},
        "tokens of 'aaaaaaaaaaaaaaaaaaaaaaaa', of 501 bytes; expected at most 4 a byte",
    ),
}


@pytest.fixture
def folder(model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bounded_tokenizer, "SECONDS", 1)
    return shutil.copytree(model_folders["idefics3"], tmp_path / "model")


@pytest.mark.parametrize(("part", "value", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tokenizer_is_refused_when_its_folder_is_prepared(folder, part, value, message, tmp_path):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    with pytest.raises(QuantrustError) as caught:
        prepare_model(folder, tmp_path / "out", "idefics3")
    assert str(caught.value).startswith(f"{path}: the tokenizer ")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3"])
def test_a_tokenizer_of_the_usual_kind_is_taken(model_folders, family):
    check_tokenizer(model_folders[family])
