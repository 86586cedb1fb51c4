"""The study of components: tables of a grid whose effects are planted, on answers to the same questions."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.artifacts.tables import read_table, write_table
from quantrust.cli import main
from quantrust.errors import QuantrustError
from quantrust.evaluation.components import ComponentSettings, write_components
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.summary import deploy, summarise
from quantrust.report.tables import as_is

BITS = (2, 3, 16)
PARTS = ["vision", "connector", "language"]
IMAGES, EACH = 150, 3


def name_of(bits) -> str:
    parts = [f"{part}{own}" for part, own in zip(PARTS, bits, strict=True) if own != 16]
    return "-".join(["hqq", *parts]) if parts else "bf16"


def scores_of(bits, seed: int = 0) -> pl.DataFrame:
    """Answers of a scheme: vision loses accuracy at 2 and 3 bits, the language model half as much."""
    lost = {2: 0.3, 3: 0.1, 16: 0.0}
    chance = 0.85 - lost[bits[0]] - 0.5 * lost[bits[2]]
    rng = np.random.default_rng(seed)
    n = 2 * IMAGES * EACH
    image = np.repeat(np.arange(2 * IMAGES), EACH)
    ease = 0.7 * rng.uniform(size=n) + 0.3 * rng.uniform(size=2 * IMAGES)[image]
    # Spread evenly, so that a chance is the accuracy.
    ease = ease.argsort().argsort() / n
    own = np.random.default_rng([seed, *bits]).normal(scale=0.02, size=n)
    right = (ease + own < chance).astype(float)
    return pl.DataFrame(
        {
            "dataset": "scenes",
            "split": np.where(image < IMAGES, "val", "test"),
            "question_id": [f"{number:05d}" for number in range(n)],
            "image_id": [str(one) for one in image],
            "quality": right,
            "maxprob": np.clip(1.1 - ease - own, 0.01, 0.99),
        }
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[dict, dict]:
    """Scores and checkpoints of a model under every scheme of a grid."""
    folder = tmp_path_factory.mktemp("components")
    scores, checkpoints = {}, {}
    for bits in product(BITS, repeat=3):
        scheme = name_of(bits)
        scores["tiny", scheme] = folder / f"{scheme}.parquet"
        write_table(scores_of(bits).sample(fraction=1, shuffle=True, seed=sum(bits)), scores["tiny", scheme])
        checkpoints["tiny", scheme] = folder / scheme
        (folder / scheme).mkdir()
        size = 1000 + sum(100 * own for own in bits)
        (folder / scheme / "quantization.json").write_text(
            json.dumps({"bytes": {"weights_file": size}, "settings": {"calibrated_on": "unquantized"}})
        )
    return scores, checkpoints


def design_of(cells, name: str = "parts", aliases=None, factors=PARTS) -> dict:
    return {"name": name, "method": "hqq", "factors": factors, "cells": cells, "aliases": aliases}


def settings_of(*designs: dict) -> ComponentSettings:
    return ComponentSettings(designs, "bf16", ["maxprob"], 0.1, 10, "scenes", 100, 0, halvings=40, half_resamples=3)


WHOLE = [(name_of(bits), bits) for bits in product(BITS, repeat=3)]
# Two levels, the third factor the product of the first two: half of the eight cells.
HALF = [(name_of(bits), bits) for bits in ((3, 3, 16), (3, 16, 3), (16, 3, 3), (16, 16, 16))]


@pytest.fixture(scope="module")
def tables(study, tmp_path_factory) -> list[pl.DataFrame]:
    folder: Path = tmp_path_factory.mktemp("tables")
    outs = [folder / f"{name}.parquet" for name in ("grid", "importance", "interactions", "effects")]
    half = design_of(HALF, "half", ["connector x language", "vision x language", "vision x connector"])
    write_components(*study, outs, settings_of(design_of(WHOLE), half))
    return [read_table(path) for path in outs]


def test_the_grid_has_the_metrics_of_every_scheme_and_paired_differences(tables):
    grid = tables[0].filter(pl.col("design") == "parts")
    assert grid.height == 27 * 6
    scheme = name_of((16, 2, 3))
    test, val = (scores_of((16, 2, 3)).filter(pl.col("split") == split) for split in ("test", "val"))
    deployment = deploy(rank(val["quality"], val["maxprob"]), [0.1], [10])
    expected = summarise(rank(test["quality"], test["maxprob"]), [0.1], [10], deployment, True)
    base = scores_of((16, 16, 16)).filter(pl.col("split") == "test")["quality"].mean()
    for row in grid.filter(pl.col("scheme") == scheme).iter_rows(named=True):
        assert row["value"] == pytest.approx(expected[row["metric"], row["parameter"]])
        assert row["low"] <= row["value"] <= row["high"]
        assert row["bytes"] == 1000 + 100 * (16 + 2 + 3)
        assert row["calibrated_on"] == "unquantized"
        if row["metric"] == "accuracy":
            assert row["difference"] == pytest.approx(row["value"] - base)
            # Paired: what all schemes have in common cancels.
            assert row["difference_high"] - row["difference_low"] < row["high"] - row["low"]
            saved = (100 * 3 * 16 - 100 * (16 + 2 + 3)) / 1e6
            assert row["difference_per_mb"] == pytest.approx(row["difference"] / saved)
    reference = grid.filter(pl.col("scheme") == "bf16")
    assert reference["difference"].to_list() == [0] * 6
    assert reference["difference_per_mb"].null_count() == 6


def test_the_grid_says_the_bits_of_every_part_that_a_design_has(study, tables, tmp_path):
    for scheme, *bits in tables[0].select("scheme", *(f"{part}_bits" for part in PARTS)).unique().iter_rows():
        assert scheme == name_of(bits)
    scores, checkpoints = study
    cells = [("hqq-vision3", (3, 16)), ("hqq-language3", (16, 3)), ("bf16", (16, 16))]
    pair = design_of(cells, "pair", factors=["vision", "language, last third, mlp"])
    shown = [key for key in scores if key[1] in {scheme for scheme, _ in (*cells, *HALF)}]
    outs = [tmp_path / f"{name}.parquet" for name in "gixe"]
    half = design_of(HALF, "half", ["", "", ""])
    settings = settings_of(half, {**pair, "aliases": ["", ""]})
    write_components({key: scores[key] for key in shown}, {key: checkpoints[key] for key in shown}, outs, settings)
    bits = read_table(outs[0]).filter(metric="accuracy").select("design", "scheme", pl.col("^.*_bits$"))
    assert bits.columns[2:] == [*(f"{part}_bits" for part in PARTS), "language_last_third_mlp_bits"]
    assert bits.filter(design="pair").rows() == [
        ("pair", "hqq-vision3", 3, None, None, 16),
        ("pair", "hqq-language3", 16, None, None, 3),
        ("pair", "bf16", 16, None, None, 16),
    ]
    assert bits.filter(design="half")["language_last_third_mlp_bits"].null_count() == len(HALF)


def test_the_importance_command_takes_the_grid_as_the_report_has_it(tables, tmp_path, capsys):
    parquet, table, out = tmp_path / "grid.parquet", tmp_path / "grid.csv", tmp_path / "shares.json"
    write_table(tables[0], parquet)
    as_is.write(table, paths=[parquet])
    command = ["importance", str(table), "--metric", "accuracy", "--where", "design=parts", "--json", str(out)]
    assert main([*command, "--factors", *(f"{part}_bits" for part in PARTS)]) == 0
    first, *_ = json.loads(out.read_text())["strata"]
    assert (first["least_bits"], first["schemes"]) == (2, 27)
    own = tables[1].filter(metric="accuracy", least_bits=2)
    for part, share in own.select("factor", "share").iter_rows():
        # A table without single answers has the noise of its values in the shares.
        assert first["shapley"][f"{part}_bits"] == pytest.approx(share, abs=0.05)


def test_planted_parts_are_found_in_every_stratum(tables):
    shares = tables[1].filter(pl.col("metric") == "accuracy")
    assert shares["design"].unique().to_list() == ["parts"]
    for least, schemes in ((2, 27), (3, 8)):
        rows = {row["factor"]: row for row in shares.filter(pl.col("least_bits") == least).iter_rows(named=True)}
        assert {row["schemes"] for row in rows.values()} == {schemes}
        # Twice the effect is four times the variance.
        assert rows["vision"]["share"] == pytest.approx(0.8, abs=0.12)
        assert rows["language"]["share"] == pytest.approx(0.2, abs=0.12)
        assert [rows[part]["determined"] for part in PARTS] == [True, False, True]
        assert rows["vision"]["low"] <= rows["vision"]["share"] <= rows["vision"]["high"]
        assert rows["vision"]["sd_low"] < rows["vision"]["sd"] < rows["vision"]["sd_high"]
    # The standard deviation of the planted accuracies, in the metric's unit.
    lost = {2: 0.3, 3: 0.1, 16: 0.0}
    planted = np.std([lost[vision] + 0.5 * lost[language] for vision, language in product(BITS, BITS)])
    assert shares.filter(pl.col("least_bits") == 2)["sd"][0] == pytest.approx(planted, rel=0.25)


def test_interactions_are_named_and_sum_with_the_main_effects_to_the_whole(tables):
    shares, interactions = (table.filter(metric="accuracy", least_bits=2) for table in tables[1:3])
    named = dict(interactions.select("factors", "share").iter_rows())
    pairs = ["vision x connector", "vision x language", "connector x language"]
    assert list(named) == [*pairs, " x ".join(PARTS)]
    assert dict(interactions.select("factors", "order").iter_rows()) == dict(zip(named, (2, 2, 2, 3), strict=True))
    assert sum(named.values()) == pytest.approx(shares["interaction"][0])
    assert shares["main"].sum() + sum(named.values()) == pytest.approx(1)
    # none was planted
    assert all(abs(share) < 0.05 for share in named.values())


def test_a_fraction_has_main_effects_and_aliases_and_no_shares(tables):
    assert "half" not in tables[1]["design"]
    effects = tables[3].filter(pl.col("metric") == "accuracy")
    assert effects["design"].unique().to_list() == ["half"]
    rows = {row["factor"]: row for row in effects.iter_rows(named=True)}
    assert rows["vision"]["effect"] == pytest.approx(0.1, abs=0.04)
    assert rows["language"]["effect"] == pytest.approx(0.05, abs=0.03)
    assert rows["connector"]["low"] < 0.01
    assert rows["vision"]["low"] > 0
    assert rows["vision"]["aliases"] == "connector x language"


def test_the_same_seed_gives_the_same_bytes(study, tmp_path):
    paths = [[tmp_path / f"{run}{name}.parquet" for name in "gixe"] for run in (0, 1)]
    for outs in paths:
        write_components(*study, outs, settings_of(design_of(WHOLE)))
    assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]


def test_schemes_that_answer_other_questions_are_refused(study, tmp_path):
    scores, checkpoints = study
    other = tmp_path / "other.parquet"
    write_table(scores_of((2, 2, 3)).filter(pl.col("question_id") != "00899"), other)
    changed = scores | {("tiny", name_of((2, 2, 3))): other}
    outs = [tmp_path / f"{name}.parquet" for name in "gixe"]
    with pytest.raises(QuantrustError, match="hqq-vision2-connector2-language3: does not answer the same questions"):
        write_components(changed, checkpoints, outs, settings_of(design_of(WHOLE)))
    assert not any(path.exists() for path in outs)


def test_shares_are_told_for_a_metric_of_all_answers_together(study, tmp_path):
    checkpoints = study[1]
    cells = [(bits, name_of(bits)) for bits in product((3, 16), repeat=3)]
    paths = {}
    for bits, scheme in cells:
        paths["tiny", scheme] = tmp_path / f"{scheme}.parquet"
        # The connector alone moves it.
        answers = scores_of(bits)
        added = 1.0 + 0.5 * (bits[1] == 16) + 0.2 * np.random.default_rng(3).normal(size=answers.height)
        write_table(answers.with_columns(cider_d=pl.Series(added)), paths["tiny", scheme])
    outs = [tmp_path / f"{name}.parquet" for name in ("grid", "importance", "interactions", "effects")]
    design = design_of([(scheme, bits) for bits, scheme in cells])
    settings = replace(settings_of(design), corpus_metrics=["cider_d"])
    write_components(paths, {key: checkpoints[key] for key in paths}, outs, settings)
    grid, importance, _, effects = (read_table(path).filter(metric="cider_d") for path in outs)
    assert grid.height == len(cells)
    assert grid.filter(scheme=name_of((16, 3, 16)))["difference"].item() == pytest.approx(-0.5)
    shares = dict(importance.select("factor", "share").iter_rows())
    assert shares["connector"] == pytest.approx(1.0, abs=0.01)
    assert dict(importance.select("factor", "determined").iter_rows())["connector"]
    assert dict(effects.select("factor", "effect").iter_rows())["connector"] == pytest.approx(0.5)
