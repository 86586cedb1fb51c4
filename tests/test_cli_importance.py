"""`quantrust importance`: shares of a grid's variance from anyone's table, or one message."""

import json
from itertools import product
from pathlib import Path

import polars as pl
import pytest

from quantrust.cli import main

FACTORS = ["vision_bits", "connector_bits", "language_bits"]


def rows_of(metric: str, value, bits=(2, 3, 16), **others: object) -> list[dict]:
    """Rows of a full grid."""
    return [
        {**dict(zip(FACTORS, cell, strict=True)), **others, "metric": metric, "value": value(*cell)}
        for cell in product(bits, repeat=3)
    ]


@pytest.fixture
def rows() -> list[dict]:
    """A grid of two models and two metrics; accuracy of the first depends on vision and language, twice as much."""
    return [
        *rows_of("accuracy", lambda v, c, q: 0.1 * (v > 2) + 0.2 * (q > 2), model="a", task=None),
        *rows_of("ece", lambda v, c, q: 0.01 * c, model="a", task=None),
        *rows_of("accuracy", lambda v, c, q: 0.0, model="b", task="vqa"),
    ]


def importance(table: Path, *options: object, factors=FACTORS, metric="accuracy") -> int:
    return main(["importance", str(table), "--factors", *factors, "--metric", metric, *map(str, options)])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_long_table_gives_shares_by_stratum(rows, tmp_path, capsys, suffix):
    table, out = tmp_path / f"grid.{suffix}", tmp_path / "out.json"
    frame = pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)
    frame.write_csv(table) if suffix == "csv" else frame.write_parquet(table)
    assert importance(table, "--where", "model=a", "task=", "--json", out) == 0
    document = json.loads(out.read_text())
    assert [(one["least_bits"], one["schemes"]) for one in document["strata"]] == [(2, 27), (3, 8)]
    first, last = document["strata"]
    assert first["shapley"] == pytest.approx({"vision_bits": 0.2, "connector_bits": 0, "language_bits": 0.8})
    assert first["main"] == pytest.approx(first["shapley"])
    assert first["interaction"] == pytest.approx(0)
    # The standard deviation of 0.1 times a level that a third of the schemes lack is 0.1 * sqrt(2) / 3.
    assert first["sd"] == pytest.approx((0.1**2 + 0.2**2) ** 0.5 * 2**0.5 / 3)
    assert first["low"] is first["high"] is None
    assert last["shapley"] == {"vision_bits": None, "connector_bits": None, "language_bits": None}
    assert sum(document["consensus"].values()) == pytest.approx(1)
    assert document["consensus"]["language_bits"] > document["consensus"]["vision_bits"]
    printed = capsys.readouterr().out
    assert "80.0 %" in printed
    assert "none varies" in printed


def test_parts_with_other_bits_are_marked(tmp_path, capsys):
    table = tmp_path / "grid.csv"
    cells = [cell for cell in product((2, 3, 16), (3, 16))]
    pl.DataFrame([{"v": v, "q": q, "metric": "m", "value": float(v + q)} for v, q in cells]).write_csv(table)
    assert importance(table, factors=["v", "q"], metric="m") == 0
    assert "2 *" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda rows: rows[:-1], ("--where", "model=b"), "1 of the 27 cells of the grid are missing"),
        (lambda rows: [*rows, rows[0]], ("--where", "model=a"), "a second scheme with vision_bits=2"),
        (lambda rows: rows, (), "a second scheme with"),
        (lambda rows: rows, ("--where", "model=c"), "no row has model=c; expected one of"),
        (lambda rows: rows, ("--where", "modell=a"), "has no column modell"),
        (lambda rows: [{**row, "value": None} for row in rows], ("--where", "model=a"), "row 1: value is empty"),
        (lambda rows: [{**row, "vision_bits": "F"} for row in rows], ("--where", "model=a"), "vision_bits is 'F'"),
        (lambda rows: [row for row in rows if row["vision_bits"] == 2], ("--where", "model=a"), "the level 2 alone"),
        (lambda rows: [], (), "no row has metric=accuracy"),
    ],
)
def test_bad_input_gets_one_message_and_writes_nothing(rows, tmp_path, capsys, change, options, message):
    table, out = tmp_path / "grid.csv", tmp_path / "out.json"
    schema = [*FACTORS, "model", "task", "metric", "value"]
    pl.DataFrame(change(rows), schema=schema, infer_schema_length=None).write_csv(table)
    assert importance(table, *options, "--json", out) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"error: {table}: ")
    assert message in captured.err
    assert not out.exists()


def test_a_metric_that_a_task_lacks_is_named_beside_those_that_it_has(rows, tmp_path, capsys):
    table = tmp_path / "grid.csv"
    pl.DataFrame(rows).write_csv(table)
    assert importance(table, "--where", "task=vqa", metric="CIDEr") == 2
    assert capsys.readouterr().err == f"error: {table}: no row has metric=CIDEr; expected one of ['accuracy']\n"


def test_parts_without_a_level_in_common_are_refused(tmp_path, capsys):
    table = tmp_path / "grid.csv"
    cells = [{"v": v, "q": q, "metric": "m", "value": 1.0} for v, q in product((2, 3), (4, 16))]
    pl.DataFrame(cells).write_csv(table)
    assert importance(table, factors=["v", "q"], metric="m") == 2
    assert "the factors have no level in common (v: 2, 3; q: 4, 16); expected the same" in capsys.readouterr().err


def test_the_figure_is_drawn(rows, tmp_path):
    table, out = tmp_path / "grid.csv", tmp_path / "shares.png"
    pl.DataFrame(rows).write_csv(table)
    assert importance(table, "--where", "model=a", "--plot", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_more_parts_than_there_are_colours_is_refused(rows, tmp_path, capsys):
    out = tmp_path / "shares.png"
    assert importance(tmp_path / "grid.csv", "--plot", out, factors=list("abcdef")) == 2
    assert "6 factors; expected at most 5 for a figure" in capsys.readouterr().err
    assert not out.exists()
