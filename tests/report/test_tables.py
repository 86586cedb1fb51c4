"""Tables: rows, columns and values against the metrics they come from."""

import json
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import write_table
from quantrust.report.results import read_tables
from quantrust.report.tables import accuracy, as_is, data, reliability, sizes

ID_DATASET = "scenes"


def test_rows_that_are_wanted_are_those_of_all_tables_in_their_order(study) -> None:
    wanted = (pl.col("estimator") == "selector") & (pl.col("id_share") == 1.0)
    found = read_tables(study.metrics.values(), wanted)
    assert found.equals(read_tables(study.metrics.values()).filter(wanted)) and found.height > len(study.metrics)


def test_accuracy_has_a_row_per_variant_and_dataset(study, tmp_path: Path) -> None:
    accuracy.write(tmp_path / "a.csv", accuracy.Settings(ID_DATASET), metric_paths=study.metrics.values())
    table = pl.read_csv(tmp_path / "a.csv")
    assert table.columns == ["model", "scheme", "dataset", "n", "accuracy", "accuracy_low", "accuracy_high"]
    assert len(table) == 2 * 9 * 3
    assert table.row(0) == ("model-a", "bf16", ID_DATASET, 4500, 0.85, 0.838, 0.862)
    assert table.filter(dataset="scenes-language", model="model-a", scheme="bf16")["accuracy"].item() == 0.5


def test_a_whole_shift_that_no_mixture_holds_takes_the_place_of_the_mixture_of_share_0(study, tmp_path: Path) -> None:
    table = pl.read_parquet(study.metrics["model-a", "bf16"])
    whole = table.filter((pl.col("dataset") == "scenes-language") & (pl.col("id_share") == 0)).with_columns(
        id_share=None, value=pl.lit(0.25), n=pl.lit(5000)
    )
    write_table(pl.concat([table, whole.cast(table.schema)]), tmp_path / "m.parquet")
    accuracy.write(tmp_path / "a.csv", accuracy.Settings(ID_DATASET), metric_paths=[tmp_path / "m.parquet"])
    rows = pl.read_csv(tmp_path / "a.csv").select("dataset", "n", "accuracy").rows()
    assert rows == [(ID_DATASET, 4500, 0.85), ("scenes-multimodal", 2400, 0.5), ("scenes-language", 5000, 0.25)]


def test_reliability_leaves_an_undefined_metric_empty(study, tmp_path: Path) -> None:
    settings = reliability.Settings(ID_DATASET, [0.01, 0.05])
    reliability.write(tmp_path / "r.csv", settings, metric_paths=study.metrics.values())
    table = pl.read_csv(tmp_path / "r.csv")
    assert len(table) == 2 * 9 * 3 * 3
    assert table.filter(estimator="entropy")["ece"].null_count() == 2 * 9 * 3
    assert table.filter(estimator="maxprob")["ece"].null_count() == 0
    first = table.row(0, named=True)
    expected = pl.read_parquet(study.metrics["model-a", "bf16"]).filter(
        (pl.col("metric") == "coverage_at_risk") & (pl.col("parameter") == 0.05)
    )
    assert first["coverage_at_risk_0.05"] == expected["value"][0]
    assert first["coverage_at_risk_0.05_high"] == expected["high"][0]


def test_sizes_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    in_bytes = {"weights_file": 300, "bfloat16": 1200, "quantized_bits_per_weight": 3.5, "model_bits_per_weight": 4.0}
    in_bytes |= {"resident": 310, "resident_bfloat16": 1240, "resident_packed": 372}
    for scheme, bits in (("bf16", None), ("mbq-w3g64", 3.5)):
        folder = tmp_path / "model-a" / scheme
        folder.mkdir(parents=True)
        record = {"scheme": scheme, "bytes": in_bytes | {"quantized_bits_per_weight": bits}}
        (folder / "quantization.json").write_text(json.dumps(record))
    sizes.write(tmp_path / "s.csv", checkpoints=[tmp_path / "model-a" / name for name in ("bf16", "mbq-w3g64")])
    table = pl.read_csv(tmp_path / "s.csv")
    assert table["scheme"].to_list() == ["bf16", "mbq-w3g64"]
    assert table["share_of_bf16"].to_list() == [0.25, 0.25]
    assert table.select("bytes_resident", "resident_share_of_bf16").rows() == [(310, 0.25)] * 2
    assert table.select("bytes_resident_packed", "resident_packed_share_of_bf16").rows() == [(372, 0.3)] * 2
    assert table["bits_per_quantized_weight"].to_list() == [None, 3.5]


def test_comparisons_are_written_as_they_are(tmp_path: Path) -> None:
    table = pl.DataFrame({"first_scheme": ["mbq-w3g64"], "parameter": [None], "p_holm": [0.25], "n": [4500]})
    write_table(table, tmp_path / "comparisons.parquet")
    as_is.write(tmp_path / "c.csv", paths=[tmp_path / "comparisons.parquet"])
    assert (tmp_path / "c.csv").read_text() == "first_scheme,parameter,p_holm,n\nmbq-w3g64,,0.25,4500\n"


def test_data_counts_what_is_asked_what_was_left_out_and_what_the_selector_saw(tmp_path: Path) -> None:
    columns = ["dataset", "split", "image"]
    id_rows = [("id", "dev", "i1"), ("id", "dev", "i1"), ("id", "dev", "i2"), ("id", "test", "i3")]
    shift = [("shift", "test", "i2"), ("shift", "test", "i3"), ("shift", "test", "i9")]
    left_out = [("shift", "test", "i4"), ("shift", "test", "i4"), ("shift", "test", "i5")]
    for name, rows in (("id", id_rows), ("shift", shift), ("nothing", []), ("left", left_out)):
        schema = dict.fromkeys(columns, pl.String)
        write_table(pl.DataFrame(rows, schema=schema, orient="row"), tmp_path / f"{name}.parquet")
    data.write(
        tmp_path / "data.csv",
        data.Settings("id"),
        question_paths=[tmp_path / "id.parquet", tmp_path / "shift.parquet"],
        skipped_paths=[tmp_path / "nothing.parquet", tmp_path / "left.parquet"],
    )
    written = pl.read_csv(tmp_path / "data.csv")
    assert written.columns[2:] == ["images", "questions", "skipped_images", "skipped_questions", "images_in_home_dev"]
    assert written.rows() == [
        ("id", "dev", 2, 3, 0, 0, 2),
        ("id", "test", 1, 1, 0, 0, 0),
        ("shift", "test", 3, 3, 2, 3, 1),
    ]
