"""What the stages of a study write, on a small random model: functions that a test can run and kill in processes."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from bundled_study import SETTINGS, Study, write
from quantrust.artifacts.documents import writing_document
from quantrust.artifacts.tables import read_table, write_csv, write_tables
from quantrust.confidence.scores import write_scores
from quantrust.confidence.selector_training import SelectorSettings, train_selector
from quantrust.data.questions import build_questions_table
from quantrust.embedded.datasets import write_dataset
from quantrust.evaluation.operating_points import read_operating_points, write_operating_points
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from quantrust.inference.features import dump_features
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.quantize import quantize_model
from quantrust.tasks.task import load_task

DATASET = {"images": 12, "seed": 0}
Write = Callable[[Study, Path, Path], None]


def _questions(study: Study, model: Path, out: Path) -> None:
    folder = study.folder / "dataset"
    annotations = folder / "annotations_test.json"
    spec = {"test": {"format": "vizwiz", "images": folder / "images", "annotations": annotations}}
    build_questions_table(
        "data",
        spec,
        out / "questions.parquet",
        out / "skipped.parquet",
        check_references=load_task("vqa").check_references,
    )


def _scores(study: Study, model: Path, out: Path) -> None:
    write_scores(
        [study.folder / "features.parquet"], study.folder / "selector", out / "s.parquet", ["maxprob", "selector"]
    )


def _metrics(study: Study, model: Path, out: Path) -> None:
    settings = EvaluationSettings("pictures", ["maxprob", "selector"], [0.05], [1], 20, 0)
    found = evaluate_variant(
        read_table(study.folder / "scores.parquet"), {}, model="tiny", scheme="rtn-w8g64-full", settings=settings
    )
    write_tables(dict(zip((out / "metrics.parquet", out / "curves.parquet"), found, strict=True)))


def _page(study: Study, model: Path, out: Path) -> None:
    with writing_document(out / "index.html") as path, open(path, "w") as file:
        for row in read_table(study.folder / "metrics.parquet").iter_rows():
            file.write(f"<p>{row}</p>\n" * 200)


WRITERS: dict[str, Write] = {
    "write_dataset": lambda study, model, out: write_dataset("scenes-multimodal", out / "d", DATASET),
    "build_questions": _questions,
    "prepare_model": lambda study, model, out: prepare_model(model, out / "model", "qwen2_vl"),
    "quantize_model": lambda study, model, out: quantize_model(model, "hqq-w3g32-full", None, out / "checkpoint"),
    "dump_features": lambda study, model, out: dump_features(
        study.folder / "checkpoint", study.questions, out / "f.parquet", SETTINGS, load_task("vqa")
    ),
    "train_selector": lambda study, model, out: train_selector(
        study.folder / "features.parquet", out / "selector", SelectorSettings(epochs=2, members=2)
    ),
    "write_scores": _scores,
    "evaluate_variant": _metrics,
    "set_operating_points": lambda study, model, out: write_operating_points(
        read_operating_points(study.folder / "points.json"), out / "points.json"
    ),
    "write_bundle": lambda study, model, out: write(study, out / "bundle", "selector") and None,
    "tabulate": lambda study, model, out: write_csv(
        pl.concat([read_table(study.folder / "scores.parquet")] * 50), out / "tables" / "scores.csv"
    ),
    "build_page": _page,
}


def run(name: str, study: Path, model: Path, out: Path) -> None:
    """Let a stage write into a folder, given the folder of a study and that of its model."""
    WRITERS[name](Study(study), model, out)
