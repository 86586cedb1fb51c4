"""`quantrust power`: numbers of images from a pilot of one or two tables, or one message."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.cli import main
from quantrust.evaluation.power import draw_tests, images_for_difference, standard_error, with_tests
from quantrust.evaluation.resampling import draw_images
from quantrust.evaluation.simulation import draw_pairs


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Tables of two variants' answers to 40 images, the rows of the second in another order."""
    first, second, image = draw_pairs(40, np.random.default_rng(0))
    paths = tmp_path / "a.csv", tmp_path / "b.parquet"
    tables = [
        pl.DataFrame({"id": np.arange(image.size), "quality": quality, "confidence": confidence, "image": image})
        for quality, confidence in (first, second)
    ]
    tables[0].write_csv(paths[0])
    tables[1].sample(fraction=1, shuffle=True, seed=1).write_parquet(paths[1])
    return paths


def power(*options: object) -> int:
    return main(["power", *map(str, options), "--resamples", "500"])


def test_two_tables_give_the_images_of_their_paired_difference(pair, tmp_path, capsys):
    out = tmp_path / "out.json"
    options = ("--difference", 0.02, "--power", 0.9, "--tests", 3, "--images", 10, 4000, "--json", out)
    assert power(*pair, *options) == 0
    document = json.loads(out.read_text())
    first, second, image = draw_pairs(40, np.random.default_rng(0))
    # Ids are texts, and the answers in their order, so that both tables see the same images in each resample.
    order = sorted(range(image.size), key=str)
    draws = draw_images(image[order].astype(str), 500, [0, 0])

    def between(counts: np.ndarray) -> np.ndarray:
        weights = counts[:, draws.image]
        return (weights @ (first[0] - second[0])[order]) / weights.sum(axis=1)

    tested = between(draw_tests(draws.image, [0, 1]).counts)
    at = with_tests(standard_error(between(draws.counts), draws), tested, 1.0, 0.05 / 3)
    found = document["differences"]["accuracy"]
    assert found["standard_error"] == pytest.approx(at.error)
    assert found["pilot"] == pytest.approx([first[0].mean(), second[0].mean()])
    needed = images_for_difference(0.02, at, 0.9, 0.05 / 3)
    assert found["needed"]["images"] == math.ceil(needed.value)
    assert found["needed"]["questions"] == math.ceil(math.ceil(needed.value) * image.size / 40)
    assert [row["images"] for row in found["curve"]] == [10, 4000]
    assert found["curve"][0]["power"] < found["curve"][1]["power"]
    assert list(document["differences"]) == ["accuracy", "aurc", "coverage_at_risk 0.05"]
    printed = capsys.readouterr().out
    assert "to find a difference of 2 points, two-sided at 0.05 over 3 tests" in printed
    assert f"{math.ceil(needed.value):,}" in printed


def test_with_one_table_a_correlation_is_assumed(pair, tmp_path, capsys):
    out = tmp_path / "out.json"
    needed = []
    for correlation in ("0", "0.75"):
        options = ("--difference", 0.02, "--settle", "accuracy", "--correlation", correlation, "--json", out)
        assert power(pair[0], *options) == 0
        document = json.loads(out.read_text())
        needed.append(document["differences"]["accuracy"]["needed"]["images"])
        assert document["correlation"] == float(correlation)
    assert needed[0] == pytest.approx(4 * needed[1], rel=0.01)
    assert "with an assumed correlation of 0.75 between the variants" in capsys.readouterr().out


def test_a_certificate_takes_the_images_that_simulations_say(tmp_path, capsys):
    pl.DataFrame({"id": range(60), "correct": [True] * 60, "confidence": np.linspace(0, 1, 60)}).write_csv(
        tmp_path / "a.csv"
    )
    out = tmp_path / "out.json"
    assert power(tmp_path / "a.csv", "--certify", 0.1, "--images", 20, 80, "--json", out) == 0
    found = json.loads(out.read_text())["certified"]["0.1"]
    # 22 faultless answers, of those that do not fix the order.
    assert [row["power"] for row in found["curve"]] == [0.0, 1.0]
    assert 20 < found["needed"]["images"] <= 80
    assert power(tmp_path / "a.csv", "--certify", 0.01, "--images", 20, "--json", out) == 0
    assert json.loads(out.read_text())["certified"]["0.01"]["needed"] is None
    assert "above 20" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_bytes_and_the_figure_is_drawn(pair, tmp_path):
    found = []
    for name in ("one", "two"):
        outputs = [tmp_path / f"{name}.json", tmp_path / f"{name}.svg"]
        assert power(*pair, "--difference", 0.02, "--json", outputs[0], "--plot", outputs[1]) == 0
        found.append([path.read_bytes() for path in outputs])
    assert found[0] == found[1]
    assert b"<svg" in found[0][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing is asked; expected --difference, the difference to be found, or --certify"),
        (["B", "--certify", "0.1"], "a second table is for a difference"),
        (["B", "--difference", "0.1", "--correlation", "0.5"], "--correlation is assumed with one table alone"),
        (["C", "--difference", "0.1"], "answer 7 is not in"),
        (["D", "--difference", "0.1"], "answer 0 is about image x"),
        (["--difference", "0.1", "--plot", "out.txt"], "expected --plot with a name that ends in .pdf, .png or .svg"),
    ],
)
def test_what_cannot_be_answered_gets_one_message_and_writes_nothing(
    pair, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    other = pl.read_parquet(pair[1])
    other.filter(pl.col("id") != 7).write_csv("c.csv")
    other.with_columns(image=pl.when(pl.col("id") == 0).then(pl.lit("x")).otherwise("image")).write_csv("d.csv")
    before = sorted(path.name for path in tmp_path.iterdir())
    names = {"B": "b.parquet", "C": "c.csv", "D": "d.csv"}
    assert power("a.csv", *(names.get(option, option) for option in options), "--json", "out.json") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert message in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
