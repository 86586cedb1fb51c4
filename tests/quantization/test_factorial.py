"""Grids of schemes: their cells, names, tables and fractions, and what is wrong with them."""

import copy
import re
from itertools import product

import pytest

from quantrust.evaluation.components import GridDesign
from quantrust.quantization.factorial import (
    Design,
    designs_of,
    factorial_faults,
    grid_schemes,
    grid_tables,
    grids_for_tables,
)
from quantrust.quantization.scheme import UNQUANTIZED, resolve_scheme

PARTS = [{"component": part} for part in ("vision", "connector", "language")]
BLOCKS = [
    {"component": "language", "third": third, "layer_type": kind}
    for third, kind in product(("first", "middle", "last"), ("attention", "mlp"))
]
SECTION = {"methods": ["hqq"], "group": 64, "symmetric": False, "levels": [2, 3, 4, 16], "factors": PARTS}


def config_of(**sections: dict) -> dict:
    return {"factorial": sections}


def test_a_full_grid_has_every_combination_and_the_unquantized_scheme_once():
    design = Design("parts", "hqq", 64, False, PARTS, 3 * [[2, 3, 4, 16]])
    assert design.cells() == list(product((2, 3, 4, 16), repeat=3))
    names = [design.scheme(cell) for cell in design.cells()]
    assert len(set(names)) == 64
    assert names[-1] == UNQUANTIZED
    assert design.scheme((2, 16, 4)) == "hqq-g64-vision2-language4"
    assert Design("parts", "rtn", "channel", True, PARTS, 3 * [[3, 16]]).scheme((16, 3, 16)) == "rtn-cs-connector3"


def test_a_cell_gives_bits_to_its_parts_and_leaves_all_else_as_it_is():
    design = Design("blocks", "hqq", 64, False, BLOCKS, 6 * [[3, 16]])
    cell = (3, 16, 16, 16, 16, 3)
    name = design.scheme(cell)
    assert name == "hqq-g64-language-first-attention3-last-mlp3"
    scheme = resolve_scheme(name, design.table(cell))
    assert scheme.row_of("language", "first", "attention").bits == 3
    assert scheme.row_of("language", "last", "mlp").bits == 3
    assert scheme.row_of("language", "first", "mlp") is None
    assert scheme.components == ("language",)
    # Names of files: the longest of a grid of six parts.
    assert max(len(design.scheme(one)) for one in design.cells()) <= 120
    assert design.labels[0] == "language, first third, attention"


def test_a_grid_says_what_the_methods_by_hessians_are_calibrated_on_and_its_schemes_are_others_then():
    section = SECTION | {"methods": ["hqq", "gptq"], "calibrated_on": "unquantized"}
    tables = grid_tables(config_of(parts=section))
    assert {name: table.get("calibrated_on") for name, table in tables.items() if name.endswith("vision2")} == {
        "hqq-g64-vision2": None,
        "gptq-g64u-vision2": "unquantized",
    }
    scheme = resolve_scheme("gptq-g64u-vision2", tables["gptq-g64u-vision2"])
    assert scheme.settings()["calibrated_on"] == "unquantized"
    (fault,) = factorial_faults(config_of(parts=SECTION | {"calibrated_on": "unquantized"}))
    assert fault.startswith("factorial.parts.calibrated_on is given, but none of hqq quantizes by Hessians")


def test_grids_share_the_schemes_that_they_have_in_common():
    two = copy.deepcopy(SECTION) | {"factors": [PARTS[0], PARTS[2]]}
    config = config_of(parts=SECTION, two=two)
    names = grid_schemes(config)
    assert names[0] == UNQUANTIZED
    assert len(names) == len(set(names)) == 64
    assert set(grid_tables(config)) == set(names) - {UNQUANTIZED}
    both = config_of(parts=SECTION | {"methods": ["hqq", "gptq"]})
    assert len(grid_schemes(both)) == 127


def test_a_fraction_has_the_cells_in_which_its_generators_hold():
    design = Design("half", "hqq", 64, False, BLOCKS, 6 * [[3, 16]], [[6, 1, 2, 3]])
    cells = design.cells()
    assert len(cells) == len(set(cells)) == 32
    for cell in cells:
        signs = [1 if bits == 16 else -1 for bits in cell]
        assert signs[5] == signs[0] * signs[1] * signs[2]
    # Every level of every factor as often as the other.
    assert all(sum(cell[place] == 3 for cell in cells) == 16 for place in range(6))
    assert design.scheme(cells[-1]) == UNQUANTIZED


