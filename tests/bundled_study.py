"""The artifacts that a study measures of a small random model, and bundles of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from quantrust.artifacts.tables import read_table, table_notes, write_table
from quantrust.bundle.write import BundleChoice, BundleSources, write_bundle
from quantrust.confidence.scores import write_scores
from quantrust.confidence.selector_training import SelectorSettings, train_selector
from quantrust.data.questions import SCHEMA
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.operating_points import (
    Certification,
    Conditions,
    Measured,
    OperatingPoint,
    OperatingPoints,
    Sought,
    write_operating_points,
)
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from quantrust.inference.features import dump_features
from quantrust.inference.settings import DumpSettings
from quantrust.quantization.quantize import quantize_model
from quantrust.tasks.task import load_task

ESTIMATORS = ["maxprob", "maxprob+temperature", "selector"]
SETTINGS = DumpSettings(max_new_tokens=3, top_k=8, batch_size=5, images_per_batch=3, images_per_chunk=4)
ASKED = ["is it?", "what color is the red circle?", "is there a 3 below it?", "top?"]
IMAGES = {"dev": 9, "val": 7, "test": 10}
"""None of them a multiple of the pictures in a chunk."""


@dataclass(frozen=True)
class Study:
    """The artifacts of a variant on one dataset."""

    folder: Path

    @property
    def questions(self) -> Path:
        return self.folder / "questions.parquet"

    def scores(self) -> pl.DataFrame:
        """The scores of the test split, with the calibrated estimator."""
        scores = add_calibrated(read_table(self.folder / "scores.parquet"), ESTIMATORS, "pictures")
        return scores.filter(pl.col("split") == "test")

    def answers(self) -> list[str]:
        """The answers to the test split."""
        features = read_table(self.folder / "features.parquet", ["split", "answer"])
        return features.filter(pl.col("split") == "test")["answer"].to_list()

    def test_questions(self) -> pl.DataFrame:
        return read_table(self.questions).filter(pl.col("split") == "test")

    def sources(self) -> BundleSources:
        at = {name: self.folder / f"{name}.parquet" for name in ("features", "metrics", "scores")}
        return BundleSources(
            checkpoint=self.folder / "checkpoint",
            operating_points=self.folder / "points.json",
            selector=self.folder / "selector",
            **at,
        )


def _write_questions(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for split, count in IMAGES.items():
        for number in range(count):
            path = folder / "images" / f"{split}{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
            for k in range(3):
                question = ASKED[(number + k) % len(ASKED)]
                answers = ["yes", "no", "red", "3"] * 2 + ["yes"] * 2
                names = (f"{split}{number}-{k}", "pictures", split, f"{split}{number}", str(path))
                rows.append((*names, question, answers, "other", None))
    write_table(pl.DataFrame(rows, schema=SCHEMA, orient="row"), folder / "questions.parquet")


def _points(study: Study) -> OperatingPoints:
    """Thresholds at quantiles of the test confidences, so that some questions are answered and some are not."""
    notes = table_notes(study.folder / "features.parquet")
    scores = study.scores()
    points = []
    for estimator in ESTIMATORS:
        for risk, share, kind in ((0.05, 0.7, "val"), (0.2, 0.4, "val"), (0.2, 0.5, "certified")):
            threshold = float(scores[estimator].quantile(share, "nearest"))
            answered = int((scores[estimator] >= threshold).sum())
            n = scores.height
            measured = tuple(
                Measured(dataset, "test", n, 10, answered, answered / n, 0.1, 0.9, spoilt, spoilt / 2, spoilt * 2, 0.95)
                for dataset, spoilt in (("pictures", risk / 2), ("others", 3 * risk))
            )
            delta = 0.1 if kind == "certified" else None
            points.append(OperatingPoint(estimator, risk, kind, threshold, delta, "pictures", kind, n, 10, measured))
    sought = tuple(Sought(estimator, 0.2, 0.1, 11, True) for estimator in ESTIMATORS)
    certification = Certification(
        0.1, 1, tuple(ESTIMATORS), (0.2,), "pictures", "test", 10, 10, 0, "one question of each image", sought
    )
    conditions = Conditions.from_notes(notes)
    weights = notes["weights_sha256"]
    return OperatingPoints("tiny", "rtn-w8g64-full", weights, "pictures", conditions, tuple(points), certification)


def make_study(folder: Path, model_folder: Path) -> Study:
    """Quantize a model, let it answer, train and score, and make up operating points."""
    study = Study(folder)
    _write_questions(folder)
    quantize_model(model_folder, "rtn-w8g64-full", None, folder / "checkpoint")
    dump_features(folder / "checkpoint", study.questions, folder / "features.parquet", SETTINGS, load_task("vqa"))
    train_selector(folder / "features.parquet", folder / "selector", SelectorSettings(epochs=2, members=2))
    write_scores([folder / "features.parquet"], folder / "selector", folder / "scores.parquet", ["maxprob", "selector"])
    settings = EvaluationSettings("pictures", ESTIMATORS, [0.05, 0.2], [1], 5, 0)
    metrics, _ = evaluate_variant(
        read_table(folder / "scores.parquet"), {}, model="tiny", scheme="rtn-w8g64-full", settings=settings
    )
    write_table(metrics, folder / "metrics.parquet")
    write_operating_points(_points(study), folder / "points.json")
    return study


def write(study: Study, folder: Path, estimator: str = "maxprob") -> Path:
    """Write a bundle of the study."""
    write_bundle(folder, study.sources(), BundleChoice(estimator, 0.2, "someone/tiny", "apache-2.0"))
    return folder
