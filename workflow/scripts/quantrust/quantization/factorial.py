"""Grids of schemes: every part of a model at every number of bits, as the config's section `factorial` asks for them.

A factor is a part of the model: a component, or a third or a layer type of its blocks. A cell gives bits to every
factor; 16 leave a part as it is. The cell in which all have 16 is the unquantized scheme. A fraction of a grid, of two
levels, has the cells in which some factors follow from others (Box, Hunter and Hunter, "Statistics for Experimenters",
chapter 6): what it can't tell apart is in its table of aliases.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from quantrust.quantization.method_traits import hessian_methods
from quantrust.quantization.scheme import KINDS_OF_ATTENTION, UNQUANTIZED, UNQUANTIZED_BITS, UNQUANTIZED_MODEL

Config = Mapping[str, Any]
Levels = tuple[int, ...]
"""Bits of every factor, in the order of the factors."""
PARTS = ("component", "third", "layer_type")
LEVELS = "levels"


@dataclass(frozen=True)
class Design:
    """A grid of schemes of one method.

    Attributes
    ----------
    name : str
        The key under `factorial`.
    method : str
    group : int or str
        As in a scheme's table.
    symmetric : bool
    factors : sequence of mapping
        Each with `component` and, if it is a part of its blocks, `third` and `layer_type`.
    levels : sequence of sequence of int
        The bits of each factor, increasing; the last are 16.
    fraction : sequence of sequence of int
        Generators: the first factor of each is the product of the others, factors counted from 1.
    calibrated_on : {"quantized", "unquantized"} or None
        As in a scheme's table, of a method that quantizes by Hessians; None is the method's own.
    """

    name: str
    method: str
    group: int | str
    symmetric: bool
    factors: Sequence[Mapping[str, str]]
    levels: Sequence[Sequence[int]]
    fraction: Sequence[Sequence[int]] = ()
    calibrated_on: str | None = None

    @property
    def two_levels(self) -> bool:
        """Whether every factor has two levels, so that effects are told of it."""
        return all(len(levels) == 2 for levels in self.levels)

    @property
    def labels(self) -> list[str]:
        """The factors in words, for example `language, first third, attention`."""
        return [_in_words(factor) for factor in self.factors]

    def cells(self) -> list[Levels]:
        """Return the bits of every cell, the unquantized one last."""
        generated = {word[0] - 1: [factor - 1 for factor in word[1:]] for word in self.fraction}
        free = [place for place in range(len(self.factors)) if place not in generated]
        cells = []
        for bits in product(*(self.levels[place] for place in free)):
            chosen = dict(zip(free, bits, strict=True))
            for place, others in generated.items():
                sign = math.prod(1 if chosen[other] == UNQUANTIZED_BITS else -1 for other in others)
                lowest, highest = self.levels[place]
                chosen[place] = highest if sign > 0 else lowest
            cells.append(tuple(chosen[place] for place in range(len(self.factors))))
        return cells

    def scheme(self, cell: Levels) -> str:
        """Return the name of the scheme of a cell: equal cells of two designs have the same.

        Examples
        --------
        >>> Design("d", "hqq", 64, False, [{"component": "vision"}, {"component": "language", "third": "first"}],
        ...        [[3, 16], [3, 16]]).scheme((16, 3))
        'hqq-g64-language-first3'
        """
        grouping = ("c" if self.group == "channel" else f"g{self.group}") + ("s" if self.symmetric else "")
        grouping += "u" if self.calibrated_on == UNQUANTIZED_MODEL else ""
        parts, last = [], None
        for factor, bits in zip(self.factors, cell, strict=True):
            if bits != UNQUANTIZED_BITS:
                # A component is named once for all parts of it that follow each other.
                words = [] if factor["component"] == last else [factor["component"]]
                words += [factor[key].replace("_", "-") for key in PARTS[1:] if factor.get(key) is not None]
                last = factor["component"]
                parts.append("-".join(words) + str(bits))
        return "-".join([self.method, grouping, *parts]) if parts else UNQUANTIZED

    def table(self, cell: Levels) -> dict[str, Any]:
        """Return the scheme of a cell as the config's section `schemes` has it."""
        rows = [
            {**factor, "bits": bits}
            for factor, bits in zip(self.factors, cell, strict=True)
            if bits != UNQUANTIZED_BITS
        ]
        own = {} if self.calibrated_on is None else {"calibrated_on": self.calibrated_on}
        return {"method": self.method, "group": self.group, "symmetric": self.symmetric, **own, "table": rows}

    def aliases(self) -> dict[str, list[str]]:
        """Return every factor beside the interactions that a fraction can't tell from its main effect.

        Returns
        -------
        dict of str to list of str
            By the factors' labels, in their order: interactions as labels joined by `x`, the smaller ones first. There
            are none without a fraction.
        """
        words = [frozenset(factor - 1 for factor in generator) for generator in self.fraction]
        defining = {_product(chosen) for size in range(1, len(words) + 1) for chosen in combinations(words, size)}
        found = {}
        for place, label in enumerate(self.labels):
            others = sorted((sorted(word ^ {place}) for word in defining), key=lambda alias: (len(alias), alias))
            found[label] = [" x ".join(self.labels[other] for other in alias) for alias in others]
        return found


