"""Making one figure or table with the module that its entry in `quantrust.report.contents` names."""

from collections.abc import Iterable, Mapping
from typing import Any

from quantrust.named_modules import load_module
from quantrust.report.item_words import Words
from quantrust.report.wording import speaking_of

Paths = Mapping[str, str | Iterable[str]]
"""Paths by the names of the parameters that take them."""


def draw_figure(
    module: str, files: Paths, inputs: Paths, settings: Mapping[str, Any], words: Mapping[str, str]
) -> None:
    """Draw a figure.

    Parameters
    ----------
    module : str
        Named with dots; it defines `draw`.
    files : mapping of str to str
        The files to write.
    inputs : mapping of str to str or iterable of str
        The files to read.
    settings : mapping
        What the module's `Settings` are made from; empty where it has none.
    words : mapping of str to str
        What `Words` are made from.
    """
    _call(module, "draw", {**files, **inputs}, settings, words)


def write_table(
    module: str, files: Paths, inputs: Paths, settings: Mapping[str, Any], words: Mapping[str, str]
) -> None:
    """Write a table; like `draw_figure`, with a module that defines `write`."""
    _call(module, "write", {**files, **inputs}, settings, words)


def _call(dotted: str, function: str, paths: Paths, settings: Mapping[str, Any], words: Mapping[str, str]) -> None:
    package, _, name = dotted.rpartition(".")
    module = load_module(package, name, [function, "Settings"] if settings else [function])
    given = {"settings": module.Settings(**settings)} if settings else {}
    with speaking_of(Words(**words)):
        getattr(module, function)(**paths, **given)
