"""The tables of a study, as CSV.

Every number stands there as the shortest text that reads back to the same float, so that a threshold taken from a table
answers what it answered in the study. Shares, risks, errors and differences are fractions; other units are in the names
of their columns, such as ``bytes_on_disk``."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import write_csv
from quantrust.files import read_object
from quantrust.report.results import read_tables, rows_of, whole_test_sets

VARIANT = ["model", "scheme"]


def write_accuracy_table(metric_paths: Iterable[str | Path], out_path: str | Path, *, id_dataset: str) -> None:
    """Write soft accuracy with its interval, a row per variant and dataset.

    Parameters
    ----------
    metric_paths : iterable of str or Path
    out_path : str or Path
        CSV with the columns model, scheme, dataset, n, accuracy, accuracy_low, accuracy_high.
    id_dataset : str
        The dataset in distribution.
    """
    rows = whole_test_sets(rows_of(read_tables(metric_paths), "accuracy"), id_dataset)
    rows = rows.unique([*VARIANT, "dataset"], keep="first", maintain_order=True)
    write_csv(rows.select(*VARIANT, "dataset", "n", *_interval("accuracy")), out_path)


def write_reliability_table(
    metric_paths: Iterable[str | Path], out_path: str | Path, *, id_dataset: str, risks: Iterable[float]
) -> None:
    """Write ECE, AURC and coverage at every risk limit, a row per variant, dataset and estimator.

    Parameters
    ----------
    metric_paths : iterable of str or Path
    out_path : str or Path
        CSV with the columns model, scheme, dataset, estimator, n, then value, low and high of every metric; empty where
        a metric is undefined.
    id_dataset : str
        The dataset in distribution.
    risks : iterable of float
    """
    metrics = whole_test_sets(read_tables(metric_paths), id_dataset)
    keys = [*VARIANT, "dataset", "estimator"]
    table = metrics.select(*keys, "n").unique(keys, keep="first", maintain_order=True)
    wanted = [("ece", "ece", None), ("aurc", "aurc", None)]
    wanted += [(f"coverage_at_risk_{risk}", "coverage_at_risk", risk) for risk in risks]
    for name, metric, parameter in wanted:
        values = rows_of(metrics, metric, parameter).select(*keys, *_interval(name))
        table = table.join(values, on=keys, how="left", maintain_order="left")
    write_csv(table, out_path)


def write_members_table(
    metric_paths: Iterable[str | Path], out_path: str | Path, *, id_dataset: str, risks: Iterable[float]
) -> None:
    """Write how far another training of a learned estimator moves its figures, a row per variant, dataset and metric.

    Parameters
    ----------
    metric_paths : iterable of str or Path
    out_path : str or Path
        CSV with the columns model, scheme, dataset, estimator, metric, parameter, n, members, value (of the first
        member, which is the estimator), mean, deviation (standard, of the members), lowest and highest; for AURC, ECE
        and coverage at every risk limit.
    id_dataset : str
        The dataset in distribution.
    risks : iterable of float
    """
    metrics = whole_test_sets(read_tables(metric_paths), id_dataset).filter(pl.col("members").is_not_null())
    wanted = [("aurc", None), ("ece", None), *(("coverage_at_risk", risk) for risk in risks)]
    rows = pl.concat([rows_of(metrics, metric, parameter) for metric, parameter in wanted])
    members = pl.col("members").list
    table = rows.select(
        *VARIANT,
        *("dataset", "estimator", "metric", "parameter", "n"),
        members.len().alias("members"),
        "value",
        members.mean().alias("mean"),
        members.std().alias("deviation"),
        members.min().alias("lowest"),
        members.max().alias("highest"),
    )
    write_csv(table, out_path)


def write_sizes_table(checkpoints: Iterable[str | Path], out_path: str | Path) -> None:
    """Write the bytes of every checkpoint as its own record states them.

    Parameters
    ----------
    checkpoints : iterable of str or Path
        Folders `<model>/<scheme>` with a `quantization.json`.
    out_path : str or Path
        CSV with the columns model, scheme, bytes_on_disk, bytes_bf16, share_of_bf16 (of the weights file),
        bytes_resident, bytes_resident_bf16, resident_share_of_bf16 (of the loaded model in bfloat16),
        bytes_resident_packed, resident_packed_share_of_bf16 (the same with packed kernels on the CPU, which widen codes
        of 2, 3, 5 and 6 bits),
        bits_per_quantized_weight, bits_per_weight (of the whole model, on disk).
    """
    rows = []
    for folder in map(Path, checkpoints):
        record = read_object(folder / "quantization.json")
        size = record["bytes"]
        rows.append(
            {
                "model": folder.parent.name,
                "scheme": record["scheme"],
                "bytes_on_disk": size["weights_file"],
                "bytes_bf16": size["bfloat16"],
                "share_of_bf16": size["weights_file"] / size["bfloat16"],
                "bytes_resident": size["resident"],
                "bytes_resident_bf16": size["resident_bfloat16"],
                "resident_share_of_bf16": size["resident"] / size["resident_bfloat16"],
                "bytes_resident_packed": size["resident_packed"],
                "resident_packed_share_of_bf16": size["resident_packed"] / size["resident_bfloat16"],
                "bits_per_quantized_weight": size["quantized_bits_per_weight"],
                "bits_per_weight": size["model_bits_per_weight"],
            }
        )
    write_csv(pl.DataFrame(rows, infer_schema_length=None), out_path)


def write_as_csv(paths: Iterable[str | Path], out_path: str | Path) -> None:
    """Write tables of the evaluation as they are, one after another.

    Parameters
    ----------
    paths : iterable of str or Path
        Parquet files of one schema.
    out_path : str or Path
        CSV with their columns.
    """
    write_csv(read_tables(paths), out_path)


def write_data_table(
    question_paths: Iterable[str | Path], skipped_paths: Iterable[str | Path], out_path: str | Path, *, id_dataset: str
) -> None:
    """Count what is asked and what was left out because an image could not be read, a row per dataset and split.

    Parameters
    ----------
    question_paths : iterable of str or Path
        Questions tables.
    skipped_paths : iterable of str or Path
        Tables of the questions left out, as `quantrust.data.questions.build_questions_table` writes them.
    out_path : str or Path
        CSV with the columns dataset, split, images, questions, skipped_images, skipped_questions, images_in_home_dev:
        of how many of its images questions are also asked in dev of the dataset in distribution, which the Selector
        trains on.
    id_dataset : str
        The dataset in distribution.
    """
    keys = ["dataset", "split"]
    counts = [pl.col("image").n_unique().alias("images"), pl.len().alias("questions")]
    asked = read_tables(question_paths)
    skipped = read_tables(skipped_paths).group_by(keys).agg(*counts)
    trained_on = asked.filter(dataset=id_dataset, split="dev")["image"].unique()
    shared = asked.filter(pl.col("image").is_in(trained_on.to_list())).group_by(keys).agg(counts[0])
    table = asked.group_by(keys, maintain_order=True).agg(*counts)
    for other, names in (
        (skipped, {"images": "skipped_images", "questions": "skipped_questions"}),
        (shared, {"images": "images_in_home_dev"}),
    ):
        table = table.join(other.rename(names), on=keys, how="left", maintain_order="left")
    write_csv(table.fill_null(0), out_path)


def _interval(name: str) -> list[pl.Expr]:
    return [
        pl.col(column).alias(label)
        for column, label in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high"))
    ]
