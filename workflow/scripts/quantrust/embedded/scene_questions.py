"""Questions about scenes: what is asked, in which words, and what a person who sees the scene in some way answers.

A question is bound to items of the scene, not to words: the person who asks "what color is the 3?" means one item, and
each annotator reports the colour that they perceive it to have. Counting and existence are evaluated over all that the
annotator perceives. `KINDS` are the compositions of the in-distribution set, `RARE_KINDS` those that make up the
language shift and hardly occur in training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from quantrust.embedded.scenes import COLOURS, DIGITS, GRID, SHAPES, SIZE, Percept

Percepts = Sequence[Percept]
_Value = TypeVar("_Value")
UNANSWERABLE = "unanswerable"
GROUPS = {"digits": "digit", "shapes": "shape", "things": "thing"}


@dataclass(frozen=True)
class SceneQuestion:
    """A question about one scene.

    Attributes
    ----------
    kind : str
        A key of `KINDS` or `RARE_KINDS`, or "absent" for questions about something that is not there.
    text : str
        The wording.
    answer : callable
        Maps what a person perceives to the person's answer.
    referents : tuple of int
        Items that the question is about; a person who missed one cannot answer.
    """

    kind: str
    text: str
    answer: Callable[[Percepts], str]
    referents: tuple[int, ...] = ()


# Wordings by style. "plain" is in distribution, "language" the language shift, "chat" the multimodal shift.
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "exists": {
        "plain": ("is there a {what}?", "do you see a {what}?", "is a {what} in the picture?"),
        "language": ("can a {what} be found anywhere?", "does the picture contain a {what}?"),
        "chat": ("hi, can you tell me if there is a {what} here?", "is there a {what} in front of me? thanks"),
    },
    "colour": {
        "plain": ("what color is the {a}?", "what is the color of the {a}?", "which color does the {a} have?"),
        "language": ("the {a} is painted in which color?", "name the color of the {a}."),
        "chat": ("hi, what color is this {a} please?", "can you tell me what color the {a} is? thank you"),
    },
    "count": {
        "plain": ("how many {what} are there?", "how many {what} do you see?"),
        "language": ("what is the number of {what}?", "count the {what} in the picture."),
        "chat": ("hi, how many {what} are here please?", "can you tell me how many {what} there are?"),
    },
    "read": {
        "plain": ("what digit is {colour}?", "which digit is the {colour} one?", "what is the {colour} digit?"),
        "language": ("the digit in {colour} is which one?", "name the digit painted in {colour}."),
        "chat": ("hi, what does this {colour} digit say please?", "can you tell me what the {colour} digit is?"),
    },
    "shape": {
        "plain": ("what shape is {colour}?", "which shape is the {colour} one?", "what is the {colour} shape?"),
        "language": ("the shape in {colour} is which one?", "name the shape painted in {colour}."),
        "chat": ("hi, what is this {colour} shape please?", "can you tell me what the {colour} shape is?"),
    },
    "where": {
        "plain": ("where is the {a}?", "in which corner is the {a}?"),
        "language": ("the {a} can be found where?", "name the corner of the {a}."),
        "chat": ("hi, where is the {a} please?", "can you tell me where the {a} is?"),
    },
    "relation": {
        "plain": ("is the {a} {side} the {b}?", "does the {a} stand {side} the {b}?"),
        "language": ("compared to the {b}, is the {a} {side} it?", "can the {a} be found {side} the {b}?"),
        "chat": ("hi, is the {a} {side} the {b} please?", "can you tell me if the {a} is {side} the {b}?"),
    },
    "larger": {
        "plain": ("is the {a} larger than the {b}?", "is the {a} smaller than the {b}?"),
        "language": ("compared to the {b}, is the {a} larger?", "compared to the {b}, is the {a} smaller?"),
        "chat": ("hi, is the {a} larger than the {b}? thanks", "hi, is the {a} smaller than the {b}? thanks"),
    },
    "sum": {
        "plain": ("what is the {a} plus the {b}?", "what is the sum of the {a} and the {b}?"),
        "language": ("add the {a} to the {b}.", "the {a} and the {b} add up to what?"),
        "chat": ("hi, what is the {a} plus the {b} please?", "can you tell me the sum of the {a} and the {b}?"),
    },
    "extreme": {
        "plain": ("what is the {which} digit?", "which digit is the {which}?"),
        "language": ("of all digits, name the {which}.", "the {which} digit is which one?"),
        "chat": ("hi, what is the {which} digit please?", "can you tell me the {which} digit?"),
    },
    "neighbour": {
        "plain": ("what is {side} the {a}?", "what do you see {side} the {a}?"),
        "language": ("name the thing {side} the {a}.", "{side} the {a} stands what?"),
        "chat": ("hi, what is {side} the {a} please?", "can you tell me what is {side} the {a}?"),
    },
    "same": {
        "plain": ("do the {a} and the {b} have the same color?", "is the {a} of the same color as the {b}?"),
        "language": ("are the {a} and the {b} painted in one color?", "does the color of the {a} match the {b}?"),
        "chat": ("hi, are the {a} and the {b} the same color?", "do these two, the {a} and the {b}, match in color?"),
    },
    "corner": {
        "plain": ("what is in the {where} corner?", "what do you see in the {where}?"),
        "language": ("name the thing in the {where} corner.", "the {where} corner contains what?"),
        "chat": ("hi, what is this in the {where} please?", "can you tell me what is in the {where} corner?"),
    },
    "parity": {
        "plain": ("is the {a} even?", "is the {a} odd?"),
        "language": ("can the {a} be called even?", "can the {a} be called odd?"),
        "chat": ("hi, is this {a} even? thanks", "hi, is this {a} odd? thanks"),
    },
    "more": {
        "plain": ("are there more {what} than {other}?", "do you see more {what} than {other}?"),
        "language": ("compared to {other}, are there more {what}?", "does the number of {what} exceed the {other}?"),
        "chat": (
            "hi, are there more {what} than {other} here?",
            "can you tell me if there are more {what} than {other}?",
        ),
    },
    "count-except": {
        "plain": ("how many {what} are not {colour}?",),
        "language": ("how many {what} are not {colour}?", "not counting {colour} ones, how many {what} are there?"),
    },
    "exists-except": {
        "plain": ("is there a {what} that is not {colour}?",),
        "language": (
            "is there a {what} that is not {colour}?",
            "is any {what} painted in a color other than {colour}?",
        ),
    },
    "difference": {
        "plain": ("what is the difference of the {a} and the {b}?",),
        "language": (
            "what is the difference of the {a} and the {b}?",
            "how far apart are the {a} and the {b} in value?",
        ),
    },
    "colour-extreme": {
        "plain": ("what color is the {which} digit?",),
        "language": ("what color is the {which} digit?", "the {which} digit is painted in which color?"),
    },
    "count-parity": {
        "plain": ("how many digits are {parity}?",),
        "language": ("how many digits are {parity}?", "count the digits that are {parity}."),
    },
    "exists-relation": {
        "plain": ("is there a {what} {side} the {a}?",),
        "language": ("is there a {what} {side} the {a}?", "does any {what} stand {side} the {a}?"),
    },
}
SIDES: dict[str, Callable[[Percept, Percept], bool]] = {
    "left of": lambda a, b: a.x < b.x,
    "right of": lambda a, b: a.x > b.x,
    "above": lambda a, b: a.y < b.y,
    "below": lambda a, b: a.y > b.y,
}
STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def _quadrant(percept: Percept) -> str:
    return f"{'top' if percept.y < SIZE / 2 else 'bottom'} {'left' if percept.x < SIZE / 2 else 'right'}"


def _belongs(percept: Percept, group: str) -> bool:
    return group == "things" or percept.is_digit == (group == "digits")


def _digit(percept: Percept) -> int | None:
    return int(percept.symbol) if percept.is_digit else None


class _Writer:
    """Writes questions about one scene: holds what is true, the style, and the generator."""

    def __init__(self, truth: Percepts, style: str, rng: np.random.Generator) -> None:
        self.truth, self.style, self.rng = truth, style, rng

    def pick(self, values: Sequence[_Value]) -> _Value:
        return values[int(self.rng.integers(len(values)))]

    def word(self, kind: str, /, **slots: str) -> str:
        return str(self.pick(WORDINGS[kind][self.style])).format(**slots)

    def names(self, index: int, *, digits_by_colour: bool = False) -> list[str]:
        """Return the descriptions that fit item `index` and no other item."""
        me, names = self.truth[index], []
        if not digits_by_colour and sum(p.symbol == me.symbol for p in self.truth) == 1:
            names.append(me.symbol)
        group = "digits" if me.is_digit else "shapes"
        if sum(p.colour == me.colour and _belongs(p, group) for p in self.truth) == 1:
            names.append(f"{me.colour} {GROUPS[group]}")
        return names

    def named(self, group: str = "things", **options: bool) -> list[tuple[int, str]]:
        """Return (item, description) of the items of a group that can be described, in random order."""
        found = []
        for index in self.rng.permutation(len(self.truth)):
            names = self.names(int(index), **options)
            if _belongs(self.truth[index], group) and names:
                found.append((int(index), str(self.pick(names))))
        return found


def _exists(w: _Writer) -> SceneQuestion | None:
    present = w.rng.random() < 0.5
    if w.rng.random() < 0.5:
        symbols = [s for s in DIGITS + SHAPES if any(p.symbol == s for p in w.truth) == present]
        symbol = w.pick(symbols)
        return SceneQuestion(
            "exists", w.word("exists", what=symbol), lambda ps: _yes(any(p.visible and p.symbol == symbol for p in ps))
        )
    group = w.pick(["digits", "shapes"])
    colours = [c for c in COLOURS if any(p.colour == c and _belongs(p, group) for p in w.truth) == present]
    if not colours:
        return None
    colour = w.pick(colours)
    return SceneQuestion(
        "exists",
        w.word("exists", what=f"{colour} {GROUPS[group]}"),
        lambda ps: _yes(any(p.visible and p.colour == colour and _belongs(p, group) for p in ps)),
    )


def _colour(w: _Writer) -> SceneQuestion | None:
    candidates = [i for i, p in enumerate(w.truth) if sum(q.symbol == p.symbol for q in w.truth) == 1]
    if not candidates:
        return None
    i = w.pick(candidates)
    return SceneQuestion("colour", w.word("colour", a=w.truth[i].symbol), lambda ps: ps[i].colour, (i,))


def _count(w: _Writer) -> SceneQuestion:
    choice = w.rng.random()
    if choice < 0.4:
        group = w.pick(list(GROUPS))
        what, test = group, lambda p: _belongs(p, group)
    elif choice < 0.8:
        colour = w.pick([p.colour for p in w.truth] + [w.pick(COLOURS)])
        group = w.pick(["digits", "things", "shapes"])
        what, test = f"{colour} {group}", lambda p: p.colour == colour and _belongs(p, group)
    else:
        symbol = w.pick([p.symbol for p in w.truth] + [w.pick(SHAPES)])
        what, test = f"{symbol}{'es' if symbol == 'cross' else 's'}", lambda p: p.symbol == symbol
    return SceneQuestion("count", w.word("count", what=what), lambda ps: str(sum(p.visible and test(p) for p in ps)))


def _by_colour(kind: str, group: str) -> Callable[[_Writer], SceneQuestion | None]:
    def make(w: _Writer) -> SceneQuestion | None:
        found = w.named(group, digits_by_colour=True)
        if not found:
            return None
        i = found[0][0]
        return SceneQuestion(kind, w.word(kind, colour=w.truth[i].colour), lambda ps: ps[i].symbol, (i,))

    return make


def _where(w: _Writer) -> SceneQuestion | None:
    found = w.named()
    if not found:
        return None
    i, name = found[0]
    return SceneQuestion("where", w.word("where", a=name), lambda ps: _quadrant(ps[i]), (i,))


def _relation(w: _Writer) -> SceneQuestion | None:
    found = w.named()
    if len(found) < 2:
        return None
    (i, a), (j, b) = found[:2]
    horizontal = abs(w.truth[i].x - w.truth[j].x) >= abs(w.truth[i].y - w.truth[j].y)
    side = w.pick(["left of", "right of"] if horizontal else ["above", "below"])
    return SceneQuestion(
        "relation", w.word("relation", a=a, b=b, side=side), lambda ps: _yes(SIDES[side](ps[i], ps[j])), (i, j)
    )


def _digit_pair(w: _Writer) -> tuple[int, str, int, str] | None:
    found = w.named("digits", digits_by_colour=True)
    if len(found) < 2:
        return None
    return (*found[0], *found[1])


def _larger(w: _Writer) -> SceneQuestion | None:
    pair = _digit_pair(w)
    if pair is None:
        return None
    i, a, j, b = pair
    text = w.word("larger", a=a, b=b)
    sign = 1 if "larger" in text else -1
    # Someone who took a digit for something else compares it as zero.
    return SceneQuestion(
        "larger", text, lambda ps: _yes(sign * (_digit(ps[i]) or 0) > sign * (_digit(ps[j]) or 0)), (i, j)
    )


def _arithmetic(kind: str, combine: Callable[[int, int], int]) -> Callable[[_Writer], SceneQuestion | None]:
    def make(w: _Writer) -> SceneQuestion | None:
        pair = _digit_pair(w)
        if pair is None:
            return None
        i, a, j, b = pair
        return SceneQuestion(
            kind,
            w.word(kind, a=a, b=b),
            lambda ps: str(combine(_digit(ps[i]) or 0, _digit(ps[j]) or 0)),
            (i, j),
        )

    return make


def _extreme_item(percepts: Percepts, which: str) -> Percept | None:
    digits = [p for p in percepts if p.visible and p.is_digit]
    if not digits:
        return None
    return (max if which == "largest" else min)(digits, key=lambda p: int(p.symbol))


def _extreme(w: _Writer) -> SceneQuestion | None:
    if sum(p.is_digit for p in w.truth) < 2:
        return None
    which = w.pick(["largest", "smallest"])

    def answer(ps: Percepts) -> str:
        item = _extreme_item(ps, which)
        return item.symbol if item else UNANSWERABLE

    return SceneQuestion("extreme", w.word("extreme", which=which), answer)


def _colour_extreme(w: _Writer) -> SceneQuestion | None:
    if len({p.symbol for p in w.truth if p.is_digit}) < 2:
        return None
    which = w.pick(["largest", "smallest"])

    def answer(ps: Percepts) -> str:
        item = _extreme_item(ps, which)
        return item.colour if item else UNANSWERABLE

    return SceneQuestion("colour-extreme", w.word("colour-extreme", which=which), answer)


def _neighbour(w: _Writer) -> SceneQuestion | None:
    cells = {(p.row, p.column): k for k, p in enumerate(w.truth)}
    for i, name in w.named():
        sides = list(STEPS)
        w.rng.shuffle(sides)
        for side in sides:
            down, right = STEPS[side]
            j = cells.get((w.truth[i].row + down, w.truth[i].column + right))
            if j is not None:
                return SceneQuestion(
                    "neighbour", w.word("neighbour", a=name, side=side), lambda ps, j=j: ps[j].symbol, (i, j)
                )
    return None


def _same(w: _Writer) -> SceneQuestion | None:
    unique = [i for i, p in enumerate(w.truth) if sum(q.symbol == p.symbol for q in w.truth) == 1]
    if len(unique) < 2:
        return None
    pairs = [(i, j) for i in unique for j in unique if i < j]
    same = w.rng.random() < 0.5
    i, j = w.pick([(i, j) for i, j in pairs if (w.truth[i].colour == w.truth[j].colour) == same] or pairs)
    return SceneQuestion(
        "same",
        w.word("same", a=w.truth[i].symbol, b=w.truth[j].symbol),
        lambda ps: _yes(ps[i].colour == ps[j].colour),
        (i, j),
    )


def _corner(w: _Writer) -> SceneQuestion | None:
    last = GRID - 1
    corners = {(0, 0): "top left", (0, last): "top right", (last, 0): "bottom left", (last, last): "bottom right"}
    found = [(k, corners[p.row, p.column]) for k, p in enumerate(w.truth) if (p.row, p.column) in corners]
    if not found:
        return None
    i, where = w.pick(found)
    return SceneQuestion("corner", w.word("corner", where=where), lambda ps: ps[i].symbol, (i,))


def _parity(w: _Writer) -> SceneQuestion | None:
    found = w.named("digits", digits_by_colour=True)
    if not found:
        return None
    i, name = found[0]
    text = w.word("parity", a=name)
    return SceneQuestion(
        "parity", text, lambda ps: _yes((_digit(ps[i]) or 0) % 2 == (0 if "even" in text else 1)), (i,)
    )


def _more(w: _Writer) -> SceneQuestion:
    what, other = ("digits", "shapes") if w.rng.random() < 0.5 else ("shapes", "digits")
    if w.rng.random() < 0.5:
        first, second = (w.truth[int(k)].colour for k in w.rng.permutation(len(w.truth))[:2])
        if first != second:
            return SceneQuestion(
                "more",
                w.word("more", what=f"{first} things", other=f"{second} things"),
                lambda ps: _yes(
                    sum(p.visible and p.colour == first for p in ps) > sum(p.visible and p.colour == second for p in ps)
                ),
            )
    return SceneQuestion(
        "more",
        w.word("more", what=what, other=other),
        lambda ps: _yes(
            sum(p.visible and _belongs(p, what) for p in ps) > sum(p.visible and _belongs(p, other) for p in ps)
        ),
    )


def _count_except(w: _Writer) -> SceneQuestion:
    group, colour = w.pick(list(GROUPS)), w.pick([p.colour for p in w.truth])
    return SceneQuestion(
        "count-except",
        w.word("count-except", what=group, colour=colour),
        lambda ps: str(sum(p.visible and _belongs(p, group) and p.colour != colour for p in ps)),
    )


def _exists_except(w: _Writer) -> SceneQuestion | None:
    group = w.pick(["digits", "shapes"])
    colours = [p.colour for p in w.truth if _belongs(p, group)]
    # With a single colour in the group the answer is "no"; otherwise "yes" whatever colour is named.
    colour = w.pick(colours)
    return SceneQuestion(
        "exists-except",
        w.word("exists-except", what=GROUPS[group], colour=colour),
        lambda ps: _yes(any(p.visible and _belongs(p, group) and p.colour != colour for p in ps)),
    )


def _count_parity(w: _Writer) -> SceneQuestion:
    parity = w.pick(["even", "odd"])
    remainder = 0 if parity == "even" else 1
    return SceneQuestion(
        "count-parity",
        w.word("count-parity", parity=parity),
        lambda ps: str(sum(p.visible and p.is_digit and int(p.symbol) % 2 == remainder for p in ps)),
    )


def _exists_relation(w: _Writer) -> SceneQuestion | None:
    found = w.named()
    if not found:
        return None
    i, name = found[0]
    group, side = w.pick(["digits", "shapes"]), w.pick(list(SIDES))
    return SceneQuestion(
        "exists-relation",
        w.word("exists-relation", what=GROUPS[group], side=side, a=name),
        lambda ps: _yes(
            any(k != i and p.visible and _belongs(p, group) and SIDES[side](p, ps[i]) for k, p in enumerate(ps))
        ),
        (i,),
    )


KINDS: dict[str, Callable[[_Writer], SceneQuestion | None]] = {
    "exists": _exists,
    "colour": _colour,
    "count": _count,
    "read": _by_colour("read", "digits"),
    "shape": _by_colour("shape", "shapes"),
    "where": _where,
    "relation": _relation,
    "larger": _larger,
    "sum": _arithmetic("sum", lambda a, b: a + b),
    "extreme": _extreme,
    "neighbour": _neighbour,
    "same": _same,
    "corner": _corner,
    "parity": _parity,
    "more": _more,
}
RARE_KINDS: dict[str, Callable[[_Writer], SceneQuestion | None]] = {
    "count-except": _count_except,
    "exists-except": _exists_except,
    "difference": _arithmetic("difference", lambda a, b: abs(a - b)),
    "colour-extreme": _colour_extreme,
    "count-parity": _count_parity,
    "exists-relation": _exists_relation,
}


def ask(
    truth: Percepts, rng: np.random.Generator, n: int, *, style: str = "plain", rare: float = 0.0
) -> list[SceneQuestion]:
    """Write `n` different questions about one scene.

    Parameters
    ----------
    truth : sequence of Percept
        The scene as its author sees it.
    rng : numpy.random.Generator
    n : int
        Number of questions, all of different texts.
    style : {"plain", "language", "chat"}
        Wording.
    rare : float in [0, 1]
        Probability that a question is of one of `RARE_KINDS`.

    Returns
    -------
    list of SceneQuestion, length n
    """
    writer = _Writer(truth, style, rng)
    questions: dict[str, SceneQuestion] = {}
    order: list[str] = []
    while len(questions) < n:
        if rng.random() < rare:
            question = RARE_KINDS[str(writer.pick(list(RARE_KINDS)))](writer)
        else:
            if not order:
                # A pass over all kinds keeps the questions of one image different from each other.
                order = [list(KINDS)[int(k)] for k in rng.permutation(len(KINDS))]
            question = KINDS[order.pop()](writer)
        if question is not None:
            questions.setdefault(question.text, question)
    return list(questions.values())


def ask_about_absent(truth: Percepts, rng: np.random.Generator) -> SceneQuestion:
    """Write a conversational question about something that the scene does not hold; nobody can answer it."""
    writer = _Writer(truth, "chat", rng)
    if rng.random() < 0.5:
        absent = [s for s in DIGITS + SHAPES if all(p.symbol != s for p in truth)]
        text = writer.word(str(writer.pick(["colour", "where"])), a=str(writer.pick(absent)))
    else:
        group = str(writer.pick(["digits", "shapes"]))
        absent = [c for c in COLOURS if all(p.colour != c or not _belongs(p, group) for p in truth)]
        kind = "read" if group == "digits" else "shape"
        text = writer.word(kind, colour=str(writer.pick(absent)))
    return SceneQuestion("absent", text, lambda ps: UNANSWERABLE)


def caption(percepts: Percepts) -> str:
    """Return a sentence that describes the visible items in reading order, each with its corner."""
    parts = [
        f"{'an' if p.colour[0] in 'aeiou' else 'a'} {p.colour} {p.symbol} at the {_quadrant(p)}"
        for p in percepts
        if p.visible
    ]
    return ", ".join(parts) + "." if parts else "an empty picture."
