"""A study of components: a grid of schemes beside the study's own, and what another level of it computes."""

from collections import Counter

import polars as pl
import pytest

pytestmark = pytest.mark.slow

MODEL = "adversary"
GRID = {
    "methods": ["hqq"],
    "group": 32,
    "symmetric": False,
    "levels": [3, 16],
    "factors": [{"component": "vision"}, {"component": "language"}],
}
SHOWN = Counter(
    weigh_components=1,
    tabulate_grid=1,
    tabulate_importance=1,
    tabulate_effects=1,
    tabulate_published_importance=1,
    part_importance=1,
    grid_heatmaps=1,
    grid_interactions=1,
    mixed_precision=1,
    build_page=1,
)


def of_cells(count: int) -> Counter:
    return Counter(quantize_model=count, dump_features=count, score_in_distribution=count)


def test_a_grid_is_computed_once_and_another_level_adds_its_own_cells_alone(scratch) -> None:
    scratch.change("factorial", "parts", value=GRID)
    # Four cells, one of which is the unquantized scheme. Scores need a Selector where the study has one.
    selectors = Counter(train_selector=3)
    assert scratch.plan()[0] == of_cells(3) + selectors + SHOWN + Counter(part_effects=1)
    scratch.run()
    tables = scratch.folder / "reports" / "tables"
    grid = pl.read_csv(tables / "grid.csv")
    schemes = ["bf16", "hqq-g32-language3", "hqq-g32-vision3", "hqq-g32-vision3-language3"]
    assert sorted(grid["scheme"].unique()) == schemes
    sizes = dict(grid.select("scheme", "bytes").unique().iter_rows())
    assert sizes["hqq-g32-vision3-language3"] < min(sizes["hqq-g32-vision3"], sizes["hqq-g32-language3"])
    importance = pl.read_csv(tables / "importance.csv")
    assert importance["factor"].unique().sort().to_list() == ["language", "vision"]
    assert importance["least_bits"].unique().to_list() == [3]
    for name in ("part_importance", "grid_heatmaps", "grid_interactions", "part_effects", "mixed_precision"):
        assert (scratch.folder / "reports" / f"{name}.pdf").stat().st_size > 1000
    assert scratch.plan() == (Counter(), set())

    scratch.change("factorial", "parts", "levels", value=[2, 3, 16])
    assert scratch.plan()[0] == of_cells(5) + Counter(train_selector=5) + SHOWN
