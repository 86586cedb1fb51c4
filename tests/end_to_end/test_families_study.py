"""Models of new families go through a study of two schemes: from their folders to the tables, and to the page.

Weights are random, in the layout in which each family is published.
"""

import json
from pathlib import Path

import polars as pl
import pytest

from official_files import write_vqav2
from study_workspace import Workspace
from tiny import NAMES, tiny, write_tiny

pytestmark = pytest.mark.slow

SCHEMES = ["bf16", "hqq-w4g64"]
IMAGES, EACH = 12, 2
PAGE = "reports/index.html"
TABLES = ("accuracy", "sizes")


@pytest.mark.parametrize(
    ("names", "targets"),
    [
        # one whose image tokens see each other, under a sliding window too
        pytest.param(("gemma3",), (), id="gemma3"),
        pytest.param(NAMES, (PAGE,), id="all", marks=pytest.mark.full_width),
    ],
)
def test_a_study_of_two_schemes_goes_from_folders_to_tables_and_page(names, targets, tmp_path: Path) -> None:
    study = Workspace.make(tmp_path / "study")
    models = {}
    for name in names:
        model = name.replace("_", "-")
        write_tiny(study.folder / "models" / model, name)
        models[model] = {"source": f"models/{model}", "family": name}
        if tiny(name).settings:
            models[model]["processor"] = dict(tiny(name).settings)
    files = {name: f"own/{name}" for name in ("questions.json", "annotations.json", "images")}
    write_vqav2(*(study.folder / path for path in files.values()), range(IMAGES), EACH, seed=0)
    study.configure(
        {
            "study": {
                "models": list(models),
                "schemes": SCHEMES,
                "id_dataset": "own",
                "shifts": [],
                "estimators": ["maxprob"],
            },
            "models": models,
            "datasets": {
                "own": {
                    "format": "vqav2",
                    "questions": files["questions.json"],
                    "annotations": files["annotations.json"],
                    "images": files["images"],
                    "split": {"dev": 0.25, "val": 0.25, "test": 0.5, "seed": 0},
                },
            },
            "features": {"max_new_tokens": 3, "batch_size": 8, "images_per_chunk": 8},
            "evaluation": {"resamples": 20},
            "certification": {"splits": 5},
            "comparison": {"resamples": 20},
        }
    )
    study.run(*targets, *(f"reports/tables/{table}.csv" for table in TABLES))

    variants = {(model, scheme) for model in models for scheme in SCHEMES}
    for model, scheme in variants:
        answers = pl.read_parquet(study.folder / "data" / "features" / model / scheme / "own.parquet")
        assert len(answers) == IMAGES * EACH
        assert answers["joint_log_prob"].is_finite().all()
        # a random head that is the embedding may be certain of each answer; what it reads differs all the same
        assert len({tuple(state) for state in answers["answer_state"].to_list()}) > IMAGES
        checkpoint = study.folder / "data" / "checkpoints" / model / scheme / "quantization.json"
        quantized = [layer for layer in json.loads(checkpoint.read_text())["layers"] if layer["bits"] is not None]
        assert {layer["component"] for layer in quantized} == ({"language"} if scheme != "bf16" else set())
    for table in TABLES:
        rows = pl.read_csv(study.folder / "reports" / "tables" / f"{table}.csv")
        assert set(rows.select("model", "scheme").iter_rows()) == variants, table
    for target in targets:
        text = (study.folder / target).read_text(encoding="utf-8")
        for name in (*models, *SCHEMES):
            assert f'<option value="{name}">' in text