def test_aliases_are_the_products_with_all_words_of_the_defining_relation():
    quarter = Design("quarter", "hqq", 64, False, BLOCKS, 6 * [[3, 16]], [[5, 1, 2], [6, 1, 3]])
    # I = 125 = 136 = 2356: factor 1 is mixed up with 25, 36 and 12356, counted from one.
    first, second, third, fourth, fifth, sixth = quarter.labels
    assert list(quarter.aliases()) == quarter.labels
    assert quarter.aliases()[first] == [
        *(f"{second} x {fifth}", f"{third} x {sixth}"),
        f"{first} x {second} x {third} x {fifth} x {sixth}",
    ]
    assert quarter.aliases()[fourth][0] == f"{first} x {second} x {fourth} x {fifth}"
    assert len(quarter.cells()) == 16
    (grid,) = grids_for_tables(
        config_of(quarter=SECTION | {"factors": BLOCKS, "levels": [3, 16], "fraction": [[5, 1, 2], [6, 1, 3]]})
    )
    assert grid["aliases"][0].split("; ") == quarter.aliases()[first]
    assert Design("whole", "hqq", 64, False, BLOCKS, 6 * [[3, 16]]).aliases()[first] == []


def test_a_factor_may_have_levels_of_its_own():
    factors = [PARTS[0], PARTS[1], PARTS[2] | {"levels": [16, 4, 3]}]
    (design,) = designs_of(config_of(parts=SECTION | {"factors": factors}))
    assert design.levels == [[2, 3, 4, 16], [2, 3, 4, 16], [3, 4, 16]]
    assert design.cells() == list(product((2, 3, 4, 16), (2, 3, 4, 16), (3, 4, 16)))
    assert design.table((16, 16, 3))["table"] == [{"component": "language", "bits": 3}]
    (grid,) = (GridDesign(**given) for given in grids_for_tables(config_of(parts=SECTION | {"factors": factors})))
    assert grid.levels == design.levels
    own = [part | {"levels": [3, 16]} for part in PARTS]
    without = {key: value for key, value in SECTION.items() if key != "levels"}
    assert [*factorial_faults(config_of(parts=without | {"factors": own}))] == []
    (fault,) = factorial_faults(config_of(parts=SECTION | {"factors": own}))
    assert fault.startswith("factorial.parts.levels is given, but every factor has its own")
    (fault,) = factorial_faults(config_of(parts=without | {"factors": [*own[:2], PARTS[2]], "fraction": [[3, 1, 2]]}))
    assert fault.startswith("factorial.parts.factors[2] has no levels")


def test_a_fraction_takes_each_factor_s_own_two_levels():
    factors = [PARTS[0], PARTS[1], PARTS[2] | {"levels": [4, 16]}]
    section = SECTION | {"levels": [3, 16], "factors": factors, "fraction": [[3, 1, 2]]}
    (design,) = designs_of(config_of(half=section))
    assert design.cells() == [(3, 3, 16), (3, 16, 4), (16, 3, 4), (16, 16, 16)]
    assert [*factorial_faults(config_of(half=section))] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": [2, 3]}, "levels is .2, 3.; allowed: at least two numbers of bits, 16 among them"),
        (
            {"factors": [PARTS[0], PARTS[2] | {"levels": [3, 4]}]},
            "factors.1..levels is .3, 4.; allowed: at least two numbers of bits, 16 among them",
        ),
        ({"factors": [PARTS[2], BLOCKS[0]]}, "factors.1. .* shares layers with .*no layer in common"),
        ({"factors": [PARTS[0], PARTS[0]]}, "factors.1. .* shares layers with"),
        ({"fraction": [[3, 1, 2]]}, "fraction is given beside 4 levels; allowed: with two levels only"),
        (
            {"levels": [3, 16], "fraction": [[4, 1, 2]]},
            "fraction.0. is .4, 1, 2.; allowed: different factors from 1 to 3",
        ),
        ({"levels": [3, 16], "fraction": [[3, 1, 1]]}, "fraction.0. is .3, 1, 1."),
        ({"levels": [3, 16], "fraction": [[3, 1, 2], [3, 1, 2]]}, "fraction gives a factor twice"),
    ],
)
def test_what_is_wrong_with_a_grid_is_said(change, message):
    faults = [*factorial_faults(config_of(parts=SECTION | change))]
    assert any(re.search(message, fault) for fault in faults), faults
    assert all(fault.startswith("factorial.parts") for fault in faults)
    assert [*factorial_faults(config_of(parts=SECTION))] == []
