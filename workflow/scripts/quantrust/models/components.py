"""How a family describes its architecture: what lies where, which linears share an input, and what its norms do.

All of it is data. Names are the dotted ones of `model.named_modules()` in the library.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

COMPONENTS = ("vision", "connector", "language", "embedding", "head")
"""What every family divides its models into."""

STACKS = ("vision", "connector", "language")
"""The components with blocks, in the order of the forward pass."""


class NormKind(Enum):
    """What a norm multiplies its normalised input by.

    Only norms of these kinds still give the same after a scale was divided out of their weight.
    """

    WEIGHT = "w"
    ONE_PLUS_WEIGHT = "1 + w"


@dataclass(frozen=True)
class GroupRule:
    """Linears of a block that read one activation, and so can share a scale.

    A name that begins with a dot is relative to the block; any other name is that of a module of the model.

    Attributes
    ----------
    previous : str or None
        The norm or linear whose output channels the linears read, and which can absorb the inverse of their scale;
        None if nothing can. A linear with fewer output channels than the linears read (under grouped-query attention)
        absorbs nothing, without the rule saying so.
    linears : tuple of str
    kind : {"attention", "mlp"}
    inspected : str or None
        The module whose output error a scale search measures; None is the first of the linears.
    fused : bool
        Whether `previous` yields queries, keys and values of equal width, in this order, and the linears read the
        values.
    merged : bool
        Whether the linears read several tokens of `previous` side by side.
    optional : bool
        Whether there are blocks without these linears.
    """

    previous: str | None
    linears: tuple[str, ...]
    kind: Literal["attention", "mlp"]
    inspected: str | None = None
    fused: bool = False
    merged: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Blocks:
    """Blocks of one kind that run one after another.

    Attributes
    ----------
    path : str
        The list of the blocks, or the block itself.
    layer_types : mapping of str to {"attention", "self_attention", "cross_attention", "mlp"}
        By the name of a module in the block: what the layers in it, or it itself, are. Blocks with two kinds of
        attention tell them apart.
    groups : tuple of GroupRule
        In the order of execution. Each linear of the block is in one of them.
    single : bool
        Whether `path` is one block and not a list. It has no index then, and does not count to thirds.
    """

    path: str
    layer_types: Mapping[str, str]
    groups: tuple[GroupRule, ...]
    single: bool = False

    def place(self, name: str) -> tuple[int | None, str] | None:
        """Return the index of the block that `name` lies in, and its name there; None if it lies in none of these."""
        inside = re.fullmatch(rf"{re.escape(self.path)}\.{'()' if self.single else '([0-9]+)[.]'}(.+)", name)
        return None if inside is None else (int(inside[1]) if inside[1] else None, inside[2])

    def type_of(self, inside: str) -> str | None:
        """Return the type of the layer with this name in a block, None if the family does not say it."""
        return next((kind for name, kind in self.layer_types.items() if f"{inside}.".startswith(f"{name}.")), None)


@dataclass(frozen=True)
class Component:
    """A part of a model.

    Attributes
    ----------
    modules : tuple of str
        The modules, or parameters, that belong to it, the main one first. Where one lies in a module of another
        component, the inner one decides.
    blocks : tuple of Blocks
        In the order of execution; empty for embedding and head.
    heads : str
        What the config of the main module calls the number of attention heads.
    """

    modules: tuple[str, ...]
    blocks: tuple[Blocks, ...] = ()
    heads: str = "num_attention_heads"

    @property
    def main(self) -> str:
        """Dotted name of the main module."""
        return self.modules[0]
