"""`quantrust export`: exit codes, what is printed, and nothing left behind after bad input."""

import json
import shutil

import pytest

from quantrust.cli import main
from quantrust.quantization.quantize import quantize_model


@pytest.fixture(scope="module")
def checkpoint(model_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "hqq"
    quantize_model(model_folders["qwen2_vl"], "hqq-w4g64-mixed", None, folder)
    return folder


def export(folder, out, *options):
    return main(["export", str(folder), "--out", str(out), *(options or ("--format", "compressed-tensors"))])


def fails(capsys, folder, out, *options, names):
    """Check that exporting ends in exit code 2 and one line that holds all `names`."""
    assert export(folder, out, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = (line for line in captured.err.splitlines() if not line.startswith("exporting"))
    assert line.startswith("error: ")
    for name in names:
        assert name in line


def test_what_is_stored_lost_and_saved_is_printed(checkpoint, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert export(checkpoint, out) == 0
    captured = capsys.readouterr()
    report = json.loads((out / "export.json").read_text())
    size = (out / "model.safetensors").stat().st_size
    assert size == report["bytes"]["export"]
    assert "5 bits, symmetric: 21 layers" in captured.out
    assert "float zero-points of 21 layers are rounded to integers: their weights change by " in captured.out
    assert f"{size:,} bytes; the checkpoint has {(checkpoint / 'model.safetensors').stat().st_size:,}" in captured.out
    assert "pip install transformers compressed-tensors" in captured.out
    assert "exporting to compressed-tensors: 66 of 66 steps" in captured.err


def test_exact_loses_nothing(checkpoint, tmp_path, capsys):
    assert export(checkpoint, tmp_path / "out", "--format", "compressed-tensors", "--exact") == 0
    assert "rounded" not in capsys.readouterr().out


def test_a_layer_that_changes_too_much_is_written_only_where_that_is_asked_for(
    checkpoint, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("quantrust.quantization.export.LARGEST_CHANGE", 1e-9)
    gptq = ("--format", "gptq")
    fails(capsys, checkpoint, tmp_path / "out", *gptq, names=["would change by more than 0 %", "--force"])
    assert not (tmp_path / "out").exists()
    assert export(checkpoint, tmp_path / "out", *gptq, "--force") == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    fails(capsys, tmp_path / "nothing", tmp_path / "out", names=["nothing/quantization.json is missing"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_byte_is_named(name, checkpoint, tmp_path, capsys):
    shutil.copytree(checkpoint, tmp_path / "damaged")
    path = tmp_path / "damaged" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    fails(capsys, tmp_path / "damaged", tmp_path / "out", names=[f"damaged/{name} is damaged"])
    assert not (tmp_path / "out").exists()


def test_a_folder_with_content_is_not_overwritten(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("keep")
    fails(capsys, checkpoint, out, names=["out exists", "new or empty folder"])
    assert (out / "letter.txt").read_text() == "keep"
    fails(capsys, checkpoint, out / "letter.txt", names=["letter.txt", "cannot be written"])
    assert (out / "letter.txt").read_text() == "keep"


def test_a_place_that_cannot_be_written_is_named(checkpoint, capsys):
    fails(capsys, checkpoint, "/proc/out", names=["/proc/out", "cannot be written"])


def test_an_exact_gptq_export_is_refused(checkpoint, tmp_path, capsys):
    fails(capsys, checkpoint, tmp_path / "out", "--format", "gptq", "--exact", names=["gptq", "compressed-tensors"])
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_refused(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        export(checkpoint, tmp_path / "out", "--format", "onnx")
    assert stopped.value.code == 2
    assert "invalid choice: 'onnx'" in capsys.readouterr().err
