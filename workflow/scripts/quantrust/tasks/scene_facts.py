"""The facts that a caption of an embedded scene states, and how well they agree with those of other captions.

An item of a scene is mentioned by a symbol (a digit or a shape), in a part of the caption up to the next comma, full
stop or "and". It states three facts: that there is such a symbol, that a symbol of this kind has a colour, and that it
has a place. Synonyms state the same fact.
"""

import re
from collections import Counter
from collections.abc import Sequence

SYMBOLS = frozenset({*"0123456789", "circle", "square", "triangle", "cross", "diamond", "star"})
COLOURS = frozenset({"red", "orange", "yellow", "green", "blue", "purple", "pink", "white"})
VERTICALS = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
SIDES = frozenset({"left", "right"})

_PART = re.compile(r"[,.;!?]|\band\b")
_WORD = re.compile(r"[a-z]+|\d+")

Fact = tuple[str, ...]
"""A symbol alone, or with its colour, or with its place."""


def facts_of(caption: str) -> Counter[Fact]:
    """Return the facts that a caption states, with how often it states each.

    A part of the caption in which the symbol, the colour or the place is missing, or stands twice, states fewer facts:
    without one symbol none, and without one colour or one place those that are left.

    Parameters
    ----------
    caption : str
        In any case. Other words than those of the scenes are passed over.

    Returns
    -------
    collections.Counter

    Examples
    --------
    >>> sorted(facts_of("I see a red 3 at the top left, a star in blue in the lower right corner."))
    [('3',), ('3', 'red'), ('3', 'top left'), ('star',), ('star', 'blue'), ('star', 'bottom right')]
    >>> facts_of("a red thing, a 3 or an 8.")
    Counter()
    """
    facts: Counter[Fact] = Counter()
    for part in _PART.split(caption.lower()):
        words = _WORD.findall(part)
        symbol = _only([word for word in words if word in SYMBOLS])
        if symbol is None:
            continue
        colour = _only([word for word in words if word in COLOURS])
        vertical = _only([VERTICALS[word] for word in words if word in VERTICALS])
        side = _only([word for word in words if word in SIDES])
        facts[(symbol,)] += 1
        if colour is not None:
            facts[symbol, colour] += 1
        if vertical is not None and side is not None:
            facts[symbol, f"{vertical} {side}"] += 1
    return facts


def _only(words: Sequence[str]) -> str | None:
    return words[0] if len(words) == 1 else None


def fact_f1(stated: Counter[Fact], right: Counter[Fact]) -> float:
    """Return the harmonic mean of precision and recall of stated facts against right ones.

    Parameters
    ----------
    stated, right : collections.Counter
        As `facts_of` returns them.

    Returns
    -------
    float
        In [0, 1]; 1 where there are no facts on either side.

    Notes
    -----
    The measure that Anderson et al., "SPICE: Semantic Propositional Image Caption Evaluation" (ECCV 2016), take over
    objects, attributes and relations; here the facts are read by the words of the scenes.

    Examples
    --------
    >>> fact_f1(facts_of("a red 3 at the top left."), facts_of("a red 3 at the top right."))
    0.6666666666666666
    """
    total = stated.total() + right.total()
    return 2 * (stated & right).total() / total if total else 1.0
