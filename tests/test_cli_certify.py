"""`quantrust certify`: the certificates of the evaluation, from a table of scores, or one message."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.cli import main
from quantrust.evaluation.certification import hoeffding_bentkus

IMAGES = 900


def answers(seed: int = 0, per_image: int = 1) -> pl.DataFrame:
    """Answers whose confidence is the probability of being right; a third of the images are of split val."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(IMAGES), per_image)
    confidence = rng.uniform(0.5, 1.0, size=image.size) ** 0.2
    return pl.DataFrame(
        {
            "id": np.arange(image.size),
            "quality": (rng.random(image.size) < confidence).astype(float),
            "confidence": confidence,
            "image": image,
            "split": np.where(image % 3 == 0, "val", "test"),
        }
    )


@pytest.fixture
def certified(tmp_path: Path):
    def certify(table: pl.DataFrame, *options: object) -> dict:
        table.write_csv(tmp_path / "t.csv")
        out = tmp_path / "out.json"
        assert (
            main(["certify", str(tmp_path / "t.csv"), "--json", str(out), *map(str, options), "--resamples", "99"]) == 0
        )
        return json.loads(out.read_text())

    return certify


def test_a_threshold_is_certified_by_the_answers_that_it_keeps(certified, capsys):
    out = certified(answers(), "--risks", 0.08, "--delta", 0.1)
    assert (out["questions"], out["images"], out["ordering"]) == (600, 600, {"questions": 300, "images": 300})
    found = out["certified"]["0.08"]
    test = answers().filter(pl.col("split") == "test")
    kept = test.filter(pl.col("confidence") >= found["threshold"])
    assert found["coverage"] == pytest.approx(kept.height / test.height)
    assert found["risk"] == pytest.approx(1 - kept["quality"].mean())
    # One question an image: the answers that certify are those that the threshold keeps.
    assert found["answers"] == kept.height
    assert hoeffding_bentkus([found["risk"]], [kept.height], 0.08)[0] <= 0.1
    assert found["fewest_answers"] == math.ceil(math.log(0.1) / math.log(0.92))
    low, high = out["intervals"]["certified"]["0.08"]["risk"]
    assert low < found["risk"] < high
    printed = capsys.readouterr().out
    assert "certified on 600 images of split test (600 questions), thresholds in an order from 300 images" in printed
    assert repr(found["threshold"]) in printed


def test_one_question_of_each_image_certifies(certified):
    out = certified(answers(per_image=3), "--risks", 0.08)
    assert (out["questions"], out["images"]) == (1800, 600)
    assert 0 < out["certified"]["0.08"]["answers"] <= 600


def test_limits_share_delta_and_what_cannot_be_certified_is_null(certified, capsys):
    out = certified(answers(), "--risks", 0.001, 0.08, "--delta", 0.2)
    strict, loose = out["certified"]["0.001"], out["certified"]["0.08"]
    assert strict == {
        "threshold": None,
        "coverage": 0.0,
        "risk": None,
        "delta": 0.1,
        "answers": 0,
        "fewest_answers": math.ceil(math.log(0.1) / math.log(0.999)),
    }
    assert loose["threshold"] is not None
    assert "except with a probability of at most 0.2" in capsys.readouterr().out


def test_without_splits_a_fifth_of_the_images_fixes_the_order(certified):
    table = answers(per_image=2).drop("split")
    out = certified(table, "--risks", 0.08)
    assert (out["images"], out["ordering"]["images"]) == (720, 180)
    assert certified(table, "--risks", 0.08) == out
    assert certified(table, "--risks", 0.08, "--seed", 1)["certified"] != out["certified"]


def test_an_image_in_both_splits_is_an_error_and_writes_nothing(tmp_path, capsys):
    answers().with_columns(image=pl.lit("one")).write_csv(tmp_path / "t.csv")
    assert main(["certify", str(tmp_path / "t.csv"), "--json", str(tmp_path / "out.json")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "image one has answers in both splits, test and val, like 0 others" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
