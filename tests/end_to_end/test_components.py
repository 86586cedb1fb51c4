"""A study of components: a grid of schemes beside the study's own, made together, and what another level computes."""

import json
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from quantrust.cli import main
from quantrust.files import sha256, write_json
from study_workspace import Workspace

pytestmark = pytest.mark.slow

MODEL = "random"
STUDY = {
    "study": {"models": [MODEL], "schemes": ["bf16"], "shifts": [], "estimators": ["maxprob"]},
    "models": {MODEL: {"source": f"models/{MODEL}", "family": "qwen2_vl", "training": {}}},
    "datasets": {"scenes": {"images": {"dev": 2, "val": 12, "test": 14}, "questions_per_image": 2, "captions": 2}},
    "features": {"max_new_tokens": 4, "batch_size": 16, "images_per_chunk": 16},
    "evaluation": {"resamples": 20},
    "factorial": {
        "parts": {
            "methods": ["hqq"],
            "group": 32,
            "symmetric": False,
            "levels": [3, 16],
            "factors": [{"component": "vision"}, {"component": "language"}],
        }
    },
}
CELLS = ["hqq-g32-language3", "hqq-g32-vision3", "hqq-g32-vision3-language3"]
FIGURES = ("part_importance", "grid_heatmaps", "grid_interactions", "part_effects", "mixed_precision")
TABLES = ("grid", "importance", "interactions", "effects")
SHOWN = [*(f"reports/{name}.pdf" for name in FIGURES), *(f"reports/tables/{name}.csv" for name in TABLES)]
TABULATED = Counter(weigh_components=1, **{f"tabulate_{name}": 1 for name in TABLES})


def of_cells(count: int) -> Counter:
    return Counter(answer_cell=count, score_in_distribution=count)


@pytest.fixture
def workspace(model_folders: dict[str, Path], tmp_path: Path) -> Workspace:
    """A grid of four schemes of a small random model, of which the unquantized one has its scores."""
    workspace = Workspace.make(tmp_path / "study")
    model = workspace.folder / "models" / MODEL
    shutil.copytree(model_folders["qwen2_vl"], model)
    write_json(model / "training.json", {"files": {path.name: sha256(path) for path in sorted(model.iterdir())}})
    workspace.configure(STUDY)
    workspace.run(f"data/in_distribution/scores/{MODEL}/bf16.parquet")
    return workspace


def test_a_grid_is_made_together_once_and_another_level_adds_its_own_cells_alone(workspace: Workspace) -> None:
    figures = Counter(dict.fromkeys(FIGURES, 1))
    assert workspace.plan(*SHOWN)[0] == of_cells(3) + TABULATED + figures
    # The first job makes them all, two of which are taken by jobs of their own in a run to come.
    workspace.run(f"data/features/{MODEL}/{CELLS[0]}/scenes.parquet")
    made = workspace.folder / "data" / "made_cells" / MODEL
    assert sorted(path.name for path in made.iterdir()) == CELLS[1:]
    waiting = {cell: sha256(made / cell / "features.parquet") for cell in CELLS[1:]}
    workspace.run(*SHOWN)
    assert not list(made.iterdir())
    for cell, digest in waiting.items():
        assert sha256(workspace.folder / f"data/features/{MODEL}/{cell}/scenes.parquet") == digest
        assert "quantizing" not in (workspace.folder / f"logs/answer_cell/{MODEL}/{cell}.log").read_text()
    assert not (workspace.folder / "data" / "checkpoints" / MODEL / CELLS[0]).exists()

    tables = workspace.folder / "reports" / "tables"
    grid = pl.read_csv(tables / "grid.csv")
    assert sorted(grid["scheme"].unique()) == ["bf16", *CELLS]
    sizes = dict(grid.select("scheme", "bytes").unique().iter_rows())
    assert sizes["hqq-g32-vision3-language3"] < min(sizes["hqq-g32-vision3"], sizes["hqq-g32-language3"])
    factors = ["--factors", "vision_bits", "language_bits"]
    assert main(["importance", str(tables / "grid.csv"), "--metric", "accuracy", *factors]) == 0
    importance = pl.read_csv(tables / "importance.csv")
    assert importance["factor"].unique().sort().to_list() == ["language", "vision"]
    assert importance["least_bits"].unique().to_list() == [3]
    for name in FIGURES:
        assert (workspace.folder / "reports" / f"{name}.pdf").stat().st_size > 1000
    assert workspace.plan(*SHOWN) == (Counter(), set())

    workspace.change("factorial", "parts", "levels", value=[2, 3, 16])
    # Main effects are drawn of grids of two levels alone.
    shown = [path for path in SHOWN if "part_effects" not in path]
    drawn = Counter({name: 1 for name in FIGURES if name != "part_effects"})
    assert workspace.plan(*shown)[0] == of_cells(5) + TABULATED + drawn
    new = f"data/features/{MODEL}/hqq-g32-language2/scenes.parquet"
    workspace.run(new)
    assert len([*made.iterdir()]) == 4 and not {path.name for path in made.iterdir()} & {*CELLS}
    # A checkpoint is written where one is asked for, and is the one that the cell's answers are of.
    checkpoint = f"data/checkpoints/{MODEL}/{CELLS[0]}"
    assert workspace.plan(checkpoint)[0] == Counter(quantize_model=1)
    workspace.run(checkpoint)
    written = json.loads((workspace.folder / checkpoint / "quantization.json").read_text())
    measured = json.loads((workspace.folder / "data" / "cells" / MODEL / f"{CELLS[0]}.json").read_text())
    assert measured.pop("made_from") and measured == written
