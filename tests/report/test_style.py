"""Series of schemes, and a palette that stays apart for colour-blind readers."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from quantrust.report import style


def test_schemes_that_differ_in_bits_alone_are_one_series() -> None:
    names = ["mbq-w3g64", "bf16", "mbq-w8g64", "hqq-w4g64", "mbq-w4g64-full", "mbq-w4cs-mixed"]
    shown = style.looks(names)
    assert [(look.series.label if look.series else None, look.name) for look in shown] == [
        (None, "bf16"),
        ("MBQ, groups of 64, language model", "mbq-w8g64"),
        ("MBQ, groups of 64, language model", "mbq-w3g64"),
        ("HQQ, groups of 64, language model", "hqq-w4g64"),
        ("MBQ, groups of 64, all components", "mbq-w4g64-full"),
        ("MBQ, per channel, symmetric, 8 bits outside the language model", "mbq-w4cs-mixed"),
    ]
    # Three series of one method cannot share its marker.
    assert len({look.marker for look in shown}) == 5


def test_the_presets_stay_two_series_at_eight_bits() -> None:
    found = style.by_series(style.looks(["mbq-w8g64-mixed", "mbq-w8g64-full", "mbq-w4g64-mixed"]))
    assert [[look.name for look in looks] for looks in found.values()] == [
        ["mbq-w8g64-mixed", "mbq-w4g64-mixed"],
        ["mbq-w8g64-full"],
    ]


def test_schemes_that_the_config_names_are_told_apart_by_colour() -> None:
    shown = style.looks(["bf16", "early-blocks", "mbq-w4g64", "late-blocks"])
    named = [look for look in shown if look.series == style.NAMED]
    assert [look.label for look in named] == ["early-blocks", "late-blocks"]
    assert len({look.colour for look in shown}) == 4
    assert [look.bits for look in named] == [None, None]


# Viénot, Brettel and Mollon (1999): what a dichromat sees, as a matrix on linear RGB.
DICHROMATS = {
    "protanope": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranope": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


BITS = (8, 4, 3, 2)


def page_colours() -> dict[str, dict[str, str]]:
    """Return the page's colours by name, in both of its looks."""
    text = (Path(style.__file__).parent / "page" / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", root))
        for root in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    )
    return {"light page": light, "dark page": dark}


def colours_of(palette: str) -> list[str]:
    """Return the colours of the unquantized model and of bits, in figures or on the page in one of its looks."""
    if palette == "figures":
        return [style.UNQUANTIZED_COLOUR, *(style.BIT_COLOURS[bits] for bits in BITS)]
    look = page_colours()[palette]
    return [look["ink"], *(look[f"bits-{bits}"] for bits in BITS)]


@pytest.mark.parametrize("palette", ["figures", "light page", "dark page"])
@pytest.mark.parametrize("matrix", DICHROMATS.values(), ids=DICHROMATS)
def test_colours_of_bits_stay_apart_for_dichromats(matrix: list[list[float]], palette: str) -> None:
    assert_apart(colours_of(palette), matrix)


@pytest.mark.parametrize("look", ["light page", "dark page"])
@pytest.mark.parametrize("matrix", DICHROMATS.values(), ids=DICHROMATS)
def test_colours_of_verdicts_stay_apart_for_dichromats(matrix: list[list[float]], look: str) -> None:
    assert_apart([page_colours()[look][name] for name in ("good", "bad", "open")], matrix)


def assert_apart(colours: list[str], matrix: list[list[float]]) -> None:
    """Assert that those who lack a kind of cone tell the colours apart."""
    rgb = np.array([[int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] for colour in colours])
    seen = np.clip(rgb**2.2 @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(first - second) > 0.15
