"""The efficiency-reliability plane: what is left of accuracy and coverage for how many bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantrust.artifacts.tables import read_csv
from quantrust.report.figures.parts import (
    bars,
    bit_handles,
    in_percent,
    legend,
    manner_note,
    risk_label,
    risks_note,
    series_handles,
    shown_estimators,
    title,
)
from quantrust.report.results import distinct, in_distribution, pick, read_tables, rows_of
from quantrust.report.style import ESTIMATOR_LABELS, looks, save_figure, styled_figure
from quantrust.report.wording import in_words, items, quality_name

FRONT_COLOUR = "#AAAAAA"
# What lies between points of equal bytes, and from the first to the last of them at most, in largest checkpoints.
APART, WIDEST = 0.02, 0.06
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    risks : sequence of float in [0, 1]
        The risk limits.
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    id_dataset: str
    risks: Sequence[float]
    level: float


def draw(
    pdf: str | Path, png: str | Path, settings: Settings, *, metric_paths: Iterable[str | Path], sizes_path: str | Path
) -> None:
    """Draw accuracy and coverage at risk limits against bytes on disk: a column per model, a row per metric.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    metric_paths : iterable of str or Path
    sizes_path : str or Path
        The table of sizes, CSV with the columns model, scheme and bytes_on_disk.
    """
    metrics = in_distribution(read_tables(metric_paths), settings.id_dataset)
    sizes = read_csv(sizes_path).select("model", "scheme", bytes=pl.col("bytes_on_disk"))
    metrics = metrics.join(sizes, on=["model", "scheme"], how="left", maintain_order="left")
    estimators = shown_estimators(metrics)
    shown = looks(distinct(metrics, "scheme"))
    models = distinct(metrics, "model")
    rows = [(quality_name(), pick(rows_of(metrics, "accuracy"), estimator=estimators[0]))]
    rows += [
        (f"{risk_label(risk)}\n{ESTIMATOR_LABELS[name]}", pick(coverage, estimator=name))
        for risk, coverage in ((risk, rows_of(metrics, "coverage_at_risk", risk)) for risk in settings.risks)
        for name in estimators
    ]
    with styled_figure(height=1.0 + 1.3 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(models), squeeze=False, sharex="col", sharey="row")
        for column, model in enumerate(models):
            checkpoints = pick(metrics, model=model).select("scheme", "bytes").unique(maintain_order=True)
            divisor, unit = unit_of(checkpoints["bytes"].max())
            places = dict(zip(checkpoints["scheme"], set_apart(checkpoints["bytes"].to_list()), strict=True))
            for row, (label, values) in enumerate(rows):
                axes = grid[row][column]
                here = pick(values, model=model)
                here = here.with_columns(place=pl.col("scheme").replace_strict(places, return_dtype=pl.Float64))
                _draw_front(axes, here, divisor)
                for look in shown:
                    point = pick(here, scheme=look.name)
                    axes.errorbar(
                        point["place"] / divisor,
                        point["value"],
                        yerr=bars(point),
                        color=look.colour,
                        marker=look.marker,
                        markersize=6 if look.series is None else 4.5,
                        markeredgecolor="white",
                        markeredgewidth=0.4,
                        linestyle="none",
                        elinewidth=0.7,
                    )
                in_percent(axes.yaxis)
                axes.set_xlim(left=0)
                if row == 0:
                    title(axes, model, len(models))
                if column == 0:
                    axes.set_ylabel(label)
            grid[-1][column].set_xlabel(f"checkpoint on disk in {unit}")
        figure.align_ylabels()
        apart = metrics.select("model", "scheme", "bytes").unique().select("model", "bytes").is_duplicated().any()
        front = Line2D([], [], color=FRONT_COLOUR, linewidth=1.6, label="Pareto front")
        legend(
            figure,
            [*bit_handles(shown, with_marker=True), *series_handles(shown), front],
            f"{settings.id_dataset}, {metrics['n'].max():,} test {items()}{manner_note(shown)}; bars: "
            f"{in_words(settings.level)} bootstrap intervals over images; {risks_note(settings.risks)}; on the front: "
            f"what no other checkpoint of the model beats with as few bytes"
            f"{'; points of equal bytes are set apart' if apart else ''}",
        )
        save_figure(figure, pdf, png)


def set_apart(sizes: Sequence[int]) -> list[float]:
    """Return a place on the axis for each size: equal ones beside each other, in their order, about the size itself.

    Parameters
    ----------
    sizes : sequence of int

    Returns
    -------
    list of float
        Neighbours of equal size are `APART` of the largest size apart, or less where that would be wider than `WIDEST`.

    Examples
    --------
    >>> set_apart([400, 100, 100])
    [400.0, 96.0, 104.0]
    """
    found = []
    for number, size in enumerate(sizes):
        equal = sizes.count(size)
        step = 0 if equal == 1 else min(APART, WIDEST / (equal - 1)) * max(sizes)
        found.append(size + step * (sizes[:number].count(size) - (equal - 1) / 2))
    return found


def pareto_front(sizes: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return the points that no other beats: none has as few bytes and a higher value, or fewer and as high a value.

    Parameters
    ----------
    sizes, values : sequence of float, of one length

    Returns
    -------
    list of int
        Places of the points on the front, by rising size.

    Examples
    --------
    >>> pareto_front([4, 2, 3, 1], [0.9, 0.6, 0.5, 0.3])
    [3, 1, 0]
    """
    front: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: (sizes[place], -values[place])):
        if not front or values[place] > values[front[-1]]:
            front.append(place)
    return front


def _draw_front(axes: Axes, points: pl.DataFrame, divisor: float) -> None:
    points = points.filter(pl.col("value").is_not_null())
    front = points[pareto_front(points["bytes"].to_list(), points["value"].to_list())]
    axes.step(front["place"] / divisor, front["value"], where="post", color=FRONT_COLOUR, linewidth=1.6, zorder=1)
    axes.plot(
        front["place"] / divisor,
        front["value"],
        linestyle="none",
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgecolor=FRONT_COLOUR,
        markeredgewidth=1.2,
        zorder=1,
    )


def unit_of(largest: float) -> tuple[float, str]:
    """Return the unit in which to write numbers of bytes of this size: its bytes, and its name."""
    return next(((divisor, unit) for divisor, unit in UNITS if largest >= divisor), (1.0, "bytes"))
