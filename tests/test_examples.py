"""The examples of the documentation: those in docstrings are right, modules and overlays do what the pages say."""

import doctest
import importlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from quantrust.cli import main
from quantrust.digest import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PLACES = {
    "first_token": "confidence/estimators",
    "clip": "quantization/methods",
    "answers": "quantization/methods",
}


@pytest.mark.parametrize(
    "module",
    [
        "data.official",
        "tasks.vqa",
        "tasks.exact_match",
        "tasks.normalisation",
        "tasks.task",
        "evaluation.metrics",
        "evaluation.certification",
        "evaluation.shared_delta",
        "evaluation.comparison",
        "evaluation.power",
    ],
)
def test_examples_in_docstrings_are_right(module):
    result = doctest.testmod(importlib.import_module(f"quantrust.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_example_stands_in_the_documentation_as_it_is():
    assert {path.stem for path in EXAMPLES.iterdir() if path.suffix == ".py"} == set(PLACES)
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for name in PLACES:
        assert f"```python\n{(EXAMPLES / f'{name}.py').read_text(encoding='utf-8')}```" in page
    for name, place in PLACES.items():
        assert f"`workflow/scripts/quantrust/{place}/{name}.py`" in page


def test_the_adapter_that_the_documentation_shows_is_the_one_that_runs():
    adapter = (SCRIPTS / "quantrust" / "models" / "families" / "qwen2_5_vl.py").read_text(encoding="utf-8")
    assert f"```python\n{adapter}```" in (ROOT / "docs" / "families.md").read_text(encoding="utf-8")


@pytest.fixture
def run_with(tmp_path):
    """Run a program with a copy of the package to which examples were added, and nothing else changed."""

    def run(examples: Iterable[str], program: str, *arguments: object) -> str:
        package = tmp_path / "scripts" / "quantrust"
        shutil.copytree(SCRIPTS / "quantrust", package, ignore=shutil.ignore_patterns("__pycache__"))
        for example in examples:
            shutil.copy(EXAMPLES / f"{example}.py", package / PLACES[example])
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(package.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


SHOWN = re.findall(
    r"```console\n\$ (quantrust [^\n]*)\n(.*?)```", (ROOT / "docs" / "commands.md").read_text("utf-8"), re.DOTALL
)


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command.split()[1] for command, _ in SHOWN])
def test_a_command_prints_what_the_documentation_shows(monkeypatch, capsys, command, output):
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out == output


def test_the_commands_on_tables_are_shown_with_what_they_print():
    assert {command.split()[1] for command, _ in SHOWN} == {"score", "compare", "certify", "power", "importance"}


OVERLAYS = """
import json
import re
import sys
from pathlib import Path
import yaml
from snakemake.utils import update_config
from quantrust.study.config import check_config, with_named_externals

root = Path(sys.argv[1])
checked = {}
for page in (root / "README.md", root / "config" / "README.md", *sorted((root / "docs").glob("*.md"))):
    blocks = re.findall(r"```yaml\\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
        update_config(config, yaml.safe_load(block))
        check_config(with_named_externals(config), root / "workflow" / "schemas" / "config.schema.yaml")
    checked[str(page.relative_to(root))] = len(blocks)
print(json.dumps(checked))
"""


def test_every_overlay_of_the_documentation_is_a_study_that_can_run(run_with):
    checked = json.loads(run_with(PLACES, OVERLAYS, ROOT))
    assert {page: count for page, count in checked.items() if count} == {
        "README.md": 1,
        "config/README.md": 1,
        "docs/components.md": 1,
        "docs/extending.md": 7,
    }


ESTIMATOR = """
import sys
import polars as pl
from quantrust.confidence.catalogue import check_estimator
from quantrust.confidence.columns import confidence_columns

check_estimator("first-token+platt")
print(pl.read_parquet(sys.argv[1]).select(confidence_columns(["first-token", "maxprob"])).write_json())
"""


def test_the_example_of_an_estimator_is_found_by_its_name(run_with, tmp_path):
    features = pl.DataFrame(
        {
            "token_log_probs": [[math.log(0.5), math.log(0.25)], [math.log(0.125)]],
            "joint_log_prob": [math.log(0.125), math.log(0.125)],
        }
    )
    features.write_parquet(tmp_path / "features.parquet")
    rows = json.loads(run_with(["first_token"], ESTIMATOR, tmp_path / "features.parquet"))
    assert [row["first-token"] for row in rows] == pytest.approx([0.5, 0.125])
    assert [row["maxprob"] for row in rows] == pytest.approx([0.125, 0.125])


METHOD = """
import sys
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.quantize import quantize_model

for scheme in ("clip-w3g32-full", "rtn-w3g32-full"):
    quantize_model(sys.argv[1], scheme, None, f"{sys.argv[2]}/{scheme}")
load_checkpoint(f"{sys.argv[2]}/clip-w3g32-full")
"""


def test_the_example_of_a_method_quantizes_better_than_what_it_improves_on(run_with, model_folders, tmp_path):
    run_with(["clip"], METHOD, model_folders["qwen2_vl"], tmp_path)
    clip, rtn = (
        pl.DataFrame(json.loads((tmp_path / scheme / "quantization.json").read_text())["layers"])
        for scheme in ("clip-w3g32-full", "rtn-w3g32-full")
    )
    errors = clip.join(rtn, on="layer", suffix="_rtn").drop_nulls("relative_error")
    assert errors.height > 20
    assert (errors["relative_error"] <= errors["relative_error_rtn"] * 1.0001).all()
    assert errors["relative_error"].mean() < 0.97 * errors["relative_error_rtn"].mean()


SEARCHING_METHOD = """
import sys
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.quantize import quantize_model

folder, captions, images, out = sys.argv[1:]
table = build_calibration_table(folder, captions, images, samples=4, seed=0)
for scheme in ("answers-w3g32", "awq-w3g32"):
    quantize_model(folder, scheme, table, f"{out}/{scheme}")
"""


def test_the_example_of_a_searching_method_weighs_tokens_in_its_own_way(run_with, model_folders, pictures, tmp_path):
    images, captions = write_captions(tmp_path, pictures)
    run_with(["answers"], SEARCHING_METHOD, model_folders["idefics3"], captions, images, tmp_path)
    answers, awq = (
        json.loads((tmp_path / scheme / "quantization.json").read_text()) for scheme in ("answers-w3g32", "awq-w3g32")
    )
    assert answers["settings"]["error"] == "mse"
    assert {layer["method"] for layer in answers["layers"]} == {"answers", "rtn", None}
    # the same groups are searched, by the error of other tokens
    assert [scale["linears"] for scale in answers["scales"]] == [scale["linears"] for scale in awq["scales"]]
    assert all(
        one["unscaled_error"] != other["unscaled_error"]
        for one, other in zip(answers["scales"], awq["scales"], strict=True)
    )


def write_captions(folder, pictures):
    """Write pictures and captions of them; return the folder of the one and the file of the other."""
    images, captions = folder / "images", folder / "captions.json"
    images.mkdir()
    records = []
    for number, picture in enumerate(pictures):
        picture.save(images / f"{number}.png")
        said = [("human", "<image>\nwhat is there?"), ("gpt", "a red circle is below the 3")]
        conversation = [{"from": who, "value": text} for who, text in said]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": conversation})
    captions.write_text(json.dumps(records))
    return images, captions
