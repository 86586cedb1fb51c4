"""The figures of a study, a function each; they read metrics and curves only."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter

from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.results import distinct, in_distribution, pick, read_tables, rows_of
from quantrust.report.style import (
    BAND_ALPHA,
    BIT_COLOURS,
    ESTIMATOR_DASHES,
    ESTIMATOR_LABELS,
    METHOD_COLOURS,
    METHOD_MARKERS,
    UNQUANTIZED_COLOUR,
    UNQUANTIZED_MARKER,
    Series,
    quantized_series,
    save_figure,
    styled_figure,
)

# Where the small panel begins: below, a curve rests on a handful of answers.
SMALLEST_COVERAGE = 0.02


def risk_coverage(
    curve_paths: Iterable[str | Path],
    metric_paths: Iterable[str | Path],
    pdf: str | Path,
    png: str | Path,
    *,
    home: str,
    level: float,
) -> None:
    """Draw risk against coverage in distribution: a row per model, a column per method.

    Parameters
    ----------
    curve_paths, metric_paths : iterable of str or Path
        Curves and metrics of the study's variants.
    pdf, png : str or Path
        The files to write.
    home : str
        The dataset in distribution.
    level : float in (0, 1)
        Confidence level of the bands, for the caption.
    """
    curves = in_distribution(read_tables(curve_paths), home)
    accuracy = in_distribution(rows_of(read_tables(metric_paths), "accuracy"), home)
    models = distinct(curves, "model")
    columns = list(quantized_series(distinct(curves, "scheme")).items()) or [(None, {})]
    estimators = [name for name in ESTIMATOR_DASHES if name in distinct(curves, "estimator")]
    with styled_figure(height=0.45 + 2.35 * len(models)) as figure:
        grid = figure.subplots(len(models), len(columns), squeeze=False, sharex=True, sharey="row")
        for row, model in enumerate(models):
            for column, (series, schemes) in enumerate(columns):
                axes = grid[row][column]
                shown = {BIT_COLOURS[bits]: name for bits, name in schemes.items()} | {UNQUANTIZED_COLOUR: UNQUANTIZED}
                inset = axes.inset_axes((0.12, 0.5, 0.46, 0.44))
                for colour, scheme in shown.items():
                    for estimator in estimators:
                        curve = pick(curves, model=model, scheme=scheme, estimator=estimator)
                        for target in (axes, inset):
                            _draw_curve(target, curve, colour, estimator)
                _dress_risk_axes(axes, inset, pick(curves, model=model))
                axes.set_title(f"{model}: {_title(series)}", loc="left")
                if row == len(models) - 1:
                    axes.set_xlabel("coverage")
            grid[row][0].set_ylabel("risk (1 - soft accuracy)")
        count = accuracy["n"].max()
        _legend(
            figure,
            [*_bit_handles(columns), *_estimator_handles(estimators)],
            f"{home}, {count:,} test questions; bands: {level:.0%} bootstrap intervals over images",
        )
        save_figure(figure, pdf, png)


def _draw_curve(axes: Axes, curve: pl.DataFrame, colour: str, estimator: str) -> None:
    if curve.is_empty():
        return
    curve = curve.filter(pl.col("coverage") >= SMALLEST_COVERAGE).sort("coverage")
    axes.fill_between(curve["coverage"], curve["low"], curve["high"], color=colour, alpha=BAND_ALPHA, linewidth=0)
    axes.plot(curve["coverage"], curve["risk"], color=colour, linestyle=ESTIMATOR_DASHES[estimator])


def _dress_risk_axes(axes: Axes, inset: Axes, curves: pl.DataFrame) -> None:
    # A little above the highest curve; bands that rest on a handful of answers may leave the panel.
    top = 1.15 * curves.filter(pl.col("coverage") >= SMALLEST_COVERAGE)["risk"].max()
    axes.set(xlim=(0, 1), ylim=(0, top))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    inset.set(xscale="log", xlim=(SMALLEST_COVERAGE, 1), ylim=(0, top / 2))
    inset.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5])
    inset.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    inset.xaxis.set_minor_formatter(NullFormatter())
    inset.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    inset.tick_params(labelsize=5.5, length=2, pad=1.5)
    inset.set_title("the same, coverage on a log scale", fontsize=5.5, pad=2)


def mixtures(
    metric_paths: Iterable[str | Path], pdf: str | Path, png: str | Path, *, home: str, risk: float, level: float
) -> None:
    """Draw accuracy and coverage at a risk limit against the share of questions in distribution.

    A column per model and shift; a row for accuracy and one per estimator for the coverage.

    Parameters
    ----------
    metric_paths : iterable of str or Path
    pdf, png : str or Path
        The files to write.
    home : str
        The dataset in distribution.
    risk : float in [0, 1]
        The risk limit.
    level : float in (0, 1)
        Confidence level of the intervals, for the caption.
    """
    metrics = read_tables(metric_paths).filter((pl.col("dataset") != home) & pl.col("id_share").is_not_null())
    estimators = [name for name in ESTIMATOR_DASHES if name in distinct(metrics, "estimator")]
    coverage = rows_of(metrics, "coverage_at_risk", risk)
    accuracy = pick(rows_of(metrics, "accuracy"), estimator=estimators[0])
    rows = [("accuracy", accuracy)] + [
        (f"C@{risk:.1%}".replace(".0%", "%") + f", {ESTIMATOR_LABELS[name]}", pick(coverage, estimator=name))
        for name in estimators
    ]
    panels = [(model, shift) for model in distinct(metrics, "model") for shift in distinct(metrics, "dataset")]
    columns = list(quantized_series(distinct(metrics, "scheme")).items())
    with styled_figure(height=0.6 + 1.6 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True, sharey="row")
        for row, (label, values) in enumerate(rows):
            for column, (model, shift) in enumerate(panels):
                axes = grid[row][column]
                here = pick(values, model=model, dataset=shift)
                for series, schemes in columns:
                    for bits, scheme in schemes.items():
                        _draw_mixture(axes, pick(here, scheme=scheme), BIT_COLOURS[bits], METHOD_MARKERS[series.method])
                _draw_mixture(axes, pick(here, scheme=UNQUANTIZED), UNQUANTIZED_COLOUR, UNQUANTIZED_MARKER)
                axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
                axes.set_xlim(1.04, -0.04)
                axes.set_xticks([1, 0.5, 0], ["100:0", "50:50", "0:100"])
                axes.set_ylim(bottom=0)
                if row == 0:
                    axes.set_title(f"{model}\nto {shift}", loc="left")
            grid[row][0].set_ylabel(label)
        figure.supxlabel(f"questions of {home} : questions of the shift", fontsize=7.5)
        counts = " and ".join(f"{n:,}" for n in sorted(set(metrics["n"])))
        _legend(
            figure,
            [*_bit_handles(columns), *_method_handles([series for series, _ in columns], "#555555")],
            f"{counts} test questions in every mixture{_manner(columns)}; bars: {level:.0%} bootstrap intervals over "
            "images;\nC@R with the threshold read off the test labels",
        )
        save_figure(figure, pdf, png)


def _draw_mixture(axes: Axes, rows: pl.DataFrame, colour: str, marker: str) -> None:
    if rows.is_empty():
        return
    rows = rows.sort("id_share")
    axes.errorbar(
        rows["id_share"],
        rows["value"],
        yerr=_bars(rows),
        color=colour,
        marker=marker,
        markersize=3,
        markeredgewidth=0,
        linewidth=0.9,
        elinewidth=0.5,
    )


def _bars(rows: pl.DataFrame) -> list[list[float]]:
    """Lengths of the error bars; a bootstrap interval need not contain the point, and a bar can not be negative."""
    below = (rows["value"] - rows["low"]).clip(lower_bound=0)
    above = (rows["high"] - rows["value"]).clip(lower_bound=0)
    return [below.to_list(), above.to_list()]


def degradation(
    metric_paths: Iterable[str | Path], pdf: str | Path, png: str | Path, *, home: str, risk: float, level: float
) -> None:
    """Draw what is left at fewer bits, in distribution: a column per model, a row per metric.

    Parameters
    ----------
    metric_paths : iterable of str or Path
    pdf, png : str or Path
        The files to write.
    home : str
        The dataset in distribution.
    risk : float in [0, 1]
        The risk limit of the coverage.
    level : float in (0, 1)
        Confidence level of the intervals, for the caption.
    """
    metrics = in_distribution(read_tables(metric_paths), home)
    estimators = [name for name in ESTIMATOR_DASHES if name in distinct(metrics, "estimator")]
    columns = list(quantized_series(distinct(metrics, "scheme")).items())
    models = distinct(metrics, "model")
    rows = [
        ("accuracy", rows_of(metrics, "accuracy"), estimators[:1]),
        (f"C@{risk:.1%}".replace(".0%", "%"), rows_of(metrics, "coverage_at_risk", risk), estimators),
        ("AURC", rows_of(metrics, "aurc"), estimators),
        ("ECE", rows_of(metrics, "ece"), estimators),
    ]
    ticks = sorted({bits for _, schemes in columns for bits in schemes}, reverse=True)
    with styled_figure(height=0.5 + 1.35 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(models), squeeze=False, sharex=True, sharey="row")
        for row, (label, values, shown) in enumerate(rows):
            for column, model in enumerate(models):
                axes = grid[row][column]
                for estimator in shown:
                    here = pick(values, model=model, estimator=estimator)
                    # Accuracy has no estimator; it is drawn like the last one, solid.
                    style = estimator if len(shown) > 1 else estimators[-1]
                    _draw_reference(axes, pick(here, scheme=UNQUANTIZED), style)
                    for place, (series, schemes) in enumerate(columns):
                        shift = 0.09 * (place - (len(columns) - 1) / 2)
                        _draw_degradation(axes, here, series, schemes, ticks, shift, style)
                axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
                axes.set_xticks(range(len(ticks)), [str(bits) for bits in ticks])
                if row == 0:
                    axes.set_title(model, loc="left")
                if row == len(rows) - 1:
                    axes.set_xlabel("bits per weight of the language model")
            grid[row][0].set_ylabel(label)
        figure.align_ylabels()
        handles = [
            *_method_handles([series for series, _ in columns], None),
            Line2D([], [], color="#999999", label="bf16"),
            *_estimator_handles(estimators),
        ]
        _legend(
            figure,
            handles,
            f"{home}, {metrics['n'].max():,} test questions{_manner(columns)}; bars and bands: {level:.0%} bootstrap "
            "intervals over images",
        )
        save_figure(figure, pdf, png)


def _draw_reference(axes: Axes, row: pl.DataFrame, estimator: str) -> None:
    if row.is_empty():
        return
    value, low, high = row.row(0, named=True)["value"], row["low"][0], row["high"][0]
    axes.axhspan(low, high, color="#999999", alpha=BAND_ALPHA, linewidth=0)
    axes.axhline(value, color="#999999", linewidth=0.8, linestyle=ESTIMATOR_DASHES[estimator])


def _draw_degradation(
    axes: Axes,
    values: pl.DataFrame,
    series: Series,
    schemes: dict[int, str],
    ticks: list[int],
    shift: float,
    estimator: str,
) -> None:
    rows = pl.concat([pick(values, scheme=scheme) for scheme in schemes.values()])
    places = [ticks.index(bits) + shift for bits in schemes]
    axes.errorbar(
        places,
        rows["value"],
        yerr=_bars(rows),
        color=METHOD_COLOURS[series.method],
        marker=METHOD_MARKERS[series.method],
        linestyle=ESTIMATOR_DASHES[estimator],
        markerfacecolor="white" if estimator == "maxprob" else METHOD_COLOURS[series.method],
        linewidth=1,
        elinewidth=0.6,
    )


def _title(series: Series | None) -> str:
    return "not quantized" if series is None else series.label


def _bit_handles(columns: list[tuple[Series, dict[int, str]]]) -> list[Line2D]:
    used = sorted({bits for _, schemes in columns for bits in schemes}, reverse=True)
    return [Line2D([], [], color=UNQUANTIZED_COLOUR, label="bf16")] + [
        Line2D([], [], color=BIT_COLOURS[bits], label=f"{bits} bits") for bits in used
    ]


def _estimator_handles(estimators: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], color="#555555", linestyle=ESTIMATOR_DASHES[name], label=ESTIMATOR_LABELS[name])
        for name in estimators
    ]


def _method_handles(series: list[Series], colour: str | None) -> list[Line2D]:
    same_manner = len({one.manner for one in series}) == 1
    return [
        Line2D(
            [],
            [],
            color=colour or METHOD_COLOURS[one.method],
            marker=METHOD_MARKERS[one.method],
            linestyle="none" if colour else "solid",
            label=one.method.upper() if same_manner else one.label,
        )
        for one in series
    ]


def _legend(figure: Figure, handles: list[Line2D], note: str) -> None:
    widest = max(len(handle.get_label()) for handle in handles)
    columns = min(len(handles), 8 if widest <= 12 else 3)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, title=note, title_fontsize=7)


def _manner(columns: list[tuple[Series, dict[int, str]]]) -> str:
    """What all series have in common, for the note above the figure; empty where they differ or there are none."""
    manners = {series.manner for series, _ in columns}
    return f"; {manners.pop()}" if len(manners) == 1 else ""
