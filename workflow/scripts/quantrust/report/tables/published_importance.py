"""Shares of the parts of a model in accuracy and CIDEr-D, beside those of the published component study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.artifacts.tables import read_table, write_csv

# MMQ (arXiv 2601.15287): percent of vision, connector and language model. Rows "consensus" are the paper's own. Rows
# "ANOVA" are computed from its result tables, by the fewest bits of any part, beside the sd of the scores. What limits
# them is in `CAVEATS`.
PUBLISHED = (
    ("blip2-opt-2.7b", "gptq", "CIDEr", "published, consensus", 2, None, 50.4, 2.0, 47.6),
    ("blip2-opt-2.7b", "gptq", "CIDEr", "published, ANOVA", 2, 0.4669, 53.2, 0.7, 46.1),
    ("blip2-opt-2.7b", "gptq", "CIDEr", "published, ANOVA", 3, 0.3570, 0.7, 0.4, 98.8),
    ("blip2-opt-2.7b", "gptq", "CIDEr", "published, ANOVA", 4, 0.1036, 4.8, 5.0, 90.2),
    ("blip2-opt-2.7b", "awq", "CIDEr", "published, consensus", 2, None, 17.1, 2.5, 80.5),
    ("blip2-opt-2.7b", "awq", "CIDEr", "published, ANOVA", 2, 0.4280, 12.8, 0.8, 86.5),
    ("blip2-opt-2.7b", "awq", "CIDEr", "published, ANOVA", 3, 0.1637, 0.9, 0.3, 98.9),
    ("blip2-opt-2.7b", "awq", "CIDEr", "published, ANOVA", 4, 0.0397, 13.0, 0.4, 86.6),
    ("llava-1.5-7b", "gptq", "accuracy", "published, ANOVA", 2, 0.2133, 12.2, None, 87.8),
    ("llava-1.5-7b", "gptq", "accuracy", "published, ANOVA", 3, 0.0191, 12.4, None, 87.6),
    ("llava-1.5-7b", "gptq", "accuracy", "published, ANOVA", 4, 0.0030, 35.8, None, 64.2),
)
NAMES = {"cider_d": "CIDEr"}
"""What the published tables call metrics of this study beside the accuracy."""
PARTS = ("vision", "connector", "language")
OWN = "this study"
SCHEMA = {
    "model": pl.String,
    "method": pl.String,
    "metric": pl.String,
    "source": pl.String,
    "least_bits": pl.Int64,
    "sd": pl.Float64,
    **dict.fromkeys(PARTS, pl.Float64),
    **{f"{part}_{end}": pl.Float64 for part in PARTS for end in ("low", "high")},
    "equal_levels": pl.Boolean,
}
CAVEATS = (
    "Published shares may be of other models, tasks and levels than this study's.",
    "GPTQ's grid there has 2 bits for vision and connector but not for the language model. So its row of 2 bits or "
    "more compares unequal levels.",
    "GPTQ's captioning runs drew their own test images, unseeded. From 6 bits on, 90 % of that grid's variance is "
    "interaction, which is noise (sd 0.03).",
    "Calibration images were drawn from the test set there.",
    "AWQ's exponents were 0, 1, .., 19 in the place of k / 20 there. LLaVA under AWQ is left out: its scales were not "
    "folded into the norms, so that every scheme of 5 bits or fewer in the language model answers nothing rightly.",
    "GPTQ and AWQ have other grids of numbers there, so that what lies between them is not the method alone.",
    "A consensus is the mean of three importances of a random forest. It has no interval, and noise is in it.",
)
"""What limits the published shares, a sentence or two each."""


@dataclass(frozen=True)
class Settings:
    """What the table is given beside its inputs.

    Attributes
    ----------
    designs : sequence of str
        The grids of vision, connector and language model.
    """

    designs: Sequence[str]


def write(csv: str | Path, settings: Settings, *, importance_path: str | Path) -> None:
    """Write this study's shares in accuracy and CIDEr-D, and those published, a row per model, method and stratum.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns of `SCHEMA`. Shares are in percent, empty for a part that a model lacks or
        whose share is not determined. `low` and `high` are the interval of a share; published ones have none.
        `equal_levels` says whether all parts of the grid have the same bits, and is empty for published rows.
    settings : Settings
    importance_path : str or Path
        The table of shares of `quantrust.evaluation.components`.
    """
    own = read_table(importance_path).filter(pl.col("design").is_in(settings.designs))
    own = own.filter(pl.col("metric").is_in(["accuracy", *NAMES]))
    rows: list[tuple[object, ...]] = []
    keys = ["model", "design", "method", "metric", "least_bits"]
    for (model, design, method, metric, least), stratum in own.group_by(keys, maintain_order=True):
        by_factor = {row["factor"]: row for row in stratum.iter_rows(named=True)}
        found = [by_factor.get(part, {}) for part in PARTS]
        shares = [_percent(row, "share") if row.get("determined") else None for row in found]
        between = [_percent(row, end) for row in found for end in ("low", "high")]
        source = OWN if len(settings.designs) == 1 else f"{OWN}, {design}"
        named = NAMES.get(str(metric), metric)
        shown = (model, method, named, source, least, stratum["sd"][0])
        rows.append((*shown, *shares, *between, stratum["equal_levels"][0]))
    published = [(*row, *(2 * len(PARTS) * [None]), None) for row in PUBLISHED]
    write_csv(pl.DataFrame([*rows, *published], schema=SCHEMA, orient="row"), csv)


def _percent(row: Mapping[str, Any], column: str) -> float | None:
    value = row.get(column)
    return None if value is None else 100 * value
