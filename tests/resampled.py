"""Resampled metrics of variants in files, as the workflow writes them before it compares and judges variants."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantrust.evaluation.resampled_variant import ResamplingSettings, write_resampled

Variant = tuple[str, str]


def resampled(
    scores_paths: Mapping[Variant, Path], mixture_paths: Mapping[str, Path], folder: Path, **settings: Any
) -> dict[Variant, Path]:
    """Resample variants and return the paths of the files by model and scheme."""
    written = {}
    for model, scheme in scores_paths:
        written[model, scheme] = folder / "resampled" / model / f"{scheme}.parquet"
        write_resampled(
            scores_paths[model, scheme],
            mixture_paths,
            written[model, scheme],
            model=model,
            scheme=scheme,
            settings=ResamplingSettings(**settings),
        )
    return written
