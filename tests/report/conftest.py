"""Tables of a made-up study, in the layout that the evaluation writes."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.artifacts.tables import write_csv, write_table
from quantrust.evaluation.breakdowns import BINS_SCHEMA, GROUPS_SCHEMA
from quantrust.evaluation.comparison import SCHEMA as COMPARISON_SCHEMA
from quantrust.evaluation.drift_from_bf16 import SCHEMA as DRIFT_SCHEMA
from quantrust.evaluation.fairness import SCHEMA as FAIRNESS_SCHEMA

ID_DATASET = "scenes"
SHIFTS = ("scenes-language", "scenes-multimodal")
MODELS = ("model-a", "model-b")
BITS = (8, 4, 3, 2)
SCHEMES = ("bf16", *(f"{method}-w{bits}g64-full" for method in ("hqq", "mbq") for bits in BITS))
RISKS, COSTS = (0.005, 0.01, 0.05), (10.0, 100.0)
# The risk limits that the figures show and that the comparisons are made at.
SHOWN_RISKS = (0.01, 0.05)
SHARES = (1.0, 0.9, 0.67, 0.5, 0.33, 0.1, 0.0)


class Study:
    """Files of a made-up study by (model, scheme); `comparisons` and `sizes` are of all variants together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[tuple[str, str], Path] = {}
        self.curves: dict[tuple[str, str], Path] = {}
        self.groups: dict[tuple[str, str], Path] = {}
        self.bins: dict[tuple[str, str], Path] = {}
        self.comparisons = folder / "data" / "comparisons.parquet"
        self.fairness = folder / "data" / "fairness.parquet"
        self.drift = folder / "data" / "drift.parquet"
        self.sizes = folder / "sizes.csv"


def quality(model: str, scheme: str) -> float:
    """Accuracy that a variant is given in distribution."""
    bits = scheme.split("-w")[1][0] if "-w" in scheme else "8"
    loss = {"8": 0.0, "4": 0.005, "3": 0.03, "2": 0.15}[bits]
    return (0.85 if model == "model-a" else 0.78) - loss * (1.2 if scheme.startswith("hqq") else 1.0)


