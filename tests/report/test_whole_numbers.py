"""Every number in every table reads back to the float that was computed, bit for bit."""

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.evaluation import certification, comparison, components, decisions, drift_from_bf16, fairness, shipping
from quantrust.evaluation.certification import CertificationSettings
from quantrust.evaluation.decisions import DecisionSettings
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.operating_points import (
    Conditions,
    OperatingPoints,
    read_operating_points,
    write_operating_points,
)
from quantrust.evaluation.shipped_points import PointSettings, shipped_points
from quantrust.report import contents
from quantrust.report.tables import (
    accuracy,
    as_is,
    data,
    members,
    paper,
    published,
    published_importance,
    reliability,
    sizes,
)
from settings_given import given

ID_DATASET = "vqav2"
PUBLISHED = Path(__file__).resolve().parents[2] / "config" / "paper_reference.yaml"
# Of a model that the paper has, so that all columns of all tables are filled.
MODEL, SCHEMES, ESTIMATORS = "qwen2-vl-7b", ("bf16", "mbq-w4g64"), ("maxprob", "selector")
RISKS, COSTS = (0.01, 0.05), (10.0,)
Expected = list[dict[str, object]]


def awkward(count: int, seed: int = 0) -> list[float]:
    """Floats that few digits do not tell apart: next to 1, next to one another, tiny, and with all digits."""
    rng = np.random.default_rng(seed)
    start = [np.nextafter(1.0, 0.0), 1 - 3e-7, 1 - 1.7e-12, 0.95, np.nextafter(0.95, 1.0), 5e-324, 1.25e-7]
    return [*start, *rng.random(count), *(1 - 10.0 ** -rng.uniform(3, 16, count))][:count]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Metrics of two variants in distribution, all of their values awkward."""
    folder = tmp_path_factory.mktemp("metrics")
    keys = [("accuracy", None), ("ece", None), ("aurc", None)]
    keys += [("coverage_at_risk", risk) for risk in RISKS] + [("effective_reliability", cost) for cost in COSTS]
    paths = []
    for number, scheme in enumerate(SCHEMES):
        names = list(itertools.product(ESTIMATORS, keys))
        numbers = iter(awkward(3 * len(names), number))
        rows = [
            (MODEL, scheme, estimator, ID_DATASET, 1.0, *key, next(numbers), next(numbers), next(numbers), 1000)
            for estimator, key in names
        ]
        columns = ["model", "scheme", "estimator", "dataset", "id_share", "metric", "parameter"]
        table = pl.DataFrame(rows, schema=[*columns, "value", "low", "high", "n"], orient="row")
        # Of the learned one two networks.
        both = pl.when(pl.col("estimator") == "selector").then(pl.concat_list("value", "low"))
        table = table.with_columns(members=both)
        paths.append(folder / f"{scheme}.parquet")
        write_table(table, paths[-1])
    return paths


def figures(paths: list[Path]) -> dict[tuple[str, str, str, float | None], tuple[float, float, float]]:
    """Value, low and high by scheme, estimator, metric and parameter."""
    table = pl.concat([pl.read_parquet(path) for path in paths])
    return {
        (row["scheme"], row["estimator"], row["metric"], row["parameter"]): (row["value"], row["low"], row["high"])
        for row in table.iter_rows(named=True)
    }


def three(name: str, numbers: tuple[float, float, float]) -> dict[str, object]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def written_accuracy(metrics: list[Path], path: Path) -> Expected:
    accuracy.write(path, accuracy.Settings(ID_DATASET), metric_paths=metrics)
    found = figures(metrics)
    return [three("accuracy", found[scheme, "maxprob", "accuracy", None]) for scheme in SCHEMES]


def written_reliability(metrics: list[Path], path: Path) -> Expected:
    reliability.write(path, reliability.Settings(ID_DATASET, RISKS), metric_paths=metrics)
    found = figures(metrics)
    names = {("ece", None): "ece", ("aurc", None): "aurc"}
    names |= {("coverage_at_risk", risk): f"coverage_at_risk_{risk}" for risk in RISKS}
    return [
        {column: value for key, name in names.items() for column, value in three(name, found[*variant, *key]).items()}
        for variant in itertools.product(SCHEMES, ESTIMATORS)
    ]


def written_members(metrics: list[Path], path: Path) -> Expected:
    members.write(path, members.Settings(ID_DATASET, RISKS), metric_paths=metrics)
    found = figures(metrics)
    keys = [("aurc", None), ("ece", None), *(("coverage_at_risk", risk) for risk in RISKS)]
    rows = []
    for key, scheme in itertools.product(keys, SCHEMES):
        value, other, _ = found[scheme, "selector", *key]
        rows.append({"value": value, "lowest": min(value, other), "highest": max(value, other), "members": 2})
    return rows


def written_sizes(metrics: list[Path], path: Path) -> Expected:
    size = {"weights_file": 1_000_001, "bfloat16": 3_000_017, "resident": 1_000_003, "resident_bfloat16": 3_000_019}
    size |= {"resident_packed": 1_200_007, "quantized_bits_per_weight": 4 + 1 / 3, "model_bits_per_weight": 16 / 3}
    folder = path.with_name("checkpoint")
    folder.mkdir()
    (folder / "quantization.json").write_text(json.dumps({"scheme": "s", "bytes": size}))
    sizes.write(path, checkpoints=[folder])
    return [
        {
            "bytes_on_disk": 1_000_001,
            "share_of_bf16": 1_000_001 / 3_000_017,
            "resident_share_of_bf16": 1_000_003 / 3_000_019,
            "resident_packed_share_of_bf16": 1_200_007 / 3_000_019,
            "bits_per_quantized_weight": 4 + 1 / 3,
            "bits_per_weight": 16 / 3,
        }
    ]


def written_data(metrics: list[Path], path: Path) -> Expected:
    asked = pl.DataFrame({"dataset": [ID_DATASET] * 3, "split": ["test"] * 3, "image": ["a", "a", "b"]})
    for name, table in (("asked", asked), ("skipped", asked.clear())):
        write_table(table, path.with_name(f"{name}.parquet"))
    paths = {
        f"{kind}_paths": [path.with_name(f"{name}.parquet")]
        for kind, name in (("question", "asked"), ("skipped", "skipped"))
    }
    data.write(path, data.Settings(ID_DATASET), **paths)
    return [{"images": 2, "questions": 3, "skipped_images": 0, "skipped_questions": 0, "images_in_home_dev": 0}]


def as_computed(schema: pl.Schema) -> Callable[[list[Path], Path], Expected]:
    """Return a writer of a table of the evaluation, with awkward floats in all of its columns of floats."""

    def write(metrics: list[Path], path: Path) -> Expected:
        columns = {
            name: awkward(20, seed) if kind == pl.Float64 else [True if kind == pl.Boolean else 7] * 20
            for seed, (name, kind) in enumerate(schema.items())
            if kind != pl.String
        }
        table = pl.DataFrame(columns).select(
            *(pl.col(name) if name in columns else pl.lit("x").alias(name) for name in schema)
        )
        write_table(table, path.with_suffix(".parquet"))
        as_is.write(path, paths=[path.with_suffix(".parquet")])
        numbers = [name for name, kind in schema.items() if kind in (pl.Float64, pl.Int64)]
        return table.select(numbers).to_dicts()

    return write


def written_paper(metrics: list[Path], path: Path) -> Expected:
    compared = {
        "first_model": MODEL,
        "first_scheme": SCHEMES[1],
        "first_estimator": ["maxprob", "selector", "selector"],
        "second_model": MODEL,
        "second_scheme": ["bf16", "bf16", SCHEMES[1]],
        "second_estimator": ["maxprob", "selector", "maxprob"],
        "dataset": ID_DATASET,
        "metric": "aurc",
        "parameter": pl.Series([None] * 3, dtype=pl.Float64),
        "p_holm": awkward(10)[7:10],
    }
    write_table(pl.DataFrame(compared), path.with_name("comparisons.parquet"))
    paper.write(
        *(path, path.with_suffix(".md"), path.with_suffix(".tex")),
        paper.Settings(ID_DATASET, ESTIMATORS, RISKS, COSTS, resamples=2000, level=0.95),
        metric_paths=metrics,
        comparisons_path=path.with_name("comparisons.parquet"),
        published_path=PUBLISHED,
    )
    found, p_values = figures(metrics), compared["p_holm"]
    rows = []
    for variant in itertools.product(SCHEMES, ESTIMATORS):
        row: dict[str, object] = {}
        for name, key in (
            ("accuracy", ("accuracy", None)),
            ("ece", ("ece", None)),
            ("aurc", ("aurc", None)),
            ("coverage_at_risk_0.01", ("coverage_at_risk", 0.01)),
            ("effective_reliability_10", ("effective_reliability", 10.0)),
        ):
            row |= three(name, found[*variant, *key])
        tested = {(SCHEMES[1], "maxprob"): (p_values[0], None), (SCHEMES[1], "selector"): tuple(p_values[1:])}
        row["aurc_p_bf16"], row["aurc_p_maxprob"] = tested.get(variant, (None, None))
        rows.append(row)
    # As the paper prints them, in percent: 83.0, 3.5 and 42.6.
    printed = ("accuracy_published", "ece_published", "coverage_at_risk_0.01_published")
    rows[0] |= dict(zip(printed, (0.83, 0.035, 0.426), strict=True))
    return rows


def written_published(metrics: list[Path], path: Path) -> Expected:
    others = (path.with_suffix(".md"), path.with_suffix(".tex"))
    settings = published.Settings(ID_DATASET, 0.95)
    published.write(path, *others, settings, metric_paths=metrics, published_path=PUBLISHED)
    value, low, high = figures(metrics)["bf16", "maxprob", "accuracy", None]
    first = {"value": value, "low": low, "high": high, "published": 0.83}
    return [first | three("difference", (value - 0.83, low - 0.83, high - 0.83))]


def written_published_importance(metrics: list[Path], path: Path) -> Expected:
    shares = {"vision": 1 / 3, "connector": 0.05, "language": 2 / 3}
    where = {"model": "m", "design": "parts", "method": "hqq", "metric": "accuracy", "least_bits": 3, "sd": 1 / 7}
    empty = dict.fromkeys(components.IMPORTANCE_SCHEMA)
    rows = [
        {**empty, **where, "factor": part, "share": share, "determined": share > 0.1, "low": share / 3, "high": 1 / 7}
        for part, share in shares.items()
    ]
    write_table(pl.DataFrame(rows, schema=components.IMPORTANCE_SCHEMA), path.with_suffix(".parquet"))
    settings = published_importance.Settings(["parts"])
    published_importance.write(path, settings, importance_path=path.with_suffix(".parquet"))
    own = {"sd": 1 / 7, "vision": 100 * (1 / 3), "connector": None, "language": 100 * (2 / 3)}
    own |= {f"{part}_low": 100 * (share / 3) for part, share in shares.items()}
    own |= {f"{part}_high": 100 * (1 / 7) for part in shares}
    names = list(published_importance.SCHEMA)[:9]
    return [own, *(dict(list(zip(names, row, strict=True))[4:]) for row in published_importance.PUBLISHED)]


WRITERS: dict[str, Callable[[list[Path], Path], Expected]] = {
    "data": written_data,
    "accuracy": written_accuracy,
    "reliability": written_reliability,
    "members": written_members,
    "sizes": written_sizes,
    "certification": as_computed(certification.SCHEMA),
    "comparisons": as_computed(comparison.SCHEMA),
    "decisions": as_computed(decisions.SCHEMA),
    "shipping": as_computed(shipping.SCHEMA),
    "drift": as_computed(drift_from_bf16.SCHEMA),
    "fairness": as_computed(fairness.SCHEMA),
    "grid": as_computed(components.grid_schema([])),
    "importance": as_computed(components.IMPORTANCE_SCHEMA),
    "interactions": as_computed(components.INTERACTIONS_SCHEMA),
    "effects": as_computed(components.EFFECTS_SCHEMA),
    "published_importance": written_published_importance,
    "quantization": written_paper,
    "selector": written_paper,
    "published": written_published,
}


def test_every_table_of_the_report_is_read_back() -> None:
    assert set(WRITERS) == {table.name for table in contents.TABLES}


def bits(value: object) -> object:
    """Return a number so that two are equal only bit for bit."""
    return None if value is None else (value.hex() if isinstance(value, float) else float(value).hex())


def read_by_polars(path: Path) -> Iterator[dict[str, object]]:
    yield from pl.read_csv(path, infer_schema_length=None).iter_rows(named=True)


def read_by_python(path: Path) -> Iterator[dict[str, object]]:
    with open(path, newline="", encoding="utf-8") as handle:
        yield from csv.DictReader(handle)


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_reads_back_to_what_was_computed_bit_for_bit(name: str, metrics: list[Path], tmp_path: Path) -> None:
    path = tmp_path / f"{name}.csv"
    expected = WRITERS[name](metrics, path)
    for read in (read_by_polars, read_by_python):
        written = list(read(path))
        if name != "published":
            assert len(written) == len(expected)
        for row, numbers in zip(written, expected, strict=False):
            for column, value in numbers.items():
                text = row[column] if row[column] != "" else None
                assert bits(text) == bits(value), (column, row[column], value)


def sure_answers() -> pl.DataFrame:
    """Scores of a model that is sure of everything: confidences a millionth below 1 and closer."""
    parts = []
    for dataset, split, n, wrong in (
        (ID_DATASET, "val", 400, 0.1),
        (ID_DATASET, "test", 600, 0.1),
        ("shift", "test", 300, 0.3),
    ):
        rng = np.random.default_rng(n)
        ease = rng.random(n)
        names = [f"{split}-{index}" for index in range(n)]
        answers = {"dataset": dataset, "split": split, "question_id": names, "image_id": names}
        answers["quality"] = np.where(ease > wrong, 1.0, 0.0)
        answers["maxprob"] = 1 - 10.0 ** -(6 + 6 * np.clip(0.7 * ease + 0.3 * rng.random(n), 0, 1))
        parts.append(pl.DataFrame(answers))
    return pl.concat(parts)


def test_a_threshold_read_back_answers_the_questions_that_the_computed_one_answers(tmp_path: Path) -> None:
    scores = sure_answers()
    id_rows, shift = (scores.filter(pl.col("dataset") == name) for name in (ID_DATASET, "shift"))
    mixtures = {"shift": mixture_table(id_rows, shift, [1.0, 0.0], seed=0)}
    common = {"model": "m", "scheme": "s", "id_dataset": ID_DATASET, "estimators": ["maxprob"], "seed": 0, "delta": 0.1}
    common |= {"risks": [0.01, 0.05, 0.1], "splits": 5}
    declared = PointSettings(ID_DATASET, 1, True, ["maxprob"], [0.1, 0.05, 0.01], 0.1, resamples=5, seed=0)
    points = shipped_points(scores, mixtures, model="m", scheme="s", settings=declared)
    shipped = OperatingPoints("m", "s", "", ID_DATASET, Conditions("cpu", "float32", "none", "sdpa"), *points)
    write_operating_points(shipped, tmp_path / "points.json")
    for one in read_operating_points(tmp_path / "points.json").points:
        assert (one.threshold,) == tuple(
            point.threshold for point in shipped.points_for(one.estimator, one.risk_limit) if point.kind == one.kind
        )
    tables_of = {
        "decisions": decisions.decide_variant(
            scores, mixtures, shipped=shipped, **given(DecisionSettings, resamples=5, **common)
        ),
        "certification": certification.evaluate_certification(
            scores, mixtures, **given(CertificationSettings, **common)
        ),
    }
    read, rounded = 0, 0
    for name, computed in tables_of.items():
        write_table(computed, tmp_path / f"{name}.parquet")
        as_is.write(tmp_path / f"{name}.csv", paths=[tmp_path / f"{name}.parquet"])
        for column in ("threshold", "certified_threshold"):
            if column not in computed.columns:
                continue
            for text, threshold in zip(
                (row[column] for row in read_by_python(tmp_path / f"{name}.csv")), computed[column], strict=True
            ):
                if threshold is None:
                    assert text == ""
                    continue
                answered = scores["maxprob"] >= threshold
                assert (scores["maxprob"] >= float(text)).equals(answered)
                assert answered.any()
                read += 1
                rounded += not (scores["maxprob"] >= round(threshold, 6)).equals(answered)
    assert read > 10
    assert {one.kind for one in shipped.points} == {"val", "certified"}
    # With six places no threshold of such a model answers what it should.
    assert rounded == read
