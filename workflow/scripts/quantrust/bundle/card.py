"""The model card of a bundle: the README of its folder, as the Hugging Face hub reads it."""

from typing import Any

import polars as pl

from quantrust.bundle.record import BundleRecord


def model_card(record: BundleRecord, quantization: dict[str, Any], metrics: pl.DataFrame) -> str:
    """Return the model card of a bundle.

    Parameters
    ----------
    record : BundleRecord
    quantization : dict
        The checkpoint's own record.
    metrics : polars.DataFrame
        The variant's metrics table.
    """
    return f"# {record.name}\n"
