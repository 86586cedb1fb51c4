"""`GemliteWeight` in triton's interpreter, on a CPU, against the plain product with the dequantized weight.

gemlite and triton lie in a folder of their own, which one process alone has on its path (`gemlite_on_cpu`). The
interpreter does not show what a compiler makes of the kernels, how fast they are, and what sums that race each other
do to the last bits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantrust.digest import SCRIPTS

TESTS = Path(__file__).resolve().parents[2]
FOLDER = TESTS.parent / ".gemlite"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (FOLDER / "triton").is_dir(),
        reason="needs triton and gemlite in .gemlite: `make gemlite` puts them there, where triton has a wheel (Linux)",
    ),
]

DECODE, FEW, PREFILL = 1, 17, 65
"""Rows of activations. gemlite has a kernel of its own for each, and another one for decoding at 8 bits."""

CASES = {
    "2 bits, every setting": {"shape": (48, 64), "bits": 2, "group_size": 64, "all_settings": True},
    "8 bits, every setting of decoding": {
        "shape": (16, 128),
        "bits": 8,
        "group_size": 64,
        "all_settings": True,
        "counts": (DECODE,),
    },
    "2 bits, symmetric, groups of 128": {"shape": (80, 384), "bits": 2, "group_size": 128, "symmetric": True},
    "8 bits, symmetric": {"shape": (64, 192), "bits": 8, "group_size": 64, "symmetric": True},
    "5 bits": {"shape": (64, 192), "bits": 5, "group_size": 64},
    "6 bits, groups of 32": {"shape": (64, 96), "bits": 6, "group_size": 32},
    "one group for each channel, which the kernel takes whole": {"shape": (80, 256), "bits": 2, "group_size": 256},
    "one group for each channel, which is cut into seven": {"shape": (80, 896), "bits": 8, "group_size": 896},
    "groups of 192, which are cut into three": {"shape": (64, 384), "bits": 2, "group_size": 192},
    "more channels than the kernel takes together, and no multiple": {
        "shape": (1536, 64),
        "bits": 2,
        "group_size": 64,
        "counts": (DECODE, FEW),
    },
}


def test_products_are_those_with_the_dequantized_weight_and_nothing_beside_it_is_read():
    # one test, because one process runs everything: importing gemlite takes longer than a product
    cases = {name: {"counts": (DECODE, FEW, PREFILL), **case} for name, case in CASES.items()}
    done = subprocess.run(
        [sys.executable, TESTS / "gemlite_on_cpu.py"],
        input=json.dumps(cases),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (FOLDER, SCRIPTS))), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for name, case in cases.items():
        found = results["cases"][name]
        kernels = {
            DECODE: "GEMV_REVSPLITK" if case["bits"] == 2 else "GEMV_SPLITK",
            FEW: "GEMM_SPLITK",
            PREFILL: "GEMM",
        }
        assert {product["rows"]: product["kernel"] for product in found} == {
            count: kernels[count] for count in case["counts"]
        }
        assert [product for product in found if product["share_of_bound"] > 1] == [], name
        # what lies beyond a tensor may be no number, and then so is its product with zero
        assert [product for product in found if product["outside"]] == [], name
        if case.get("all_settings"):
            assert all(sum(product["rows"] == count for product in found) > 2 for count in case["counts"])
    assert results["linear"] and results["packing"] == [True, True]
