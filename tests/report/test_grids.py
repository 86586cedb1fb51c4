"""Figures of grids of schemes: what they show of made-up tables, and what they say where there is nothing to show."""

from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from quantrust.artifacts.tables import read_table, write_table
from quantrust.evaluation.components import EFFECTS_SCHEMA, IMPORTANCE_SCHEMA, GridDesign, grid_schema
from quantrust.report.figures import grid_heatmaps, grid_interactions, importance, mixed_precision, part_effects
from quantrust.report.figures.grids import GridSettings
from quantrust.report.figures.parts import LETTERS

PARTS = ["vision", "language"]
BITS = (2, 3, 16)
MODULES = (importance, grid_heatmaps, grid_interactions, part_effects, mixed_precision)
INPUTS = {importance: "importance_path", part_effects: "effects_path"}


def name_of(bits) -> str:
    return "bf16" if set(bits) == {16} else f"hqq-g64-vision{bits[0]}-language{bits[1]}"


def value_of(bits) -> float:
    return 0.9 - 0.3 * (bits[0] == 2) - 0.1 * (bits[1] == 2) - 0.05 * (bits[1] == 3)


def design_of(levels, name="parts", aliases=None) -> dict:
    cells = [[name_of(bits), list(bits)] for bits in product(levels, repeat=2)]
    return {"name": name, "method": "hqq", "factors": PARTS, "cells": cells, "aliases": aliases}


def settings_of(*designs: dict) -> GridSettings:
    return GridSettings(designs, "scenes", "maxprob", 0.05, 0.95)


KEYS = (("accuracy", None), ("coverage_at_risk", 0.05), ("aurc", None), ("ece", None))
HEAD = {"model": "tiny", "method": "hqq", "estimator": "maxprob"}


@pytest.fixture
def tables(tmp_path) -> dict[str, Path]:
    """Tables of a grid of three levels and of one of two."""
    grid, shares, effects = [], [], []
    schema = grid_schema([GridDesign(**design_of(BITS))])
    for name, parameter in KEYS:
        where = {**HEAD, "metric": name, "parameter": parameter}
        for design, levels in (("parts", BITS), ("two", (3, 16))):
            for bits in product(levels, repeat=2):
                value = value_of(bits)
                numbers = {"value": value, "low": value - 0.02, "high": value + 0.01, "bytes": 1000 * sum(bits)}
                # the reference is no further from itself than nothing
                reach = 0.0 if bits == (16, 16) else 0.013 if name == "accuracy" else 0.04
                numbers |= {"difference": 0.1, "difference_low": 0.1 - reach, "difference_high": 0.1 + reach}
                grid.append(dict.fromkeys(schema) | where | numbers | {"design": design, "scheme": name_of(bits)})
            for least, part in product(levels[:-1], PARTS):
                numbers = {"share": 0.8 if part == "vision" else 0.2, "low": 0.1, "high": 0.9, "sd": 0.125}
                stratum = {"least_bits": least, "factor": part, "determined": part == "vision", "design": design}
                stratum["equal_levels"] = True
                shares.append(dict.fromkeys(IMPORTANCE_SCHEMA) | where | numbers | stratum)
        for part, effect in zip(PARTS, (0.0, 0.05), strict=True):
            numbers = {"factor": part, "effect": effect, "low": effect - 0.01, "high": effect + 0.01, "design": "two"}
            effects.append(dict.fromkeys(EFFECTS_SCHEMA) | where | numbers)
    made = {}
    for name, rows, columns in (
        ("grid_path", grid, schema),
        ("importance_path", shares, IMPORTANCE_SCHEMA),
        ("effects_path", effects, EFFECTS_SCHEMA),
    ):
        made[name] = tmp_path / f"{name}.parquet"
        write_table(pl.DataFrame(rows, schema=columns), made[name])
    return made


def draw(module, settings: GridSettings, tables: dict[str, Path], folder: Path) -> tuple[Path, Path]:
    files = folder / "f.pdf", folder / "f.png"
    name = INPUTS.get(module, "grid_path")
    module.draw(*files, settings, **{name: tables[name]})
    return files


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    for module in MODULES:
        own = module.save_figure
        monkeypatch.setattr(
            module, "save_figure", lambda figure, pdf, png, own=own: (saved.append(figure), own(figure, pdf, png))
        )
    return saved


