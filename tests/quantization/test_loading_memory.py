"""What loading a packed checkpoint takes in memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from quantrust.digest import SCRIPTS
from quantrust.embedded.models import EmbeddedSpec, build_model, save_model_folder, train_tokenizer
from quantrust.quantization.quantize import quantize_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux: reads /proc"),
]

# The first load brings in every module that loading needs; only what the second one takes is counted.
MEASURE = """
import gc
import json
import sys
from pathlib import Path
import torch
from quantrust.quantization.checkpoint import load_checkpoint

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

small, large, dtype, kernel = sys.argv[1:]
load_checkpoint(small, getattr(torch, dtype), kernel)
gc.collect()
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
model = load_checkpoint(large, getattr(torch, dtype), kernel)
print(json.dumps({"peak": status("VmHWM") - before, "held": status("VmRSS") - before}))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of eighty million weights, and a small one."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["what is there? a red circle and a 3"] * 10, "qwen2_vl")
    for name, spec in (
        ("small", EmbeddedSpec("qwen2_vl", layers=1, vision_layers=1)),
        ("large", EmbeddedSpec("qwen2_vl", hidden=1024, mlp=4096, layers=5, vision_layers=1)),
    ):
        save_model_folder(build_model(spec, tokenizer, seed=0), tokenizer, "qwen2_vl", folder / name, torch.bfloat16)
    return folder


@pytest.mark.parametrize(
    ("scheme", "dtype", "kernel"),
    [
        ("rtn-w8g64-full", "float32", "reference"),
        ("rtn-w4g64-full", "float32", "reference"),
        ("rtn-w4g64-full", "bfloat16", "packed"),
        ("rtn-w8g64", "bfloat16", "packed"),
        ("rtn-w4g64", "bfloat16", "reference"),
    ],
)
def test_loading_peaks_below_1_3_times_the_file(scheme, dtype, kernel, folders, tmp_path):
    for name in ("small", "large"):
        quantize_model(folders / name, scheme, None, tmp_path / name)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large"), dtype, kernel]
    done = subprocess.run(command, cwd=SCRIPTS, check=True, stdout=subprocess.PIPE)
    found, file = json.loads(done.stdout), (tmp_path / "large" / "model.safetensors").stat().st_size
    assert found["held"] > 0.9 * file
    assert found["peak"] < 1.3 * file
