"""A method of each kind is added by one module, and nothing else: it quantizes, is planned for, drawn and refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from quantrust.artifacts.tables import write_table
from quantrust.digest import SCRIPTS, code_digest

# Each takes the functions of a method that is there, so that its checkpoint is known.
MODULES = {
    "plain": (
        "from quantrust.quantization.methods.rtn import quantize_rtn\n"
        "from quantrust.quantization.walks.data_free import DataFree\n\n"
        'METHOD = DataFree(name="plain", label="Plain", never_symmetric="leans to one side", quantize=quantize_rtn)\n'
    ),
    "search": (
        "from quantrust.quantization.methods import rtn\n"
        "from quantrust.quantization.methods.awq import token_weights\n"
        "from quantrust.quantization.walks.scale_searching import ByRole, ScaleSearching\n\n"
        'METHOD = ScaleSearching(name="search", label="Search", error="mse", weighing=ByRole(token_weights), '
        "rounding=rtn.METHOD)\n"
    ),
    "order": (
        "from quantrust.quantization.methods import hqq\n"
        "from quantrust.quantization.methods.gptq import factor_hessian, quantize_gptq\n"
        "from quantrust.quantization.walks.sequential import Sequential\n\n"
        'METHOD = Sequential(name="order", label="Order", colour="#123456", marker="h", prepare=factor_hessian, '
        "quantize=quantize_gptq, rounding=hqq.METHOD)\n"
    ),
}
LIKE = {"plain": "rtn", "search": "awq", "order": "gptq"}

PROGRAM = """
import sys
import torch
from quantrust.artifacts.tables import read_table
from quantrust.errors import QuantrustError
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.calibration_memory import samples_of
from quantrust.quantization.checkpoint import planned_bytes
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.quantizing_memory import quantize_footprint
from quantrust.quantization.scheme import METHODS, parse_scheme, resolve_scheme
from quantrust.report.style import series_colours, series_of

folder, table, out = sys.argv[1:4]
like = dict(pair.split("=") for pair in sys.argv[4:])
assert set(like) <= set(METHODS)
family, model = build_skeleton(folder)
samples = samples_of(family, model, family.load_processor(folder), read_table(table))
for name, other in like.items():
    footprints = []
    for method in (name, other):
        scheme = parse_scheme(f"{method}-w3g32")
        quantize_model(folder, scheme, table, f"{out}/{method}")
        plan = build_layer_plan(family, model, scheme)
        given = samples if scheme.needs_calibration else None
        sizes = planned_bytes(family, model, plan)
        footprints.append(quantize_footprint(family, model, plan, sizes, scheme, given, "cpu"))
    assert footprints[0] == footprints[1]
series = [series_of(parse_scheme(f"{name}-w3g32")) for name in like]
print(*(one.label.split(",")[0] for one in series))
print(*series_colours(series[-1:]).values())
try:
    resolve_scheme("own", {"method": "plain", "group": 32, "symmetric": True, "table": []})
except QuantrustError as error:
    print(error)
"""


@pytest.fixture
def package(tmp_path) -> Path:
    """The folder of scripts with a copy of the package, to which the modules are added."""
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in MODULES.items():
        (scripts / "quantrust" / "quantization" / "methods" / f"{name}.py").write_text(text)
    return scripts


def test_a_module_is_all_that_a_method_of_each_kind_takes(package, model_folders, calibration_tables, tmp_path):
    folder = model_folders["qwen2_vl"]
    write_table(calibration_tables["qwen2_vl"], tmp_path / "calibration.parquet")
    pairs = [f"{name}={other}" for name, other in LIKE.items()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, tmp_path / "calibration.parquet", tmp_path, *pairs],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Plain Search Order",
        "#123456",
        "schemes.own.symmetric is true, but plain leans to one side and is never symmetric; set it to false",
    ]
    for name, other in LIKE.items():
        found, expected = (load_file(tmp_path / method / "model.safetensors") for method in (name, other))
        assert found.keys() == expected.keys()
        assert all(found[key].equal(expected[key]) for key in expected)
        layers = pl.DataFrame(json.loads((tmp_path / name / "quantization.json").read_text())["layers"])
        assert layers.filter(component="language", method=name).height > 0
        assert layers.filter(method=other).is_empty() or other == "rtn"
    # no job of another method depends on them
    for script in SCRIPTS.glob("*.py"):
        assert code_digest(package / script.name, package) == code_digest(script)
