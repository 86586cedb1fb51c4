"""Families of `tiny` at their published width, with two blocks: HQQ, MBQ and a dump on the CPU, in less than 8 GB."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from quantrust.artifacts.tables import write_table
from quantrust.data.questions import SCHEMA
from quantrust.digest import SCRIPTS
from tiny import NAMES, tiny, write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.full_width]

MEMORY_BYTES = 8 * 10**9
DISK_BYTES = 16 * 10**9
CAPTIONS = (
    "a red circle and two blue bars",
    "one yellow square is on the left",
    "no shape at all",
    "it is a green bar",
)
QUESTIONS = ("What color is the large shape?", "Is it red?", "How many shapes are there?", "Which shape is it? one?")

MEASURED = """
import time
from pathlib import Path

def print_measured():
    # not ru_maxrss, which a process inherits from the one that started it
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(1024 * int(peak), time.process_time())
"""

QUANTIZE = """
import sys
from pathlib import Path
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.quantize import quantize_model

scheme, *places = sys.argv[1:]
folder, captions, out = map(Path, places)
table = build_calibration_table(folder, captions / "captions.json", captions, samples=2, seed=0)
quantize_model(folder, scheme, table, out / scheme)
print_measured()
"""

DUMP = """
import sys
from pathlib import Path
from quantrust.inference.features import dump_features
from quantrust.inference.settings import DumpSettings
from quantrust.tasks.task import load_task

checkpoint, questions, out = map(Path, sys.argv[1:])
settings = DumpSettings(
    prompt="{question}", max_new_tokens=3, top_k=4, batch_size=2, images_per_batch=2, images_per_chunk=2,
    dtype="bfloat16", kernel="packed",
)
dump_features(checkpoint, questions, out, settings, load_task("vqa"))
print_measured()
"""

PREPARE = """
import json, sys
from pathlib import Path
from quantrust.models.model_folder import prepare_model

source, out, family, settings = sys.argv[1:]
prepare_model(Path(source), Path(out), family, processor=json.loads(settings))
print_measured()
"""


def run(program: str, *arguments: object) -> tuple[int, float]:
    """Run a program in a process of its own; return the bytes that it held at most, and its CPU seconds."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED + program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak, seconds = done.stdout.split()[-2:]
    return int(peak), float(seconds)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_full_width_is_quantized_and_answers_in_less_than_8_gb(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if (free := shutil.disk_usage(tmp_path).free) < DISK_BYTES:
        pytest.skip(f"needs {DISK_BYTES / 1e9:.0f} GB of disk for a model of full width; free are {free / 1e9:.0f}")
    try:
        write_tiny(tmp_path / "source", name, wide=True)
        measured = {
            "prepare": run(PREPARE, tmp_path / "source", tmp_path / "model", name, json.dumps(tiny(name).wide_settings))
        }
        rng = np.random.default_rng(0)
        records, rows = [], []
        for number, (caption, question) in enumerate(zip(CAPTIONS, QUESTIONS, strict=True)):
            path = tmp_path / f"{number}.png"
            Image.fromarray(rng.integers(0, 255, (120, 90 + 40 * number, 3), dtype=np.uint8)).save(path)
            said = [("human", "<image>\nWhat is there?"), ("gpt", caption)]
            conversation = [{"from": who, "value": text} for who, text in said]
            records.append({"id": str(number), "image": path.name, "conversations": conversation})
            rows.append((f"q{number}", "d", "test", str(number), str(path), question, ["yes"] * 10, "other", None))
        (tmp_path / "captions.json").write_text(json.dumps(records))
        write_table(pl.DataFrame(rows, schema=SCHEMA, orient="row"), tmp_path / "d.parquet")
        for scheme in ("hqq-w4g64", "mbq-w4g64"):
            measured[scheme] = run(QUANTIZE, scheme, tmp_path / "model", tmp_path, tmp_path / "checkpoints")
            record = json.loads((tmp_path / "checkpoints" / scheme / "quantization.json").read_text())
            layers = pl.DataFrame(record["layers"], infer_schema_length=None).drop_nulls("bits")
            assert len(layers) == tiny(name).wide_linears
            assert layers["relative_error"].is_between(0.01, 0.3).all()
            checkpoint = tmp_path / "checkpoints" / scheme
            measured[f"dump of {scheme}"] = run(
                DUMP, checkpoint, tmp_path / "d.parquet", tmp_path / f"{scheme}.parquet"
            )
            answers = pl.read_parquet(tmp_path / f"{scheme}.parquet")
            assert len(answers) == len(QUESTIONS)
            assert answers["joint_log_prob"].is_finite().all()
            # a random head that is the embedding may be certain of each answer; what it reads differs all the same
            assert len({tuple(state) for state in answers["answer_state"].to_list()}) == len(QUESTIONS)
        record_property("peak bytes and CPU seconds", measured)
        assert max(peak for peak, _ in measured.values()) < MEMORY_BYTES
    finally:
        for path in tmp_path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
