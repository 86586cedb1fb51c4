"""Captions that five people write of one scene, and that differ: in wording, in order, and in what they mention.

Each of the five sees the scene as one of its annotators does, so that they disagree over colours, digits and shapes
where the picture is ambiguous. Each then has an opening, an order and a wording of their own, and some leave items out.
Every item that is mentioned has its colour, its symbol and its place in the words of
`quantrust.tasks.scene_facts`, which reads the facts from a caption again.
"""

from collections.abc import Sequence

import numpy as np

from quantrust.embedded.scenes import SIZE, Percept

CAPTIONERS = 5
"""People who write a caption of each scene: the first of its annotators."""
NAMED = (1.0, 0.85, 0.6)
"""Probability with which a thorough, an ordinary and a brief person mention an item that they see."""
OPENINGS = ("", "", "", "there is ", "i see ", "the picture shows ")
WORDINGS = ("{a_colour} {symbol} {place}", "{a_symbol} in {colour} {place}", "{place} {a_colour} {symbol}")
PLACES = ("at the {vertical} {side}", "in the {vertical} {side} corner", "{vertical} {side}")
VERTICALS = {"top": ("top", "top", "upper"), "bottom": ("bottom", "bottom", "lower")}
JOINTS = (", ", ", ", " and ")
NOTHING = "an empty picture"
# The first order is that of reading. The last one is no order.
ORDERS = ("rows", "rows", "rows", "columns", "rows upwards", "digits first", "shapes first", "any")


def people_s_caption(percepts: Sequence[Percept], rng: np.random.Generator) -> str:
    """Write the caption of one person.

    Parameters
    ----------
    percepts : sequence of Percept
        The scene as the person sees it.
    rng : numpy.random.Generator
        Of this person and picture.

    Returns
    -------
    str
        A sentence in lower case that names at least one item, unless none is visible.
    """
    named = NAMED[int(rng.integers(len(NAMED)))]
    visible = [percept for percept in percepts if percept.visible]
    kept = [percept for percept in visible if rng.random() < named]
    if visible and not kept:
        kept = [visible[int(rng.integers(len(visible)))]]
    if not kept:
        return f"{NOTHING}."
    opening, wording = _pick(OPENINGS, rng), _pick(WORDINGS, rng)
    place, joint = _pick(PLACES, rng), _pick(JOINTS, rng)
    verticals = {name: _pick(words, rng) for name, words in VERTICALS.items()}
    parts = [_item(percept, wording, place, verticals) for percept in _ordered(kept, _pick(ORDERS, rng), rng)]
    return f"{opening}{joint.join(parts)}."


def _pick(values: Sequence[str], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


def _ordered(percepts: list[Percept], order: str, rng: np.random.Generator) -> list[Percept]:
    if order == "any":
        return [percepts[int(k)] for k in rng.permutation(len(percepts))]
    keys = {
        "rows": lambda p: (p.row, p.column),
        "columns": lambda p: (p.column, p.row),
        "rows upwards": lambda p: (-p.row, p.column),
        "digits first": lambda p: (not p.is_digit, p.row, p.column),
        "shapes first": lambda p: (p.is_digit, p.row, p.column),
    }
    return sorted(percepts, key=keys[order])


def _item(percept: Percept, wording: str, place: str, verticals: dict[str, str]) -> str:
    vertical = verticals["top" if percept.y < SIZE / 2 else "bottom"]
    return wording.format(
        colour=percept.colour,
        symbol=percept.symbol,
        a_colour=_with_article(percept.colour),
        a_symbol=_with_article(percept.symbol),
        place=place.format(vertical=vertical, side="left" if percept.x < SIZE / 2 else "right"),
    )


def _with_article(word: str) -> str:
    # "eight" begins with a vowel too
    return f"{'an' if word[0] in 'aeiou8' else 'a'} {word}"
