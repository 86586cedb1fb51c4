"""Example queries of retrieval: texts and pictures stand in the place of their identifiers."""

import io
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from quantrust.artifacts.tables import read_table, write_table
from quantrust.data.queries import queries_of
from quantrust.evaluation.examples import ExampleSettings, write_examples

COLOURS = {"a.png": (255, 0, 0), "b.png": (0, 0, 255)}
CAPTIONS = {"a.png": {"a.png#0": "all red", "a.png#1": "very red"}, "b.png": {"b.png#0": "all blue"}}
FOUND = {"a.png": "b.png#0", "a.png#0": "a.png", "a.png#1": "b.png", "b.png": "b.png#0", "b.png#0": "b.png"}


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, dict]:
    """The examples of a split of two pictures, by query."""
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    queries = [query for name, own in CAPTIONS.items() for query in queries_of(name, str(tmp_path / name), own)]
    table = pl.DataFrame(
        {
            "question_id": [query.question_id for query in queries],
            "image_id": [query.image_id for query in queries],
            "image": [query.image for query in queries],
            "question": [query.question for query in queries],
            "answers": [list(query.answers) for query in queries],
            "answer": [FOUND[query.question_id] for query in queries],
        }
    ).with_columns(split=pl.lit("test"), dataset=pl.lit("pairs"))
    right = pl.Series([float(FOUND[query.question_id] in query.answers) for query in queries])
    paths = {name: tmp_path / f"{name}.parquet" for name in ("questions", "features", "scores", "decisions", "out")}
    write_table(table.drop("answer"), paths["questions"])
    write_table(table.select("question_id", "split", "answer"), paths["features"])
    scores = table.select("question_id", "split", "dataset").with_columns(right.alias("quality"))
    write_table(scores.with_columns(pl.lit(1.0).alias("match-margin")), paths["scores"])
    decision = {"dataset": "pairs", "estimator": "match-margin", "risk_limit": 0.5, "threshold": 0.5}
    write_table(pl.DataFrame([decision]), paths["decisions"])
    write_examples(
        {"pairs": paths["questions"]},
        {("m", "s"): paths["scores"]},
        {("m", "s", "pairs"): paths["features"]},
        {("m", "s"): paths["decisions"]},
        paths["out"],
        ExampleSettings("pairs", "match-margin", 0.5, 10, 0, matched=True),
    )
    return {row["question_id"]: row for row in read_table(paths["out"]).iter_rows(named=True)}


def colour_of(picture: bytes) -> str:
    red, _, blue = Image.open(io.BytesIO(picture)).convert("RGB").getpixel((4, 4))
    return "red" if red > blue else "blue"


def test_an_image_finds_a_text_and_is_shown_those_that_it_looks_for(rows) -> None:
    assert rows["a.png"]["answer"] == "all blue" and rows["a.png"]["answers"] == ["all red", "very red"]
    assert rows["a.png"]["found"] is None and colour_of(rows["a.png"]["picture"]) == "red"


def test_a_caption_finds_a_picture_beside_the_one_that_it_looks_for(rows) -> None:
    wrong = rows["a.png#1"]
    assert (wrong["question"], wrong["answers"], wrong["kind"]) == ("very red", [], "wrong and kept")
    assert (colour_of(wrong["picture"]), colour_of(wrong["found"])) == ("red", "blue")
    assert colour_of(rows["a.png#0"]["found"]) == "red"
