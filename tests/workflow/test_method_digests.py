"""The digests that a checkpoint depends on cover what quantizing runs, and no other method."""

import sys
from pathlib import Path
from types import FrameType

import polars as pl
import pytest
from PIL import Image

from quantrust.digest import SCRIPTS, code_files
from quantrust.files import write_json
from quantrust.named_modules import FAMILIES
from quantrust.named_modules import METHODS as PACKAGE
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import METHODS, parse_scheme


@pytest.fixture(scope="module")
def calibration(model_folders: dict[str, Path], pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("captions")
    records = []
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
        said = [("human", "<image>\ndescribe the picture."), ("gpt", "a red circle beside a blue square")]
        conversation = [{"from": who, "value": text} for who, text in said]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": conversation})
    write_json(folder / "captions.json", records)
    return build_calibration_table(model_folders["idefics3"], folder / "captions.json", folder, samples=6, seed=0)


def covered(*names: str) -> set[str]:
    """Return the files of the package that the digests of these modules cover."""
    paths = [SCRIPTS.joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return {path.relative_to(SCRIPTS).as_posix() for start in paths for path in code_files(start, SCRIPTS)}


def of_methods(files: set[str]) -> set[str]:
    return {Path(file).stem for file in files if "/methods/" in file or "/walks/" in file} - {"__init__"}


def test_the_digest_of_a_method_covers_its_walk_and_what_it_rounds_by_and_no_other_method() -> None:
    assert of_methods(covered("quantize_model")) == set()
    assert not any("calibration" in file for file in covered("quantize_model"))
    expected = {
        "rtn": {"rtn", "data_free"},
        "hqq": {"hqq", "data_free"},
        "awq": {"awq", "rtn", "data_free", "scale_searching"},
        "mbq": {"mbq", "rtn", "data_free", "scale_searching"},
        "gptq": {"gptq", "rtn", "data_free", "sequential"},
    }
    assert {name: of_methods(covered(f"{PACKAGE}.{name}")) for name in METHODS} == expected
    # what no data is read for does not depend on how data is read
    assert not any("calibration" in file for name in ("rtn", "hqq") for file in covered(f"{PACKAGE}.{name}"))


@pytest.mark.parametrize("name", ["bf16", *(f"{method}-w3g32-full" for method in METHODS)])
def test_every_module_that_quantizing_runs_is_in_a_digest(
    name: str, model_folders: dict[str, Path], calibration: pl.DataFrame, tmp_path: Path
) -> None:
    scheme = parse_scheme(name)
    known = covered("quantize_model", f"{FAMILIES}.idefics3")
    if scheme.method is not None:
        known |= covered(f"{PACKAGE}.{scheme.method}")
    ran: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            ran.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        quantize_model(model_folders["idefics3"], name, calibration, tmp_path / "checkpoint")
    finally:
        sys.setprofile(None)
    inside = {Path(path).relative_to(SCRIPTS).as_posix() for path in ran if Path(path).is_relative_to(SCRIPTS)}
    assert "quantrust/quantization/checkpoint.py" in inside
    assert inside <= known