def texts_of(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_heat_maps_have_the_value_of_every_cell(tables, tmp_path, drawn) -> None:
    draw(grid_heatmaps, settings_of(design_of(BITS)), tables, tmp_path)
    accuracy = drawn[0].axes[0]
    assert texts_of(accuracy) == [f"{100 * value_of(bits):.1f}" for bits in product(BITS, repeat=2)]
    np.testing.assert_allclose(accuracy.images[0].get_array()[0], [value_of((2, bits)) for bits in BITS])
    assert (accuracy.get_ylabel(), accuracy.get_xlabel()) == ("bits of vision", "bits of language")


def test_heat_maps_say_what_difference_the_questions_settle(tables, tmp_path, drawn) -> None:
    draw(grid_heatmaps, settings_of(design_of(BITS)), tables, tmp_path)
    note = drawn[0].get_suptitle()
    assert "reach 1.3 points (Accuracy) and 4.0 points (C@5 %) to either side" in " ".join(note.split())
    # the whole note is seen
    assert max(map(len, note.splitlines())) <= LETTERS


def test_shares_that_are_not_determined_are_hollow(tables, tmp_path, drawn) -> None:
    draw(importance, settings_of(design_of(BITS)), tables, tmp_path)
    accuracy = drawn[0].axes[0]
    points = [line for line in accuracy.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == [0.8, 0.2, 0.8, 0.2]
    hollow = [line.get_markerfacecolor() == "white" for line in points]
    assert hollow == [False, True, False, True]
    assert texts_of(accuracy) == ["sd 12", "sd 12"]
    labels = [label.get_text() for label in accuracy.get_yticklabels()]
    assert labels == ["2 bits or more", *PARTS, "3 bits or more", *PARTS]
    # each name stands at the line of its share
    places = dict(zip(accuracy.get_yticks(), labels, strict=True))
    assert [places[line.get_ydata()[0]] for line in points] == [*PARTS, *PARTS]


def test_strata_of_unequal_levels_are_marked(tables, tmp_path, drawn) -> None:
    equal = pl.col("least_bits") > 2
    table = read_table(tables["importance_path"]).with_columns(equal_levels=equal)
    write_table(table, tmp_path / "unequal.parquet")
    draw(importance, settings_of(design_of(BITS)), {"importance_path": tmp_path / "unequal.parquet"}, tmp_path)
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert labels == ["2 bits or more*", *PARTS, "3 bits or more", *PARTS]
    note = drawn[0].legends[0].get_title().get_text()
    assert "*: one part has bits that another lacks" in " ".join(note.split())


def test_a_grid_with_two_levels_of_one_part_and_three_of_the_other_has_lines_and_no_main_effects(
    tables, tmp_path, drawn
) -> None:
    cells = [[name_of(bits), list(bits)] for bits in product((3, 16), BITS)]
    uneven = settings_of(design_of(BITS) | {"cells": cells})
    draw(grid_interactions, uneven, tables, tmp_path)
    assert [list(line.get_xdata()) for line in drawn[0].axes[0].lines] == 2 * [[0, 1, 2]]
    draw(part_effects, uneven, tables, tmp_path)
    assert "no grid of two levels" in drawn[1].texts[0].get_text()
    draw(mixed_precision, uneven, tables, tmp_path)
    labels = [text.get_text() for text in drawn[2].legends[0].get_texts()]
    assert [label for label in labels if label.startswith("all parts")] == ["all parts 3 bits", "all parts 16 bits"]


def test_lines_of_interaction_are_means_by_the_bits_of_the_first_part(tables, tmp_path, drawn) -> None:
    draw(grid_interactions, settings_of(design_of(BITS)), tables, tmp_path)
    lines = drawn[0].axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [
        [pytest.approx(value_of((first, last))) for last in BITS] for first in BITS
    ]
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["vision: 2 bits", "vision: 3 bits", "vision: as it is"]


def test_the_best_mixed_scheme_for_every_budget_is_named(tables, tmp_path, drawn) -> None:
    draw(mixed_precision, settings_of(design_of(BITS)), tables, tmp_path)
    # Of 4,000 bytes 2-2 is all there is; of 6,000 3-3 is the best; of 32,000 the cheaper 3-16 is as good as 16-16.
    assert texts_of(drawn[0].axes[0]) == ["3-16"]


def test_main_effects_are_told_of_grids_of_two_levels(tables, tmp_path, drawn) -> None:
    draw(part_effects, settings_of(design_of(BITS), design_of((3, 16), "two")), tables, tmp_path)
    assert len(drawn[0].axes) == 2
    assert [bar.get_width() for bar in drawn[0].axes[0].patches] == pytest.approx([0, 5])
    assert drawn[0].axes[0].get_xlabel() == "points lost at 3 bits"


@pytest.mark.parametrize("module", [importance, grid_heatmaps, grid_interactions, mixed_precision])
def test_a_study_of_fractions_says_that_it_has_nothing_else(tables, tmp_path, module) -> None:
    _, png = draw(module, settings_of(design_of((3, 16), "two", ["a", "b"])), tables, tmp_path)
    assert Image.open(png).size == (1400, 200)


@pytest.mark.parametrize("module", MODULES)
def test_the_same_tables_give_the_same_bytes(tables, tmp_path, module) -> None:
    settings = settings_of(design_of(BITS), design_of((3, 16), "two"))
    first = [path.read_bytes() for path in draw(module, settings, tables, tmp_path)]
    assert [path.read_bytes() for path in draw(module, settings, tables, tmp_path)] == first
