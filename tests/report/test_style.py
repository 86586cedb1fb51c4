"""Series of schemes, and a palette that stays apart for colour-blind readers."""

import itertools

import numpy as np
import pytest

from quantrust.report import style


def test_schemes_that_differ_in_bits_alone_are_one_series() -> None:
    names = ["bf16", "mbq-w3g64", "mbq-w8g64", "hqq-w4g64", "mbq-w4g64-full", "mbq-w4cs-mixed"]
    found = style.quantized_series(names)
    assert [(series.label, schemes) for series, schemes in found.items()] == [
        ("MBQ, groups of 64, language model", {8: "mbq-w8g64", 3: "mbq-w3g64"}),
        ("HQQ, groups of 64, language model", {4: "hqq-w4g64"}),
        ("MBQ, groups of 64, all components", {4: "mbq-w4g64-full"}),
        ("MBQ, per channel, symmetric, 8 bits outside the language model", {4: "mbq-w4cs-mixed"}),
    ]


def test_the_presets_stay_two_series_at_eight_bits() -> None:
    found = style.quantized_series(["mbq-w8g64-mixed", "mbq-w8g64-full", "mbq-w4g64-mixed"])
    assert [list(schemes.values()) for schemes in found.values()] == [
        ["mbq-w8g64-mixed", "mbq-w4g64-mixed"],
        ["mbq-w8g64-full"],
    ]


# Viénot, Brettel and Mollon (1999): what a dichromat sees, as a matrix on linear RGB.
DICHROMATS = {
    "protanope": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranope": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("matrix", DICHROMATS.values(), ids=DICHROMATS)
def test_colours_of_bits_stay_apart_for_dichromats(matrix: list[list[float]]) -> None:
    colours = [style.UNQUANTIZED_COLOUR, *(style.BIT_COLOURS[bits] for bits in (8, 4, 3, 2))]
    rgb = np.array([[int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] for colour in colours])
    seen = np.clip(rgb**2.2 @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(first - second) > 0.15
