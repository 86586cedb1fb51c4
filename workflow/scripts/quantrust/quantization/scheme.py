"""Schemes: how weights are quantized, written as one word or, for mixed precision, as a table in the config.

A word is

::

    bf16                                  nothing is quantized
    <method>-w<bits>g<group>[s][preset]   groups of consecutive input channels
    <method>-w<bits>c[s][preset]          one group per output channel

An `s` asks for the symmetric grid. The preset is empty (the linears of the language model's blocks), `-mixed` (the
same, and 8 bits in vision, connector, embedding and head) or `-full` (the same bits in every component).

A table gives bits to components, thirds of their blocks and layer types, a row each; the last row that applies to a
layer wins, and layers without a row stay as they are.

A scheme may also be a folder that others quantized: `quantrust.quantization.external` reads it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from quantrust.errors import QuantrustError
from quantrust.models.components import COMPONENTS
from quantrust.quantization.method_traits import ERRORS, Reads, method_names, method_traits, searching_methods

UNQUANTIZED = "bf16"
EXTERNAL = "external"
BLOCK_COMPONENTS = ("vision", "connector", "language")
"""The components that may have blocks; whether a connector has any depends on the family."""
THIRDS = ("first", "middle", "last")
KINDS_OF_ATTENTION = ("self_attention", "cross_attention")
"""The layer types that `attention` stands for where a block has several kinds of it."""
LAYER_TYPES = ("attention", *KINDS_OF_ATTENTION, "mlp")
METHODS = method_names()
BITS = (2, 3, 4, 5, 6, 8)
UNQUANTIZED_BITS = 16
GROUP_SIZES = (16, 32, 64, 128)
PER_CHANNEL = "channel"
QUANTIZED_MODEL, UNQUANTIZED_MODEL = "quantized", "unquantized"
CALIBRATED_ON = (QUANTIZED_MODEL, UNQUANTIZED_MODEL)
"""What calibration samples pass: the model as far as it is quantized already, or the unquantized one."""
PRESETS = ("", "-mixed", "-full")

_NAME = re.compile(
    r"(?P<method>[a-z]+)-w(?P<bits>[1-9]\d*)(?:g(?P<group>[1-9]\d*)|c)(?P<symmetric>s?)(?P<preset>(?:-.*)?)"
)
_GRAMMAR = (
    f"{UNQUANTIZED}, or <method>-w<bits>g<group> or <method>-w<bits>c, "
    "then s if symmetric, then nothing, -mixed or -full"
)


@dataclass(frozen=True)
class Selection:
    """One row of a scheme's table.

    Attributes
    ----------
    component : str
        One of `COMPONENTS`.
    bits : int
        One of `BITS`, or `UNQUANTIZED_BITS`, which leaves the layers as they are.
    third : {"first", "middle", "last"} or None
        Of the component's n blocks: block k is in third floor(3 k / n). None is all of them.
    layer_type : {"attention", "self_attention", "cross_attention", "mlp"} or None
        None is all of them, and `attention` every kind of attention.
    """

    component: str
    bits: int
    third: str | None = None
    layer_type: str | None = None

    def applies_to(self, component: str, third: str | None, layer_type: str | None) -> bool:
        """Return whether a layer of this component, third and layer type is in the row."""
        types = (None, layer_type, *(["attention"] if layer_type in KINDS_OF_ATTENTION else []))
        return component == self.component and self.third in (None, third) and self.layer_type in types

    def __str__(self) -> str:
        """Return the row in words, for example `language, last third, mlp: 3 bits`."""
        where = [self.component, f"{self.third} third" if self.third else None, self.layer_type]
        return f"{', '.join(filter(None, where))}: {self.bits} bits"


@dataclass(frozen=True)
class Scheme:
    """How the weights of a model are quantized.

    Attributes
    ----------
    name : str
        The name that `parse_scheme` reads and `format_scheme` writes, or that the config gives a table.
    method : str or None
        One of `METHODS`; None for the unquantized scheme.
    group_size : int or None
        Input channels that share a scale; None is one group per output channel.
    symmetric : bool
        Whether the zero-point is fixed to the middle of the code range.
    table : tuple of Selection
    error : {"mae", "mse"} or None
        What a scale search minimises; None for methods without one.
    calibrated_on : {"quantized", "unquantized"} or None
        What calibration samples pass: the model as far as it is quantized already, layer after layer, or the
        unquantized one, so that a layer's codes depend on no other layer's bits. Searches of scales know the second
        alone; None for methods that read no data.
    external : str or None
        The folder of a checkpoint that others quantized, with `{model}` in the place of the model's name; such a scheme
        has no method and no table.
    """

    name: str
    method: str | None
    group_size: int | None
    symmetric: bool
    table: tuple[Selection, ...]
    error: str | None
    calibrated_on: str | None = None
    external: str | None = None

    def row_of(self, component: str, third: str | None = None, layer_type: str | None = None) -> Selection | None:
        """Return the row that decides about a layer: the last that applies; None where none does."""
        rows = [row for row in self.table if row.applies_to(component, third, layer_type)]
        return rows[-1] if rows else None

    def component_bits(self, component: str) -> int | None:
        """Return the bits of a component whose weights all have the same, else None."""
        bits = {row.bits for row in self.table if row.component == component}
        row = self.row_of(component)
        return row.bits if row is not None and bits == {row.bits} and row.bits != UNQUANTIZED_BITS else None

    @property
    def components(self) -> tuple[str, ...]:
        """The components that the table quantizes some of, in the order of `COMPONENTS`."""
        named = {row.component for row in self.table if row.bits != UNQUANTIZED_BITS}
        return tuple(component for component in COMPONENTS if component in named)

    @property
    def needs_calibration(self) -> bool:
        """Whether the method reads calibration activations."""
        return self.method is not None and method_traits(self.method).reads is not Reads.NOTHING

    @property
    def searches_scales(self) -> bool:
        """Whether the method chooses scales of input channels."""
        return self.method is not None and method_traits(self.method).reads is Reads.SCALED_ACTIVATIONS

    def settings(self) -> dict[str, Any]:
        """Return everything but the name, for a record in JSON."""
        return {
            "method": self.method,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "error": self.error,
            "calibrated_on": self.calibrated_on,
            "table": [asdict(row) for row in self.table],
        }


def is_scheme_word(name: str) -> bool:
    """Return whether a name is written in the grammar of schemes; the others are the names of tables."""
    return name == UNQUANTIZED or _NAME.fullmatch(name) is not None


def parse_scheme(name: str) -> Scheme:
    """Read a scheme's name.

    Parameters
    ----------
    name : str
        For example `mbq-w4g128-mixed`; the module's docstring gives the grammar.

    Returns
    -------
    Scheme

    Raises
    ------
    QuantrustError
        If the name does not parse, or asks for a method, bit width, group or preset that does not exist.

    Examples
    --------
    >>> [str(row) for row in parse_scheme("hqq-w3g64").table]
    ['language: 3 bits']
    >>> parse_scheme("rtn-w4c-mixed").component_bits("vision")
    8
    """
    if name == UNQUANTIZED:
        return Scheme(UNQUANTIZED, None, None, False, (), None)
    match = _NAME.fullmatch(name)
    if match is None:
        raise QuantrustError(f"scheme {name!r} does not parse: expected {_GRAMMAR}")
    method, preset = match["method"], match["preset"]
    bits = int(match["bits"])
    group_size = int(match["group"]) if match["group"] else None
    _require(name, "method", method, METHODS)
    _require(name, "bits", bits, BITS)
    if group_size is not None:
        _require(name, "group size", group_size, GROUP_SIZES)
    _require(name, "preset", preset, PRESETS)
    symmetric = match["symmetric"] == "s"
    if symmetric and (why := method_traits(method).never_symmetric) is not None:
        raise QuantrustError(f"scheme {name!r}: {method} {why} and is never symmetric; drop the s")
    return _build(method, bits, group_size, symmetric, preset)


def format_scheme(method: str, bits: int, group_size: int | None, symmetric: bool = False, preset: str = "") -> str:
    """Return the canonical name of a scheme; the inverse of `parse_scheme`.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    bits : int
        Bits of the language model's weights.
    group_size : int or None
        None for one group per output channel.
    symmetric : bool
        Whether the zero-point is fixed.
    preset : str
        One of `PRESETS`.

    Examples
    --------
    >>> format_scheme("mbq", 4, 128, preset="-mixed")
    'mbq-w4g128-mixed'
    """
    grouping = "c" if group_size is None else f"g{group_size}"
    return f"{method}-w{bits}{grouping}{'s' if symmetric else ''}{preset}"


def resolve_scheme(name: str, definition: Mapping[str, Any] | None = None) -> Scheme:
    """Return the scheme that a study calls by a name.

    Parameters
    ----------
    name : str
    definition : mapping or None
        What the config's `schemes` has under the name: `method`, `group` (a group size or `channel`), `symmetric`,
        `table` (rows of `component`, `bits` and, optionally, `third` and `layer_type`) and, for methods that search
        scales, optionally `error` (`mae` or `mse`; left out, it is the method's own), and, for methods that quantize
        by Hessians, optionally `calibrated_on` (`quantized` or `unquantized`; left out, it is `quantized`); or
        `external` alone, the folder of a checkpoint that others quantized. None where it has nothing: the name is then
        parsed.

    Returns
    -------
    Scheme

    Raises
    ------
    QuantrustError
        If the name does not parse, or the definition contradicts itself; the message begins with the key's path.

    Examples
    --------
    >>> rows = [{"component": "language", "bits": 4}, {"component": "language", "third": "last", "bits": 8}]
    >>> scheme = resolve_scheme("kept-end", {"method": "rtn", "group": 64, "symmetric": False, "table": rows})
    >>> scheme.row_of("language", "first", "mlp").bits, scheme.row_of("language", "last", "mlp").bits
    (4, 8)
    """
    if definition is None:
        return parse_scheme(name)
    path = f"schemes.{name}"
    if is_scheme_word(name):
        raise QuantrustError(f"{path} is a name with a meaning of its own ({_GRAMMAR}); choose another word")
    if EXTERNAL in definition:
        if others := sorted(definition.keys() - {EXTERNAL}):
            raise QuantrustError(
                f"{path}.{others[0]} is given beside {path}.{EXTERNAL}; allowed: nothing, because the folder says how "
                "it is quantized"
            )
        return Scheme(name, None, None, False, (), None, external=definition[EXTERNAL])
    method, group, symmetric = definition["method"], definition["group"], definition["symmetric"]
    _allow(f"{path}.method", method, METHODS)
    _allow(f"{path}.group", group, (*GROUP_SIZES, PER_CHANNEL))
    traits = method_traits(method)
    if symmetric and traits.never_symmetric is not None:
        raise QuantrustError(
            f"{path}.symmetric is true, but {method} {traits.never_symmetric} and is never symmetric; set it to false"
        )
    error = definition.get("error", traits.error)
    searches = traits.reads is Reads.SCALED_ACTIVATIONS
    if error is not None and not searches:
        raise QuantrustError(
            f"{path}.error is {error!r}, but {method} searches no scales; leave it out, or take "
            f"{' or '.join(searching_methods())}"
        )
    _allow(f"{path}.error", error, ERRORS if searches else (None,))
    calibrated_on = definition.get("calibrated_on", _calibrated_on(method))
    if traits.reads is Reads.HESSIANS:
        _allow(f"{path}.calibrated_on", calibrated_on, CALIBRATED_ON)
    elif "calibrated_on" in definition:
        raise QuantrustError(
            f"{path}.calibrated_on is {calibrated_on!r}, but {method} quantizes by no Hessians; leave it out"
        )
    table = tuple(_read_row(f"{path}.table[{number}]", row) for number, row in enumerate(definition["table"]))
    if all(row.bits == UNQUANTIZED_BITS for row in table):
        raise QuantrustError(f"{path}.table quantizes nothing; give a row fewer than {UNQUANTIZED_BITS} bits")
    group_size = None if group == PER_CHANNEL else group
    return Scheme(name, method, group_size, symmetric, table, error, calibrated_on)


def _read_row(path: str, row: Mapping[str, Any]) -> Selection:
    selection = Selection(row["component"], row["bits"], row.get("third"), row.get("layer_type"))
    _allow(f"{path}.component", selection.component, COMPONENTS)
    _allow(f"{path}.bits", selection.bits, (*BITS, UNQUANTIZED_BITS))
    _allow(f"{path}.third", selection.third, (None, *THIRDS))
    _allow(f"{path}.layer_type", selection.layer_type, (None, *LAYER_TYPES))
    if selection.layer_type in KINDS_OF_ATTENTION and selection.component in ("vision", "language"):
        raise QuantrustError(
            f"{path}.layer_type is {selection.layer_type!r}, but blocks of {selection.component} have one attention; "
            "write attention"
        )
    for key in ("third", "layer_type"):
        if row.get(key) is not None and selection.component not in BLOCK_COMPONENTS:
            raise QuantrustError(
                f"{path}.{key} is {row[key]!r}, but {selection.component} has no blocks; leave it out, or select "
                f"{' or '.join(BLOCK_COMPONENTS)}"
            )
    return selection


def _build(method: str, bits: int, group_size: int | None, symmetric: bool, preset: str) -> Scheme:
    by_component = {"language": bits}
    if preset == "-mixed":
        by_component = {component: bits if component == "language" else 8 for component in COMPONENTS}
    elif preset == "-full":
        by_component = dict.fromkeys(COMPONENTS, bits)
    name = format_scheme(method, bits, group_size, symmetric, preset)
    table = tuple(Selection(component, bits) for component, bits in by_component.items())
    return Scheme(name, method, group_size, symmetric, table, method_traits(method).error, _calibrated_on(method))


def _calibrated_on(method: str) -> str | None:
    """Return what a method is calibrated on unless a scheme says otherwise."""
    reads = method_traits(method).reads
    return {Reads.HESSIANS: QUANTIZED_MODEL, Reads.SCALED_ACTIVATIONS: UNQUANTIZED_MODEL}.get(reads)


def _allow(path: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(str(choice) for choice in allowed if choice is not None)
        raise QuantrustError(f"{path} is {value!r}; allowed: {choices}")


def _require(name: str, what: str, value: str | int, allowed: Iterable[str | int]) -> None:
    if value not in allowed:
        choices = ", ".join(str(choice) or "none" for choice in allowed)
        raise QuantrustError(f"scheme {name!r}: {what} {value!r} does not exist; allowed: {choices}")