def _in_words(factor: Mapping[str, str]) -> str:
    words = [factor["component"]]
    if factor.get("third") is not None:
        words.append(f"{factor['third']} third")
    if factor.get("layer_type") is not None:
        words.append(factor["layer_type"].replace("_", " "))
    return ", ".join(words)


def _product(words: Sequence[frozenset[int]]) -> frozenset[int]:
    found: frozenset[int] = frozenset()
    for word in words:
        found ^= word
    return found


def designs_of(config: Config) -> list[Design]:
    """Return the designs of a config, one for each grid and method."""
    return [
        Design(
            name,
            method,
            section["group"],
            section["symmetric"],
            [{key: value for key, value in factor.items() if key != LEVELS} for factor in section["factors"]],
            [sorted(_levels(section, factor)) for factor in section["factors"]],
            section.get("fraction", []),
            section.get("calibrated_on") if method in hessian_methods() else None,
        )
        for name, section in config["factorial"].items()
        for method in section["methods"]
    ]


def grids_for_tables(config: Config) -> list[dict[str, Any]]:
    """Return what `quantrust.evaluation.components.GridDesign` is made from, for each design of a config."""
    return [
        {
            "name": design.name,
            "method": design.method,
            "factors": design.labels,
            "cells": [[design.scheme(cell), list(cell)] for cell in design.cells()],
            "aliases": ["; ".join(others) for others in design.aliases().values()] if design.fraction else None,
        }
        for design in designs_of(config)
    ]


def grid_schemes(config: Config) -> list[str]:
    """Return the schemes of all grids, each once, the unquantized one first."""
    names = dict.fromkeys(design.scheme(cell) for design in designs_of(config) for cell in design.cells())
    return sorted(names, key=lambda name: name != UNQUANTIZED)


def grid_tables(config: Config) -> dict[str, dict[str, Any]]:
    """Return the schemes of all grids as the config's section `schemes` has them."""
    return {
        design.scheme(cell): design.table(cell)
        for design in designs_of(config)
        for cell in design.cells()
        if design.scheme(cell) != UNQUANTIZED
    }


def factorial_faults(config: Config) -> Iterator[str]:
    """Yield what is wrong with grids that the schema allows: the key's path, its value and what is allowed there."""
    for name, section in config["factorial"].items():
        path = f"factorial.{name}"
        factors = section["factors"]
        yield from _faults_of_levels(path, section)
        for number, factor in enumerate(factors):
            for other in factors[:number]:
                if _overlap(factor, other):
                    yield (
                        f"{path}.factors[{number}] is {dict(factor)}, which shares layers with {dict(other)}; allowed: "
                        "parts that have no layer in common"
                    )
        if "calibrated_on" in section and not {*hessian_methods()} & {*section["methods"]}:
            yield (
                f"{path}.calibrated_on is given, but none of {', '.join(section['methods'])} quantizes by Hessians; "
                f"allowed: with {' or '.join(hessian_methods())}"
            )
        fraction = section.get("fraction", [])
        counts = {len(_levels(section, factor)) for factor in factors if LEVELS in {*factor, *section}}
        if fraction and counts - {2}:
            yield f"{path}.fraction is given beside {max(counts)} levels; allowed: with two levels only"
        generated = [word[0] for word in fraction]
        for number, word in enumerate(fraction):
            if max(word) > len(factors) or len(set(word)) < len(word) or set(word[1:]) & {*generated}:
                yield (
                    f"{path}.fraction[{number}] is {word}; allowed: different factors from 1 to {len(factors)}, the "
                    "first of them given by the others, which no other generator gives"
                )
        if len(set(generated)) < len(generated):
            yield f"{path}.fraction gives a factor twice; allowed: one generator a factor"


def _levels(section: Mapping[str, Any], factor: Mapping[str, Any]) -> list[int]:
    """Return the levels of a factor: its own, or those of its grid."""
    return factor[LEVELS] if LEVELS in factor else section[LEVELS]


def _faults_of_levels(path: str, section: Mapping[str, Any]) -> Iterator[str]:
    places = {f"{path}.{LEVELS}": section[LEVELS]} if LEVELS in section else {}
    if places and all(LEVELS in factor for factor in section["factors"]):
        yield f"{path}.{LEVELS} is given, but every factor has its own; allowed: where a factor has none"
    for number, factor in enumerate(section["factors"]):
        if LEVELS in factor:
            places[f"{path}.factors[{number}].{LEVELS}"] = factor[LEVELS]
        elif LEVELS not in section:
            yield (
                f"{path}.factors[{number}] has no {LEVELS}, and neither has {path}; allowed: {LEVELS} of the grid, "
                "which every factor takes that has none of its own"
            )
    for place, levels in places.items():
        if UNQUANTIZED_BITS not in levels or len(levels) < 2:
            yield f"{place} is {levels}; allowed: at least two numbers of bits, {UNQUANTIZED_BITS} among them"


def _overlap(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return one["component"] == other["component"] and all(
        one.get(key) is None or other.get(key) is None or _meet(one[key], other[key]) for key in PARTS[1:]
    )


def _meet(one: str, other: str) -> bool:
    """Return whether two thirds, or two layer types, have layers in common."""
    return one == other or any({one, other} == {"attention", kind} for kind in KINDS_OF_ATTENTION)
