"""Which checkpoints the job of a scheme goes on with."""

import os
from pathlib import Path

import pytest

from quantrust.artifacts.folder_record import RECORD
from quantrust.study import paths
from quantrust.study.asked import note_asked
from quantrust.study.checkpoints import checkpoint_given, checkpoint_of, checkpoints_beside
from quantrust.study.config import read_study
from quantrust.study.digests import family_code, quantization_code

MODEL, SCHEME = "qwen2-vl-tiny", "hqq-w4g64-full"
HQQ, MBQ = "hqq-w2g64-full", "mbq-w2g64-full"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The default study in an empty folder, where the model is there."""
    config = read_study([])
    monkeypatch.chdir(tmp_path)
    Path(paths.MODEL.format(model=MODEL)).mkdir(parents=True)
    return config


def place(scheme: str, model: str = MODEL) -> str:
    return paths.CHECKPOINT.format(model=model, scheme=scheme)


def beside(config: dict, scheme: str = SCHEME) -> list[str]:
    given = checkpoint_given(config, MODEL, scheme)
    return [checkpoint.place for checkpoint in checkpoints_beside(config, MODEL, scheme, given)]


def test_a_job_goes_on_with_what_the_run_asks_of_its_model_once_it_can_be_made(config: dict) -> None:
    assert beside(config) == []
    note_asked([*map(place, (SCHEME, HQQ, MBQ)), place("hqq-w3g64-full", "idefics3-tiny")])
    reading = "mbq-w4g64-full"
    assert beside(config) == [place(HQQ)]
    assert beside(config, reading) == [place(SCHEME), place(HQQ)]
    mbq = checkpoint_of(config, MODEL, MBQ)
    for path in (mbq.calibration, *mbq.images):
        Path(path).mkdir(parents=True)
    # what takes hours is begun by no job that takes minutes
    assert beside(config) == [place(HQQ)]
    assert beside(config, reading) == [place(SCHEME), place(HQQ), place(MBQ)]


def test_a_job_whose_code_was_edited_since_goes_on_with_nothing(config: dict) -> None:
    note_asked([place(HQQ)])
    given = checkpoint_given(config, MODEL, SCHEME)
    assert list(checkpoints_beside(config, MODEL, SCHEME, {**given, "code": ["another"]})) == []


def test_what_was_made_since_the_run_began_is_left_and_what_is_older_is_made_anew(config: dict) -> None:
    note_asked(map(place, (HQQ, "bf16")))
    begun = Path(paths.ASKED).stat().st_mtime
    for scheme, age in ((HQQ, 1), ("bf16", -1)):
        record = Path(place(scheme), RECORD)
        record.parent.mkdir(parents=True)
        record.touch()
        os.utime(record, (begun + age, begun + age))
    assert beside(config) == [place("bf16")]


def test_a_model_that_the_run_is_about_to_make_anew_is_waited_for(config: dict) -> None:
    model = paths.MODEL.format(model=MODEL)
    record = Path(model, RECORD)
    record.touch()
    note_asked([place(HQQ), model])
    begun = Path(paths.ASKED).stat().st_mtime
    os.utime(record, (begun - 1, begun - 1))
    assert beside(config) == []
    os.utime(record, (begun + 1, begun + 1))
    assert beside(config) == [place(HQQ)]


def test_checkpoints_that_others_quantized_are_left_to_jobs_of_their_own_kind(config: dict) -> None:
    config["schemes"]["theirs"] = {"external": "elsewhere/{model}"}
    config["study"]["schemes"].append("theirs")
    note_asked([place("theirs"), place(HQQ)])
    assert beside(config) == [place(HQQ)]


def test_a_checkpoint_depends_on_the_code_of_script_method_and_family(config: dict) -> None:
    code = [*quantization_code(config, MBQ), family_code(config, MODEL)]
    assert checkpoint_given(config, MODEL, MBQ) == {"table": None, "device": "cpu", "code": code}
