"""The job of a scheme goes on with other schemes of its model: the same bytes, and nothing made twice."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.folder_record import RECORD, check_folder, write_record
from quantrust.artifacts.made_early import waits
from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.quantization import quantize
from quantrust.quantization.checkpoint import read_record
from quantrust.quantization.checkpoint_job import quantize_schemes
from quantrust.quantization.early_checkpoint import EarlyCheckpoint
from quantrust.quantization.methods import mbq
from quantrust.quantization.methods.mbq import modality_ratios
from quantrust.quantization.quantize import quantize_model

SCHEMES = ("hqq-w4g32-full", "hqq-w2g32-full", "mbq-w3g32-full")


@pytest.fixture
def checkpoints(model_folders, calibration_tables, tmp_path: Path) -> list[EarlyCheckpoint]:
    """Two checkpoints that read no data and one that does, of one model."""
    model, table = tmp_path / "model", tmp_path / "calibration.parquet"
    shutil.copytree(model_folders["idefics3"], model)
    write_record(model)
    write_table(calibration_tables["idefics3"], table)
    images = Path(calibration_tables["idefics3"]["image"][0]).parent
    return [
        EarlyCheckpoint(
            place=str(tmp_path / "checkpoints" / scheme),
            made=str(tmp_path / "made" / scheme),
            scheme=scheme,
            model=str(model),
            calibration=str(table) if scheme.startswith("mbq") else None,
            images=(str(images),) if scheme.startswith("mbq") else (),
            given={"table": None, "device": "cpu", "code": []},
        )
        for scheme in SCHEMES
    ]


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the schemes that the model is quantized under from now on."""
    names = []

    def noting(folder, scheme, *rest):
        names.append(scheme.name)
        quantize_model(folder, scheme, *rest)

    monkeypatch.setattr(quantize, "quantize_model", noting)
    return names


def test_checkpoints_that_another_job_made_have_the_bytes_of_their_own_job(checkpoints, quantized, tmp_path):
    first, *others = checkpoints
    quantize_schemes(first, lambda: others)
    assert quantized == [*SCHEMES]
    assert not any(Path(one.place).exists() for one in others)
    for one in others:
        quantize_schemes(one, list)
    assert quantized == [*SCHEMES] and not list((tmp_path / "made").iterdir())
    for one in checkpoints:
        quantize_model(one.model, one.scheme, one.calibration, tmp_path / "alone")
        check_folder(one.place)
        assert Path(one.place, RECORD).read_bytes() == Path(tmp_path, "alone", RECORD).read_bytes()


def test_the_modality_ratios_of_a_model_are_measured_once(checkpoints, monkeypatch, tmp_path):
    *_, first = checkpoints
    other = replace(
        first, scheme="mbq-w2g32-full", place=str(tmp_path / "checkpoints" / "w2"), made=str(tmp_path / "made" / "w2")
    )
    measured = []

    def noting(*arguments):
        measured.append(arguments)
        return modality_ratios(*arguments)

    monkeypatch.setattr(mbq, "modality_ratios", noting)
    quantize_schemes(first, lambda: [other])
    quantize_schemes(other, list)
    assert len(measured) == 1
    quantize_model(other.model, other.scheme, other.calibration, tmp_path / "alone")
    assert Path(other.place, RECORD).read_bytes() == Path(tmp_path, "alone", RECORD).read_bytes()
    assert read_record(other.place)["modality_ratios"]


def test_a_checkpoint_is_moved_to_another_disk(checkpoints, quantized, monkeypatch):
    first, second, _ = checkpoints

    def across_disks(source, target):
        if Path(second.made) in Path(source).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(source), None, str(target))
        rename(source, target)

    rename = os.replace
    quantize_schemes(first, lambda: [second])
    monkeypatch.setattr(os, "replace", across_disks)
    quantize_schemes(second, list)
    check_folder(second.place)
    assert quantized == [first.scheme, second.scheme] and not Path(second.made).exists()


def test_a_checkpoint_is_made_anew_where_anything_that_it_is_made_from_has_changed(checkpoints, quantized):
    first, second, third = checkpoints
    quantize_schemes(first, lambda: [second, third])
    write_table(pl.read_parquet(third.calibration).head(3), third.calibration)
    changed = replace(second, given={**second.given, "device": "another"})
    assert [waits(one.made, one.key()) for one in (second, third, changed)] == [True, False, False]
    quantize_schemes(third, list)
    assert quantized == [*SCHEMES, third.scheme]


def test_a_scheme_that_cannot_be_made_is_left_to_its_own_job(checkpoints, caplog):
    first, second, third = checkpoints
    wrong = replace(second, scheme="hqq-w4g32-nothing")
    quantize_schemes(first, lambda: [wrong, third])
    assert "is left to its own job: " in caplog.text
    assert waits(third.made, third.key()) and not Path(wrong.made).exists()
    with pytest.raises(QuantrustError):
        quantize_schemes(wrong, list)


def test_what_its_own_job_left_since_the_run_began_is_not_made_again(checkpoints, quantized):
    first, second, _ = checkpoints
    quantize_schemes(second, list)
    ended = Path(second.place, RECORD).stat().st_mtime_ns
    quantize_schemes(first, lambda: [replace(second, begun=ended)])
    assert quantized == [second.scheme, first.scheme]
    quantize_schemes(first, lambda: [replace(second, begun=ended + 1)])
    assert quantized == [second.scheme, first.scheme, first.scheme, second.scheme]
