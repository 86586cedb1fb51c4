"""Making one figure or table with the module that its entry in `quantrust.report.contents` names."""

from collections.abc import Iterable, Mapping
from typing import Any

from quantrust.named_modules import load_module

Paths = Mapping[str, str | Iterable[str]]
"""Paths by the names of the parameters that take them."""


def draw_figure(module: str, files: Paths, inputs: Paths, settings: Mapping[str, Any]) -> None:
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
    """
    _call(module, "draw", {**files, **inputs}, settings)


def write_table(module: str, files: Paths, inputs: Paths, settings: Mapping[str, Any]) -> None:
    """Write a table; like `draw_figure`, with a module that defines `write`."""
    _call(module, "write", {**files, **inputs}, settings)


def _call(dotted: str, function: str, paths: Paths, settings: Mapping[str, Any]) -> None:
    package, _, name = dotted.rpartition(".")
    module = load_module(package, name, [function, "Settings"] if settings else [function])
    given = {"settings": module.Settings(**settings)} if settings else {}
    getattr(module, function)(**paths, **given)
