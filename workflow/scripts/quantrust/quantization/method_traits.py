"""What a method says of itself, read from its source, so that a report or a config check needs no torch.

Every module in `quantrust.quantization.methods` ends in one record, `METHOD`, whose class names the kind of the method:
`DataFree`, `ScaleSearching` or `Sequential` (`quantrust.quantization.walks` has one module for each). The part of the
record that is written in literals is the traits; the rest are functions, which need torch.
"""

import ast
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError
from quantrust.named_modules import METHODS, module_names

ERRORS = ("mae", "mse")
"""What a scale search minimises: the mean absolute or the mean squared change of an output."""


class Reads(StrEnum):
    """What a method reads beside the weights."""

    NOTHING = "nothing"
    SCALED_ACTIVATIONS = "scaled activations"
    HESSIANS = "Hessians in order"


KINDS = {
    "DataFree": Reads.NOTHING,
    "ScaleSearching": Reads.SCALED_ACTIVATIONS,
    "Sequential": Reads.HESSIANS,
}
"""The class of a record, and what methods of that kind read."""


@dataclass(frozen=True, kw_only=True)
class MethodTraits:
    """The part of a method's record that can be read without running the method.

    Attributes
    ----------
    name : str
        What schemes call it: the name of its module, lower-case letters.
    reads : Reads
    label : str
        What figures and tables call it.
    colour : str or None
        Of its series where bits are on an axis, as `#RRGGBB`. Where a series has none, all series of the figure take
        the next of the colours that `quantrust.report.style` keeps for that.
    marker : str or None
        The same for the marker of its series, in Matplotlib's notation.
    never_symmetric : str or None
        Why the method has no symmetric grid, as words that follow its name; None where it has one.
    error : {"mae", "mse"} or None
        What its search for scales minimises unless the config says otherwise; None for methods without a search.
    """

    name: str
    reads: Reads
    label: str
    colour: str | None = None
    marker: str | None = None
    never_symmetric: str | None = None
    error: Literal["mae", "mse"] | None = None


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, sorted; no module is run."""
    return tuple(module_names(METHODS))


def searching_methods() -> tuple[str, ...]:
    """Return the names of the methods that search scales, sorted."""
    return tuple(name for name in method_names() if method_traits(name).reads is Reads.SCALED_ACTIVATIONS)


def hessian_methods() -> tuple[str, ...]:
    """Return the names of the methods that quantize by Hessians, sorted."""
    return tuple(name for name in method_names() if method_traits(name).reads is Reads.HESSIANS)


@cache
def method_traits(name: str) -> MethodTraits:
    """Read the traits of a method from the source of its module, which is not run.

    Parameters
    ----------
    name : str
        One of `method_names`.

    Returns
    -------
    MethodTraits

    Raises
    ------
    QuantrustError
        If the module ends in no record, the record is of no known kind, or one of its traits is missing, misspelt or
        not a literal.
    """
    path = SCRIPTS.joinpath(*METHODS.split("."), f"{name}.py")
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError) as error:
        raise QuantrustError(f"{path}: cannot be read as Python: {error}") from error
    kind, values = _record(tree, path)
    traits: dict[str, Any] = {"reads": KINDS[kind]}
    for field in fields(MethodTraits):
        if field.name in values:
            try:
                traits[field.name] = ast.literal_eval(values[field.name])
            except ValueError:
                raise QuantrustError(
                    f"{path}: {field.name} of METHOD is {ast.unparse(values[field.name])}; expected a literal, which "
                    "can be read without running the module"
                ) from None
        elif field.default is MISSING and field.name != "reads":
            raise QuantrustError(f"{path}: METHOD has no {field.name}; every method states it")
    _check(path, kind, traits)
    return MethodTraits(**traits)


def _record(tree: ast.Module, path: Path) -> tuple[str, dict[str, ast.expr]]:
    """Return the kind of the record that a module ends in, and its fields as they are written."""
    match tree.body[-1:]:
        case [
            ast.Assign(targets=[ast.Name(id="METHOD")], value=ast.Call(func=ast.Name(id=kind), args=[], keywords=given))
        ] if kind in KINDS:
            return kind, {keyword.arg: keyword.value for keyword in given if keyword.arg is not None}
    raise QuantrustError(
        f"{path}: does not end in the record of a method; expected METHOD = <kind>(name=..., label=..., ...) with one "
        f"of the kinds {', '.join(KINDS)}"
    )


def _check(path: Path, kind: str, traits: dict[str, Any]) -> None:
    """Raise where the traits of a method contradict its module or its kind."""
    if traits["name"] != path.stem:
        raise QuantrustError(f"{path}: METHOD is called {traits['name']!r}; expected the name of the module")
    allowed = ERRORS if kind == "ScaleSearching" else (None,)
    if traits.get("error") not in allowed:
        raise QuantrustError(
            f"{path}: error of METHOD is {traits.get('error')!r}; expected {' or '.join(ERRORS)} for a method that "
            "searches scales, and none for others"
        )
    for name in ("label", "colour", "marker", "never_symmetric"):
        if not isinstance(traits.get(name, ""), str):
            raise QuantrustError(f"{path}: {name} of METHOD is {traits[name]!r}; expected text")
