"""Metrics and curves of a made-up study, in the layout that the evaluation writes."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

HOME = "scenes"
SHIFTS = ("scenes-language", "scenes-multimodal")
MODELS = ("model-a", "model-b")
BITS = (8, 4, 3, 2)
SCHEMES = ("bf16", *(f"{method}-w{bits}g64-full" for method in ("hqq", "mbq") for bits in BITS))
SHARES = (1.0, 0.9, 0.67, 0.5, 0.33, 0.1, 0.0)


class Study:
    """Files of a made-up study: `metrics` and `curves` by (model, scheme)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[tuple[str, str], Path] = {}
        self.curves: dict[tuple[str, str], Path] = {}


def quality(model: str, scheme: str) -> float:
    """Accuracy that a variant is given in distribution."""
    loss = {"8": 0.0, "4": 0.005, "3": 0.03, "2": 0.15}.get(scheme[5:6] if scheme != "bf16" else "8", 0.0)
    return (0.85 if model == "model-a" else 0.78) - loss * (1.2 if scheme.startswith("hqq") else 1.0)


def write_study(folder: Path, models: tuple[str, ...] = MODELS, schemes: tuple[str, ...] = SCHEMES) -> Study:
    """Write metrics and curves that fall with the bits, with the share in distribution and with the estimator."""
    study = Study(folder)
    for model, scheme in itertools.product(models, schemes):
        metrics, curves = [], []
        settings = [(HOME, 1.0), *itertools.product(SHIFTS, SHARES)]
        for (dataset, share), estimator in itertools.product(settings, ("maxprob", "entropy", "selector")):
            accuracy = quality(model, scheme) - 0.35 * (1 - share)
            count = 4500 if dataset == HOME else 2400
            gain = 0.04 if estimator == "selector" else 0.0
            coverage = float(np.clip(2.2 * (accuracy - 0.5) + gain, 0, 1))
            values = [("accuracy", None, accuracy), ("aurc", None, (1 - accuracy) ** 1.5 - gain / 4)]
            values += [("coverage_at_risk", risk, coverage * min(1, 8 * risk**0.6)) for risk in (0.01, 0.05)]
            values.append(("ece", None, None if estimator == "entropy" else 0.02 + 0.2 * (0.9 - accuracy) - gain / 3))
            for metric, parameter, value in values:
                low, high = (None, None) if value is None else (value - 0.012, value + 0.012)
                metrics.append((model, scheme, estimator, dataset, share, metric, parameter, value, low, high, count))
            if dataset == HOME:
                points = np.linspace(0.005, 1, 200)
                risk = (1 - accuracy) * points ** (1.5 + 10 * gain)
                curves += [
                    (model, scheme, estimator, dataset, share, float(c), float(r), float(r) * 0.85, float(r) * 1.15)
                    for c, r in zip(points, risk, strict=True)
                ]
        where = folder / "data" / "{}" / model / f"{scheme}.parquet"
        for name, rows, paths in (("metrics", metrics, study.metrics), ("curves", curves, study.curves)):
            path = Path(str(where).format(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = ["model", "scheme", "estimator", "dataset", "id_share"]
            columns += (
                ["metric", "parameter", "value", "low", "high", "n"]
                if name == "metrics"
                else ["coverage", "risk", "low", "high"]
            )
            pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None).write_parquet(path)
            paths[model, scheme] = path
    return study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("study"))
