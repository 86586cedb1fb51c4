"""The tables of a study, as CSV; all values are fractions."""

import json
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from quantrust.files import atomic_path
from quantrust.report.results import read_tables, rows_of, whole_test_sets

PLACES = 6
VARIANT = ["model", "scheme"]


def write_accuracy_table(metric_paths: Iterable[str | Path], out_path: str | Path, *, home: str) -> None:
    """Write soft accuracy with its interval, a row per variant and dataset.

    Parameters
    ----------
    metric_paths : iterable of str or Path
    out_path : str or Path
        CSV with the columns model, scheme, dataset, n, accuracy, accuracy_low, accuracy_high.
    home : str
        The dataset in distribution.
    """
    rows = whole_test_sets(rows_of(read_tables(metric_paths), "accuracy"), home)
    rows = rows.unique([*VARIANT, "dataset"], keep="first", maintain_order=True)
    _write(rows.select(*VARIANT, "dataset", "n", *_interval("accuracy")), out_path)


def write_reliability_table(
    metric_paths: Iterable[str | Path], out_path: str | Path, *, home: str, risks: Iterable[float]
) -> None:
    """Write ECE, AURC and coverage at every risk limit, a row per variant, dataset and estimator.

    Parameters
    ----------
    metric_paths : iterable of str or Path
    out_path : str or Path
        CSV with the columns model, scheme, dataset, estimator, n, then value, low and high of every metric; empty where
        a metric is undefined.
    home : str
        The dataset in distribution.
    risks : iterable of float
    """
    metrics = whole_test_sets(read_tables(metric_paths), home)
    keys = [*VARIANT, "dataset", "estimator"]
    table = metrics.select(*keys, "n").unique(keys, keep="first", maintain_order=True)
    wanted = [("ece", "ece", None), ("aurc", "aurc", None)]
    wanted += [(f"coverage_at_risk_{risk}", "coverage_at_risk", risk) for risk in risks]
    for name, metric, parameter in wanted:
        values = rows_of(metrics, metric, parameter).select(*keys, *_interval(name))
        table = table.join(values, on=keys, how="left", maintain_order="left")
    _write(table, out_path)


def write_sizes_table(checkpoints: Iterable[str | Path], out_path: str | Path) -> None:
    """Write the bytes of every checkpoint as its own record states them.

    Parameters
    ----------
    checkpoints : iterable of str or Path
        Folders `<model>/<scheme>` with a `quantization.json`.
    out_path : str or Path
        CSV with the columns model, scheme, bytes_on_disk, bytes_bf16, share_of_bf16, bits_per_quantized_weight,
        bits_per_weight.
    """
    rows = []
    for folder in map(Path, checkpoints):
        record = json.loads((folder / "quantization.json").read_text(encoding="utf-8"))
        size = record["bytes"]
        rows.append(
            {
                "model": folder.parent.name,
                "scheme": record["scheme"],
                "bytes_on_disk": size["weights_file"],
                "bytes_bf16": size["bfloat16"],
                "share_of_bf16": size["weights_file"] / size["bfloat16"],
                "bits_per_quantized_weight": size["quantized_bits_per_weight"],
                "bits_per_weight": size["model_bits_per_weight"],
            }
        )
    _write(pl.DataFrame(rows, infer_schema_length=None), out_path)


def write_certification_table(paths: Iterable[str | Path], out_path: str | Path) -> None:
    """Write what certified thresholds are worth, a row per variant, estimator, risk limit and setting.

    Parameters
    ----------
    paths : iterable of str or Path
        Certification tables of the study's variants.
    out_path : str or Path
        CSV with the columns of `quantrust.evaluation.certification.SCHEMA`.
    """
    _write(read_tables(paths), out_path)


def write_comparisons_table(path: str | Path, out_path: str | Path) -> None:
    """Write paired differences of variants and estimators, a row per pair, test set and metric.

    Parameters
    ----------
    path : str or Path
        The file of `quantrust.evaluation.comparison.write_comparisons`.
    out_path : str or Path
        CSV with the same columns.
    """
    _write(pl.read_parquet(path), out_path)


def _interval(name: str) -> list[pl.Expr]:
    return [
        pl.col(column).alias(label)
        for column, label in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high"))
    ]


def _write(table: pl.DataFrame, out_path: str | Path) -> None:
    with atomic_path(out_path) as partial:
        table.write_csv(partial, float_precision=PLACES)
