"""What the benchmarks measure by."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import measuring


def test_relative_error_by_hand():
    assert measuring.relative_error(torch.tensor([3.0, 8.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.8)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_a_peak_is_of_this_process_alone_and_stays():
    ballast = np.ones(2**25)
    script = (
        "from measuring import peak_memory\n"
        "first = peak_memory()\n"
        "block = bytearray(b'1') * 2**27\n"
        "del block\n"
        "print(first, peak_memory())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, check=True, stdout=subprocess.PIPE)
    first, last = map(int, ran.stdout.split())
    assert first < ballast.nbytes / 2
    assert 0.9 * 2**27 < last - first < 2**28


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_a_function_is_measured_in_a_process_of_its_own() -> None:
    cost = measuring.alone(bytearray, 2**27)
    assert 0.9 * 2**27 < cost.peak - cost.before < 2**28
    asleep = measuring.alone(time.sleep, 0.3)
    assert asleep.wall_s >= 0.3 > asleep.cpu_s
    with pytest.raises(TypeError):
        measuring.alone(time.sleep, "long")