def write_study(folder: Path, models: tuple[str, ...] = MODELS, schemes: tuple[str, ...] = SCHEMES) -> Study:
    """Write metrics and curves that fall with the bits, with the share in distribution and with the estimator."""
    study = Study(folder)
    for model, scheme in itertools.product(models, schemes):
        metrics, curves = [], []
        settings = [(ID_DATASET, 1.0), *itertools.product(SHIFTS, SHARES)]
        for (dataset, share), estimator in itertools.product(settings, ("maxprob", "entropy", "selector")):
            accuracy = quality(model, scheme) - 0.35 * (1 - share)
            count = 4500 if dataset == ID_DATASET else 2400
            gain = 0.04 if estimator == "selector" else 0.0
            coverage = float(np.clip(2.2 * (accuracy - 0.5) + gain, 0, 1))
            values = [("accuracy", None, accuracy), ("aurc", None, (1 - accuracy) ** 1.5 - gain / 4)]
            values += [("coverage_at_risk", risk, coverage * min(1, 8 * risk**0.6)) for risk in RISKS]
            values += [("effective_reliability", cost, accuracy - 0.01 * cost) for cost in COSTS]
            values.append(("ece", None, None if estimator == "entropy" else 0.02 + 0.2 * (0.9 - accuracy) - gain / 3))
            for metric, parameter, value in values:
                low, high = (None, None) if value is None else (value - 0.012, value + 0.012)
                metrics.append((model, scheme, estimator, dataset, share, metric, parameter, value, low, high, count))
            if dataset == ID_DATASET:
                points = np.linspace(0.005, 1, 200)
                risk = (1 - accuracy) * points ** (1.5 + 10 * gain)
                curves += [
                    (model, scheme, estimator, dataset, share, float(c), float(r), float(r) * 0.85, float(r) * 1.15)
                    for c, r in zip(points, risk, strict=True)
                ]
        tables = {"groups": group_rows(model, scheme), "bins": bin_rows(model, scheme)}
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
            write_table(pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None), path)
            paths[model, scheme] = path
        for (name, rows), paths in zip(tables.items(), (study.groups, study.bins), strict=True):
            path = Path(str(where).format(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            schema = GROUPS_SCHEMA if name == "groups" else BINS_SCHEMA
            write_table(pl.DataFrame(rows, schema=schema, orient="row"), path)
            paths[model, scheme] = path
    write_table(comparison_table(models, schemes), study.comparisons)
    write_table(fairness_table(models, schemes), study.fairness)
    write_table(drift_table(models, schemes), study.drift)
    sizes = [
        (model, scheme, 100_000 * (16 if scheme == "bf16" else int(scheme.split("-w")[1][0])))
        for model, scheme in study.metrics
    ]
    write_csv(pl.DataFrame(sizes, schema=["model", "scheme", "bytes_on_disk"], orient="row"), study.sizes)
    return study


def group_rows(model: str, scheme: str) -> list[tuple[object, ...]]:
    """Two types of answers everywhere, and two kinds of questions in distribution only."""
    rows = []
    for dataset, estimator in itertools.product((ID_DATASET, *SHIFTS), ("maxprob", "selector")):
        groups = [("answer_type", "number", -0.1), ("answer_type", "yes/no", 0.05)]
        groups += [("question_kind", "colour", -0.2), ("question_kind", "shape", 0.1)] if dataset == ID_DATASET else []
        for grouping, group, shift in groups:
            accuracy = quality(model, scheme) + shift - (0.0 if dataset == ID_DATASET else 0.3)
            values = [("accuracy", None, accuracy)]
            for risk in RISKS:
                values += [("coverage_at_risk", risk, max(0.0, accuracy - 0.4)), ("deployed_risk", risk, 1 - accuracy)]
                values.append(("deployed_coverage", risk, 0.6))
            for metric, parameter, value in values:
                low, high = value - 0.03, value + 0.03
                rows.append(
                    (model, scheme, estimator, dataset, grouping, group, metric, parameter, value, low, high, 700)
                )
    return rows


def fairness_table(models: tuple[str, ...], schemes: tuple[str, ...]) -> pl.DataFrame:
    """Groups of two groupings, of which the rarest has too few images; one is further behind at two bits."""
    groups = [(None, None, 0.0), ("answer_type", "number", 0.1), ("answer_type", "yes/no", -0.02)]
    groups += [("topic_of_user", "$5", 0.0), ("topic_of_user", "rare", None)]
    rows = []
    for model, scheme, (grouping, group, gap) in itertools.product(models, schemes, groups):
        for metric, value in (("deployed_coverage", 0.7), ("deployed_risk", 1.0 - quality(model, scheme))):
            found = None if gap is None else value + gap
            wider = group == "number" and metric == "deployed_risk" and "-w2" in scheme
            numbers = {"value": found, "low": found and found - 0.03, "high": found and found + 0.03, "gap": gap}
            where = {"model": model, "scheme": scheme, "estimator": "maxprob", "dataset": ID_DATASET}
            named = {"grouping": grouping, "group": group, "metric": metric, "effect": "widens" if wider else None}
            rows.append(dict.fromkeys(FAIRNESS_SCHEMA) | where | named | numbers)
    return pl.DataFrame(rows, schema=FAIRNESS_SCHEMA)


def drift_table(models: tuple[str, ...], schemes: tuple[str, ...]) -> pl.DataFrame:
    """A drift that grows as the accuracy falls, as `write_drift` writes it."""
    measures = [(None, "answers_changed", 2.0), (None, "right_to_wrong", 1.2), (None, "wrong_to_right", 0.2)]
    measures += [(None, "kl_divergence", 3.0)]
    measures += [(name, f"confidence_{kind}", 0.5) for name in ("maxprob", "selector") for kind in ("change", "moved")]
    rows = []
    for model, scheme, dataset in itertools.product(models, schemes, (ID_DATASET, *SHIFTS)):
        loss = quality(model, "bf16") - quality(model, scheme)
        counts = (4500, 1500) if dataset == ID_DATASET else (2400, 800)
        for estimator, measure, factor in measures if scheme != "bf16" else []:
            value = factor * loss
            rows.append((model, scheme, dataset, estimator, measure, value, 0.8 * value, 1.2 * value, *counts))
    return pl.DataFrame(rows, schema=DRIFT_SCHEMA, orient="row")


def bin_rows(model: str, scheme: str) -> list[tuple[object, ...]]:
    """Fifteen bins of 300 answers, the lowest with three; MaxProb is overconfident, the Selector is not."""
    rows = []
    for dataset, estimator, place in itertools.product((ID_DATASET, *SHIFTS), ("maxprob", "selector"), range(15)):
        confidence = (place + 0.5) / 15
        accuracy = confidence * (0.8 if estimator == "maxprob" else 1.0)
        n = 300 if place else 3
        edges = (place / 15, (place + 1) / 15, n, round(n * accuracy))
        rows.append((model, scheme, estimator, dataset, *edges, confidence, accuracy, accuracy - 0.05, accuracy + 0.05))
    return rows


def comparison_table(models: tuple[str, ...], schemes: tuple[str, ...]) -> pl.DataFrame:
    """Every scheme against bf16 and the Selector against MaxProb, as `write_comparisons` writes it."""
    rows = []
    for model, scheme, dataset in itertools.product(models, schemes, (ID_DATASET, *SHIFTS)):
        for estimator, other in itertools.product(("maxprob", "selector"), ("scheme", "estimator")):
            if (other == "scheme" and scheme == "bf16") or (other == "estimator" and estimator == "maxprob"):
                continue
            second = ("bf16", estimator) if other == "scheme" else (scheme, "maxprob")
            loss = quality(model, scheme) - quality(model, "bf16") if other == "scheme" else 0.02
            metrics = [("aurc", None, -loss), ("ece", None, -loss)]
            metrics += [("coverage_at_risk", risk, 2 * loss) for risk in SHOWN_RISKS]
            metrics += [("accuracy", None, loss)] if other == "scheme" and estimator == "maxprob" else []
            for metric, parameter, difference in metrics:
                p = 0.001 if abs(difference) > 0.03 else 0.4
                where = (dataset, 1.0 if dataset == ID_DATASET else 0.0, metric, parameter)
                numbers = (
                    difference,
                    difference - 0.01,
                    difference + 0.01,
                    p,
                    p,
                    4500 if dataset == ID_DATASET else 2400,
                )
                rows.append((model, scheme, estimator, model, *second, *where, *numbers))
    names = [f"{place}_{name}" for place in ("first", "second") for name in ("model", "scheme", "estimator")]
    return pl.DataFrame(rows, schema={**dict.fromkeys(names, pl.String), **COMPARISON_SCHEMA}, orient="row")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("study"))


MANY_SCHEMES = (
    "bf16",
    *(f"{method}-w{bits}g64-full" for method in ("awq", "gptq", "hqq", "mbq", "rtn") for bits in BITS),
)


@pytest.fixture(scope="session")
def large_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two models under 21 schemes."""
    return write_study(tmp_path_factory.mktemp("large"), schemes=MANY_SCHEMES)
