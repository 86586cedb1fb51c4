"""What the figures of grids of schemes share: the grids themselves, and the bits of their cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from quantrust.evaluation.components import GridDesign
from quantrust.evaluation.metric_records import OF_ANSWERS_ALONE, Key
from quantrust.report.results import pick, rows_of
from quantrust.report.wording import metric_label

FACTOR_COLOURS = (
    *("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7"),
    *("#5B3A8E", "#56B4E9", "#8C6D1F", "#117733", "#7A7A7A"),
)
"""As many as a grid may have factors."""
UNTOUCHED = 16


@dataclass(frozen=True)
class GridSettings:
    """What a figure of grids is given beside its inputs.

    Attributes
    ----------
    designs : sequence of mapping
        What `quantrust.evaluation.components.GridDesign` is made from.
    id_dataset : str
    estimator : str
        By whose confidence questions are answered.
    risk : float in (0, 1)
        The risk limit of the coverage that is drawn.
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    designs: Sequence[Mapping[str, Any]]
    id_dataset: str
    estimator: str
    risk: float
    level: float

    @property
    def grids(self) -> list[GridDesign]:
        """All grids."""
        return [GridDesign(**design) for design in self.designs]

    @property
    def full_grids(self) -> list[GridDesign]:
        """The grids that are no fractions."""
        return [design for design in self.grids if design.aliases is None]

    @property
    def shown(self) -> list[Key]:
        """The metrics that are drawn: accuracy, and coverage at the risk limit."""
        return [("accuracy", None), ("coverage_at_risk", self.risk)]


def of_design(table: pl.DataFrame, design: GridDesign, key: Key, **others: str) -> pl.DataFrame:
    """Return the rows of a grid and metric."""
    return rows_of(pick(table, design=design.name, method=design.method, **others), *key)


def under(table: pl.DataFrame, estimator: str) -> pl.DataFrame:
    """Return the rows of metrics under one estimator, and those of metrics that no confidence enters."""
    return table.filter((pl.col("estimator") == estimator) | pl.col("metric").is_in(OF_ANSWERS_ALONE))


def values_by_bits(table: pl.DataFrame, design: GridDesign) -> dict[tuple[int, ...], dict[str, Any]]:
    """Return the row of every cell of a grid, by its bits."""
    rows = {row["scheme"]: row for row in table.iter_rows(named=True)}
    return {tuple(bits): rows[scheme] for scheme, bits in design.cells}


def named(design: GridDesign, model: str, grids: Sequence[GridDesign]) -> str:
    """Return what a panel is called: the model, the method, and the grid where there are several."""
    several = len({one.name for one in grids}) > 1
    return f"{model}, {design.method.upper()}{f', {design.name}' if several else ''}"


def in_bits(bits: int) -> str:
    """Return a level in words."""
    return "as it is" if bits == UNTOUCHED else f"{bits} bits"


def metric_names(keys: Sequence[Key]) -> list[str]:
    """Return what metrics are called."""
    return [metric_label(name, parameter) for name, parameter in keys]
