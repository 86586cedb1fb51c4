"""What a method is said not to run, it does not run: an edit there may leave its checkpoints as they are."""

import sys
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from quantrust.digest import SCRIPTS, code_files
from quantrust.files import write_json
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.method_modules import METHOD_MODULES, module_found, modules_not_run
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import BUILT_IN_METHODS, METHODS, parse_scheme


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


def test_every_method_says_which_modules_it_runs() -> None:
    assert set(METHOD_MODULES) == set(BUILT_IN_METHODS)


def test_a_method_that_is_found_by_its_name_is_imported_by_nothing() -> None:
    """So that its digest, which the rule carries, is all that depends on it."""
    found = {method: module_found(parse_scheme(f"{method}-w4g32")) for method in METHODS}
    assert found == dict.fromkeys(BUILT_IN_METHODS) | {"hqq": "quantrust.quantization.methods.hqq"}
    imported = {path.relative_to(SCRIPTS).as_posix() for path in code_files(SCRIPTS / "quantize_model.py", SCRIPTS)}
    assert "quantrust/quantization/methods/rtn.py" in imported
    assert "quantrust/quantization/methods/hqq.py" not in imported


@pytest.mark.parametrize("name", ["bf16", *(f"{method}-w3g32-full" for method in METHODS)])
def test_no_module_that_is_left_out_runs(
    name: str, model_folders: dict[str, Path], calibration, tmp_path: Path
) -> None:
    left_out = {str(SCRIPTS.joinpath(*module.split("."))) + ".py" for module in modules_not_run(parse_scheme(name))}
    assert all(Path(path).is_file() for path in left_out)
    ran: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            ran.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        quantize_model(model_folders["idefics3"], name, calibration, tmp_path / "checkpoint")
    finally:
        sys.setprofile(None)
    assert any(path.endswith("checkpoint.py") for path in ran)
    assert not left_out & ran
