"""What a method says of itself is read from its source: it is what its record holds, and torch is not needed."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from quantrust.errors import QuantrustError
from quantrust.quantization import method_traits as module
from quantrust.quantization.method import load_method
from quantrust.quantization.method_traits import MethodTraits, Reads, method_names, method_traits

RECORD = 'METHOD = DataFree(name="own", label="Own", quantize=round)\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the module of a method called `own` to a package that holds nothing else."""
    monkeypatch.setattr(module, "SCRIPTS", tmp_path)
    folder = tmp_path.joinpath(*module.METHODS.split("."))
    folder.mkdir(parents=True)

    def write(text: str) -> Path:
        method_traits.cache_clear()
        (folder / "own.py").write_text(text)
        return folder / "own.py"

    yield write
    method_traits.cache_clear()


def test_traits_are_those_of_the_record():
    assert set(method_names()) >= {"awq", "gptq", "hqq", "mbq", "rtn"}
    for name in method_names():
        record, traits = load_method(name), method_traits(name)
        for field in fields(MethodTraits):
            assert getattr(record, field.name) == getattr(traits, field.name)


def test_traits_are_read_without_torch_and_without_running_the_module():
    code = (
        "import sys\n"
        "from quantrust.quantization.method_traits import method_names, method_traits\n"
        "found = [method_traits(name).label for name in method_names()]\n"
        "print(*found)\n"
        "sys.exit('torch' in sys.modules or any('methods.' in name for name in sys.modules if 'quantrust' in name))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"AWQ", "GPTQ", "HQQ", "MBQ", "RTN"} <= set(done.stdout.split())


def test_what_a_record_leaves_out_is_none(write):
    write("from nowhere import torch\n\n" + RECORD)
    assert method_traits("own") == MethodTraits(name="own", reads=Reads.NOTHING, label="Own")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "does not end in the record of a method; expected METHOD = <kind>"),
        (RECORD + "x = 1\n", "does not end in the record"),
        (RECORD.replace("DataFree", "Magic"), "one of the kinds DataFree, ScaleSearching, Sequential"),
        (RECORD.replace('"Own"', "LABEL"), "label of METHOD is LABEL; expected a literal"),
        (RECORD.replace('label="Own", ', ""), "METHOD has no label"),
        (RECORD.replace('"Own"', "3"), "label of METHOD is 3; expected text"),
        (RECORD.replace('"own"', '"other"'), "METHOD is called 'other'; expected the name of the module"),
        (RECORD.replace("quantize", 'error="mae", quantize'), "error of METHOD is 'mae'; expected mae or mse for"),
        (RECORD.replace("DataFree", "ScaleSearching"), "error of METHOD is None; expected mae or mse for a method"),
        ("METHOD = (", "cannot be read as Python"),
    ],
)
def test_a_faulty_record_is_named(text, message, write):
    path = write(text)
    with pytest.raises(QuantrustError) as raised:
        method_traits("own")
    assert str(raised.value).startswith(str(path)) and message in str(raised.value)
