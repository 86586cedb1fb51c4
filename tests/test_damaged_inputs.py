"""Files of users beside datasets, with any damage: each reader takes them or refuses them in one line that names them.

These are tables of scores, logs of other harnesses, items to answer, locks of downloads, captions, and the lists of a
model's files. Files of datasets are in `tests/data/test_damaged_data.py`, model folders in `tests/models`.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from damage import NO_JSON, damaged, refusal
from hunting import HUNTING
from quantrust.bundle.items_file import read_items
from quantrust.data.table import Wanted, read_score_table
from quantrust.downloads.lock import read_lock
from quantrust.files import sha256
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.calibration_samples import build_calibration_table

pytestmark = pytest.mark.hunt

DIGEST = "0" * 64
HUB = {"repository": "a/b", "revision": "main", "kind": "dataset"}
URL = {"url": "http://host/f.bin"}
SCORES = {"quality": 0.5, "confidence": 0.25, "image": "a", "group": "g", "split": "test"}
SAMPLE = {
    "doc": {"question": "?", "image": "picture"},
    "target": "1",
    "arguments": {f"gen_args_{k}": {"arg_0": "?", "arg_1": f" choice {k}"} for k in range(2)},
    "filtered_resps": [["-2.0", "False"], ["-4.0", "False"]],
    "filter": "none",
    "acc": 0.0,
    "acc_norm": 0.0,
}
LOSSES = {"target": "0", "filtered_resps": [["2.0", "False"], ["4.0", "False"]], "acc": 1.0, "input": "?"}
TABLES: dict[str, tuple[dict[str, Any], Wanted]] = {
    "scores": (SCORES, Wanted(id="doc_id")),
    "log": (SAMPLE, Wanted(metric="acc", image="doc.image", group="doc.question")),
    "log by length": (SAMPLE, Wanted(metric="acc_norm")),
    "log with a field": (SAMPLE | {"sure": 0.3}, Wanted(metric="acc", confidence="sure")),
    "log of losses": (LOSSES, Wanted()),
}
ITEMS = [{"image": "a.png", "question": "is it?", "id": 7}, {"image": "b.png", "question": "and it?", "id": 8}]
OFFICIAL = {"questions": [{"question_id": k, "image_id": 3, "question": "is it?"} for k in range(2)]}
LOCKS = {
    "file": {"source": URL, "files": {"f.bin": {"bytes": 3, "sha256": DIGEST}}},
    "repository": {"source": HUB, "commit": DIGEST[:40], "files": {"f.bin": {"bytes": 3, "sha256": DIGEST}}},
}


def chosen(faults: Iterator[tuple[str, bytes]], sample: int) -> list[bytes]:
    """Return files with a fault each: all of them in a hunt, else those that are no JSON and some of the others."""
    contents = [content for _, content in faults]
    if HUNTING:
        return contents
    return contents[: len(NO_JSON)] + random.Random(0).sample(contents[len(NO_JSON) :], sample)


def as_lines(content: bytes) -> bytes:
    """Return the entries of a list as lines of JSON; anything else as it is."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    return "\n".join(map(json.dumps, value)).encode() if isinstance(value, list) else content


def hold(path: Path, whole: Any, read: Callable[[], Any], sample: int, change: Callable[[bytes], bytes]) -> None:
    """Read a whole file, which is taken, and damaged ones, of which it or an image is named where they are refused."""
    path.write_bytes(change(json.dumps(whole).encode()))
    assert refusal(read, path.name) is None
    refused = 0
    faults = chosen(damaged(whole), sample)
    for content in faults:
        path.write_bytes(change(content))
        refused += refusal(read, path.name, f"image {path.parent}") is not None
    assert refused > len(faults) / 4


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_scores_is_taken_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    record, wanted = TABLES[name]
    rows = [{"doc_id": number, **record} for number in range(2)]
    path = tmp_path / "t.jsonl"
    hold(path, rows, lambda: read_score_table(path, wanted), 100, as_lines)


def test_items_are_taken_or_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "i.jsonl"
    hold(path, ITEMS, lambda: read_items(path), 100, as_lines)
    path = tmp_path / "i.json"
    (tmp_path / "images").mkdir()
    hold(path, OFFICIAL, lambda: read_items(path, tmp_path / "images"), 100, bytes)


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_is_taken_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path, lock = tmp_path / "x.lock", LOCKS[kind]
    hold(path, lock, lambda: read_lock(path, "x", lock["source"]), 100, bytes)


def test_captions_are_taken_or_refused_in_one_line(model_folders: dict[str, Path], tmp_path: Path) -> None:
    turns = [("human", "<image>\nWhat is there?"), ("gpt", "a red circle and a green square")]
    conversation = [{"from": who, "value": text} for who, text in turns]
    records = [{"id": str(k), "image": f"{k}.png", "conversations": conversation} for k in range(2)]
    for k in range(2):
        Image.new("RGB", (64, 64), (99 * k, 0, 0)).save(tmp_path / f"{k}.png")
    path = tmp_path / "captions.json"

    def read() -> None:
        build_calibration_table(model_folders["qwen2_vl"], path, tmp_path, samples=2, seed=0)

    hold(path, records, read, 10, bytes)


def test_the_list_of_a_models_files_is_taken_or_refused_in_one_line(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    source = shutil.copytree(model_folders["qwen2_vl"], tmp_path / "source")
    (source / "training.json").unlink(missing_ok=True)
    listed = {"files": {path.name: sha256(path) for path in sorted(source.iterdir())}}
    path, out = source / "training.json", tmp_path / "out" / "model"

    def read() -> None:
        shutil.rmtree(out, ignore_errors=True)
        try:
            prepare_model(source, out, "qwen2_vl")
        finally:
            # the model is there as a whole, or nothing is
            assert {found.name for found in out.parent.iterdir()} == ({"model"} if out.exists() else set())

    path.write_text(json.dumps(listed))
    assert refusal(read, "source") is None
    for content in chosen(damaged(listed), 15):
        path.write_bytes(content)
        message = refusal(read, "source")
        assert (message is None) == out.exists()
