"""Reliability of quantized multimodal LLMs in visual question answering."""

import importlib
from typing import Any

__all__ = ["Bundle"]


def __getattr__(name: str) -> Any:
    # Named in a text and imported when asked for: scoring needs no torch, and no job depends on what bundles import.
    if name == "Bundle":
        return importlib.import_module("quantrust.bundle.load").Bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
