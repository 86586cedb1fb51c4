"""Cells of a grid that one process makes one after another: the bytes of jobs of their own, and nothing made twice."""

import errno
import fcntl
import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from quantrust.artifacts.folder_record import write_record
from quantrust.artifacts.made_early import locked
from quantrust.errors import QuantrustError
from quantrust.files import sha256
from quantrust.inference import features as features_module
from quantrust.inference import sweep
from quantrust.inference.cells import Cell, take
from quantrust.inference.features import dump_features
from quantrust.inference.settings import DumpSettings
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import resolve_scheme
from quantrust.tasks.task import load_task

SETTINGS = {"max_new_tokens": 5, "top_k": 8, "batch_size": 5, "images_per_batch": 3, "images_per_chunk": 4}
# Two settings of vision, and two of the language model under each.
BITS = {"a": (3, 2), "b": (3, 4), "c": (16, 4), "d": (16, 2)}


def table(method: str, vision: int, language: int) -> dict:
    parts = {"vision": vision, "language": language}
    rows = [{"component": part, "bits": bits} for part, bits in parts.items() if bits != 16]
    return {"method": method, "group": 32, "symmetric": False, "table": rows}


@pytest.fixture
def cells(model_folders: dict[str, Path], questions_path: Path, tmp_path: Path) -> dict[str, Cell]:
    """Four cells of a model, in a folder of their own."""
    model = tmp_path / "model"
    shutil.copytree(model_folders["idefics3"], model)
    write_record(model)
    return {
        name: Cell(
            scheme=name,
            model=str(model),
            questions=str(questions_path),
            calibration=None,
            images=(str(questions_path.parent),),
            given={"table": table("hqq", *bits), "settings": SETTINGS, "task": "vqa", "device": "cpu", "code": []},
            features=str(tmp_path / "features" / f"{name}.parquet"),
            record=str(tmp_path / "records" / f"{name}.json"),
            made=str(tmp_path / "made" / name),
        )
        for name, bits in BITS.items()
    }


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pictures of every batch that passes a vision tower from now on."""
    passed = []
    encode = features_module.FeatureDumper.encode

    def counting(self, images, *rest):
        passed.append(len(images))
        return encode(self, images, *rest)

    monkeypatch.setattr(features_module.FeatureDumper, "encode", counting)
    return passed


def make(own: Cell, *others: Cell, **how) -> None:
    sweep.make_cells(own, lambda: others, **how)


def test_cells_have_the_bytes_of_single_jobs_and_see_each_picture_once_for_each_setting_of_vision(
    cells, encoded, tmp_path
):
    make(*cells.values())
    assert sum(encoded) == 2 * 10
    for name, cell in cells.items():
        assert take(cell, cell.key())
        quantize_model(cell.model, resolve_scheme(name, cell.given["table"]), None, tmp_path / "checkpoint")
        single = tmp_path / "single.parquet"
        dump_features(tmp_path / "checkpoint", cell.questions, single, DumpSettings(**SETTINGS), load_task("vqa"))
        assert Path(cell.features).read_bytes() == single.read_bytes()
        record = json.loads(Path(cell.record).read_text())
        assert record.pop("made_from") == cell.key()
        assert record == json.loads((tmp_path / "checkpoint" / "quantization.json").read_text())
    assert not list((tmp_path / "made").iterdir())


def test_what_is_made_from_the_same_is_not_made_again(cells, encoded):
    first, second, third, _ = cells.values()
    make(first, second)
    waiting = {cell.scheme: sha256(f"{cell.made}/features.parquet") for cell in (first, second)}
    take(first, first.key())
    encoded.clear()
    # one is in its place and one waits for its job
    make(third, first, second)
    assert sum(encoded) == 10
    assert sha256(f"{second.made}/features.parquet") == waiting["b"]
    changed = replace(second, given={**second.given, "settings": {**SETTINGS, "max_new_tokens": 1}})
    assert not take(changed, changed.key())
    make(changed)
    assert take(changed, changed.key())
    assert sha256(changed.features) != waiting["b"]


def test_a_damaged_cell_that_waits_is_made_again(cells):
    cell = cells["a"]
    make(cell)
    path = Path(cell.made, "features.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert not take(cell, cell.key())
    make(cell)
    assert take(cell, cell.key())
    assert Path(cell.features).read_bytes() == whole


def test_another_cell_that_cannot_be_made_is_left_to_its_own_job(cells, caplog):
    first, second, third, _ = cells.values()
    rows = [{"component": "language", "third": "first", "bits": 3}, {"component": "language", "bits": 4}]
    wrong = replace(second, given={**second.given, "table": {**second.given["table"], "table": rows}})
    make(first, wrong, third)
    assert [cell.waits(cell.key()) for cell in (first, wrong, third)] == [True, False, True]
    assert f"{wrong.features} is left to its own job: scheme b:" in caplog.text
    with pytest.raises(QuantrustError, match="scheme b:"):
        make(wrong)


def test_a_cell_that_another_job_makes_is_left_to_it(cells):
    first, second, third, _ = cells.values()
    with locked(second.made, wait=False) as held:
        assert held
        make(first, second, third)
    assert [cell.waits(cell.key()) for cell in (first, second, third)] == [True, False, True]


def test_a_lock_that_its_holder_took_away_is_not_held(tmp_path, monkeypatch):
    """Whoever waits for it gets the old file, and another job may have a new one by then."""
    folder, taken = tmp_path / "made", []
    flock = fcntl.flock

    def losing(file, how):
        flock(file, how)
        if not taken:
            taken.append(Path(f"{folder}.lock").unlink())

    monkeypatch.setattr(fcntl, "flock", losing)
    with locked(folder, wait=True) as held:
        assert held and Path(f"{folder}.lock").exists()
        with locked(folder, wait=False) as other:
            assert not other
    assert taken


@pytest.mark.parametrize(("number", "passed"), [(errno.ENOLCK, True), (errno.EIO, False)])
def test_only_a_file_system_without_locks_goes_without(number, passed, tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        nullcontext() if passed else pytest.raises(OSError, match="Input/output error"),
        locked(tmp_path / "made", wait=False) as others,
        locked(tmp_path / "made", wait=True) as own,
    ):
        # every job makes its own, and none goes on
        assert own and not others


def test_no_further_cell_is_begun_when_the_time_is_over(cells):
    first, second, *_ = cells.values()
    make(first, second, longest=-1)
    assert [cell.waits(cell.key()) for cell in (first, second)] == [True, False]
