"""Variants whose pictures take different numbers of tokens, as full-size models have it, and questions on pictures."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from quantrust.artifacts.tables import write_table
from quantrust.data.questions import SCHEMA
from quantrust.quantization.quantize import quantize_model

# Qwen2-VL keeps the pixels of a picture within bounds; Idefics3 scales its longer side and cuts it into tiles.
PROCESSORS = {
    "qwen2_vl": {"min_pixels": 16 * 16, "max_pixels": 96 * 96},
    "idefics3": {
        "do_image_splitting": True,
        "size": {"longest_edge": 192},
        "max_image_size": {"longest_edge": 64},
    },
}
SIZES = [(64, 64), (150, 40), (40, 150), (96, 64), (30, 90), (20, 20), (120, 118), (64, 16), (17, 90), (33, 32)]
ASKED = ["is it?", "what color is the red circle?", "is there a 3 below it and a 4 above the top left?", "no", "top?"]


@dataclass(frozen=True)
class Variant:
    """A checkpoint, and a questions table of which it answers all."""

    family: str
    checkpoint: Path
    questions: Path


@pytest.fixture(scope="session")
def questions_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four questions about ten pictures of different sizes; those about the second one are not all together."""
    folder = tmp_path_factory.mktemp("questions")
    rng = np.random.default_rng(0)
    rows = []
    for number, (width, height) in enumerate(SIZES):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        rows += [(number, str(path), ASKED[(number + k) % len(ASKED)]) for k in range(1 + number % 4)]
    rows.append(rows[1])
    table = [
        (f"q{k}", "pictures", "test", f"image{number}", path, question, ["yes"] * 10, "other", None)
        for k, (number, path, question) in enumerate(rows)
    ]
    write_table(pl.DataFrame(table, schema=SCHEMA, orient="row"), folder / "pictures.parquet")
    return folder / "pictures.parquet"


@pytest.fixture(scope="session")
def variants(model_folders: dict[str, Path], questions_path: Path, tmp_path_factory) -> dict[str, Variant]:
    """One variant of each family."""
    made = {}
    for family, processor in PROCESSORS.items():
        folder = tmp_path_factory.mktemp(family)
        shutil.copytree(model_folders[family], folder / "model")
        path = folder / "model" / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | processor))
        quantize_model(folder / "model", "rtn-w8g64-full", None, folder / "checkpoint")
        made[family] = Variant(family, folder / "checkpoint", questions_path)
    return made


@pytest.fixture(params=sorted(PROCESSORS))
def variant(request: pytest.FixtureRequest, variants: dict[str, Variant]) -> Variant:
    """Each family in turn."""
    return variants[request.param]
