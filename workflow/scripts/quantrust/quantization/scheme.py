"""Scheme names: how weights are quantized, written as one word.

::

    bf16                                  nothing is quantized
    <method>-w<bits>g<group>[s][preset]   groups of consecutive input channels
    <method>-w<bits>c[s][preset]          one group per output channel

An `s` asks for the symmetric grid. The preset is empty (the linears of the language model's blocks), `-mixed` (the
same, and 8 bits in vision, connector, embedding and head) or `-full` (the same bits in every component).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from quantrust.errors import QuantrustError

UNQUANTIZED = "bf16"
COMPONENTS = ("vision", "connector", "language", "embedding", "head")
METHODS = ("rtn", "hqq", "awq", "mbq")
CALIBRATED_METHODS = ("awq", "mbq")
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (16, 32, 64, 128)
PRESETS = ("", "-mixed", "-full")

_NAME = re.compile(
    r"(?P<method>[a-z]+)-w(?P<bits>[1-9]\d*)(?:g(?P<group>[1-9]\d*)|c)(?P<symmetric>s?)(?P<preset>(?:-.*)?)"
)
_GRAMMAR = (
    f"{UNQUANTIZED}, or <method>-w<bits>g<group> or <method>-w<bits>c, "
    "then s if symmetric, then nothing, -mixed or -full"
)


@dataclass(frozen=True)
class Scheme:
    """How the weights of a model are quantized.

    Attributes
    ----------
    name : str
        The name that `parse_scheme` reads and `format_scheme` writes.
    method : str or None
        One of `METHODS`; None for the unquantized scheme.
    group_size : int or None
        Input channels that share a scale; None is one group per output channel.
    symmetric : bool
        Whether the zero-point is fixed to the middle of the code range.
    bits : tuple of (str, int)
        Component and bits of every component that is quantized, in the order of `COMPONENTS`.
    """

    name: str
    method: str | None
    group_size: int | None
    symmetric: bool
    bits: tuple[tuple[str, int], ...]

    def component_bits(self, component: str) -> int | None:
        """Return the bits of a component's weights, or None where it stays as it is."""
        return dict(self.bits).get(component)

    @property
    def needs_calibration(self) -> bool:
        """Whether the method reads calibration activations."""
        return self.method in CALIBRATED_METHODS


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
    >>> parse_scheme("hqq-w3g64").bits
    (('language', 3),)
    >>> parse_scheme("rtn-w4c-mixed").component_bits("vision")
    8
    """
    if name == UNQUANTIZED:
        return Scheme(UNQUANTIZED, None, None, False, ())
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
    if symmetric and method == "hqq":
        raise QuantrustError(f"scheme {name!r}: hqq has a free zero-point and is never symmetric; drop the s")
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


def _build(method: str, bits: int, group_size: int | None, symmetric: bool, preset: str) -> Scheme:
    by_component = {"language": bits}
    if preset == "-mixed":
        by_component = {component: bits if component == "language" else 8 for component in COMPONENTS}
    elif preset == "-full":
        by_component = dict.fromkeys(COMPONENTS, bits)
    name = format_scheme(method, bits, group_size, symmetric, preset)
    return Scheme(name, method, group_size, symmetric, tuple(by_component.items()))


def _require(name: str, what: str, value: str | int, allowed: Iterable[str | int]) -> None:
    if value not in allowed:
        choices = ", ".join(str(choice) or "none" for choice in allowed)
        raise QuantrustError(f"scheme {name!r}: {what} {value!r} does not exist; allowed: {choices}")
