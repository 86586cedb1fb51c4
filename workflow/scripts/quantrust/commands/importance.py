"""`quantrust importance`: which part of a model moves a metric, from a table of a grid of schemes."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.commands.outputs import check_outputs, json_writer, write_outputs
from quantrust.commands.plots import add_plot_option, check_plot, form_of
from quantrust.data.texts import shown
from quantrust.data.user_tables import read_user_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.consensus import consensus
from quantrust.evaluation.importance import Grid, Stratum, full_grid, importance
from quantrust.evaluation.intervals import null_if_nan
from quantrust.evaluation.limits import as_given

MOST_DRAWN = 5
"""Factors that a figure has colours for."""
EXPECTED = "a row a scheme and metric, with the columns metric and value and one column a factor"

DESCRIPTION = """\
Which part of a model matters? From a table of a full grid, every part at the
same bits: the share of each part in the variance of a metric, by functional
analysis of variance. Shares are printed for all schemes and for those that keep
at least so many bits, because one level that destroys a part decides every
share, and beside the standard deviation, because a share of nothing is nothing.
The consensus of random-forest importances is printed to compare."""

EPILOG = """\
examples:
  which part moves the accuracy of one model under one method
    quantrust importance grid.csv --metric accuracy \\
        --where model=m method=gptq \\
        --factors vision_bits connector_bits language_bits
  the same, with all numbers and a figure
    quantrust importance grid.parquet --metric CIDEr --json out.json \\
        --factors vision_bits language_bits --plot shares.pdf

A table of metrics has no intervals: how sure a share is cannot be told without
the answers to single questions. Noise looks like interaction."""

NOTES = (
    "sd: standard deviation of the metric over the schemes, in its own unit",
    "share: main effect and an equal part of each interaction; main: the main effect alone",
    "consensus: mean of three importances of a random forest over all schemes, for comparison",
)


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "importance",
        help="which part of a model moves a metric, from a grid of schemes",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, metavar="TABLE", help=f"a .parquet or .csv file with {EXPECTED}")
    parser.add_argument(
        "--factors", nargs="+", required=True, metavar="COLUMN", help="columns with the bits of each part of the model"
    )
    parser.add_argument("--metric", required=True, metavar="NAME", help="the metric whose variance is divided")
    parser.add_argument(
        "--where",
        type=_condition,
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN=VALUE",
        help="only rows with these values; an empty VALUE means rows without one",
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write all shares here, as fractions")
    add_plot_option(parser, "the shares by stratum")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Compute the shares, print a table and write the files that were asked for.

    Raises
    ------
    QuantrustError
        If the input cannot be read, is not a full grid, or a file cannot be written. Nothing is then written.
    """
    named = [] if arguments.json is None else [arguments.json]
    check_outputs([*named, *check_plot(arguments.plot)], [arguments.table])
    factors = list(dict.fromkeys(arguments.factors))
    if arguments.plot is not None and len(factors) > MOST_DRAWN:
        raise QuantrustError(f"--plot: {len(factors)} factors; expected at most {MOST_DRAWN} for a figure")
    grid = full_grid(factors, _cells(arguments, factors), str(arguments.table))
    strata = importance(grid)
    compared = consensus(grid)
    writers: dict[Path, Callable[[Path], object]] = {}
    if arguments.json is not None:
        writers[arguments.json] = json_writer(_record(arguments, grid, strata, compared))
    if arguments.plot is not None:
        writers[arguments.plot] = _plot_writer(arguments, strata)
    write_outputs(writers)
    print(_text(arguments.metric, grid, strata, compared))


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form COLUMN=VALUE")
    return column, value


def _cells(arguments: argparse.Namespace, factors: Sequence[str]) -> dict[tuple[float, ...], float]:
    """Return the metric of every scheme by its bits.

    Raises
    ------
    QuantrustError
        If the table cannot be read, a column is missing, a cell is not a number, no row is left, or two schemes have
        the same bits.
    """
    path = arguments.table
    table = read_user_table(path, "a table of metrics", EXPECTED)
    asked = [*factors, *(column for column, _ in arguments.where), "metric", "value"]
    missing = [column for column in asked if column not in table.columns]
    if missing:
        raise QuantrustError(f"{path}: has no column {missing[0]}, only {shown(table.columns)}; expected {EXPECTED}")
    rows = table.select(*dict.fromkeys(asked)).with_row_index("row", offset=1)
    for column, value in [*arguments.where, ("metric", arguments.metric)]:
        there = rows
        rows = rows.filter(_text_of(rows, column, path) == value)
        if rows.is_empty():
            values = _text_of(there, column, path).unique().sort().to_list()
            raise QuantrustError(f"{path}: no row has {column}={value}; expected one of {shown(values)}")
    cells: dict[tuple[float, ...], float] = {}
    for row in rows.iter_rows(named=True):
        bits = tuple(_number(row[factor], path, row["row"], factor) for factor in factors)
        if bits in cells:
            same = ", ".join(f"{factor}={level:g}" for factor, level in zip(factors, bits, strict=True))
            raise QuantrustError(
                f"{path}: row {row['row']}: a second scheme with {same}; expected one row a cell: choose rows with "
                "--where, or name the further columns in which they differ as --factors"
            )
        cells[bits] = _number(row["value"], path, row["row"], "value")
    return cells


def _text_of(rows: pl.DataFrame, column: str, path: Path) -> pl.Series:
    """Return a column as text, the empty text where there is no value."""
    dtype = rows.schema[column]
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)):
        raise QuantrustError(f"{path}: has {column} of the type {dtype}; expected numbers or strings")
    return rows[column].cast(pl.String).fill_null("")


def _number(value: object, path: Path, row: int, column: str) -> float:
    """Return a cell as a number.

    Raises
    ------
    QuantrustError
        If it is empty or not a finite number.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        found = "is empty" if value is None or value == "" else f"is {str(value)[:40]!r}"
        raise QuantrustError(
            f"{path}: row {row}: {column} {found}; expected a number, or a factor to be left out that the model lacks"
        )
    return number


def _record(
    arguments: argparse.Namespace, grid: Grid, strata: Sequence[Stratum], compared: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "metric": arguments.metric,
        "where": dict(arguments.where),
        "factors": {factor: list(levels) for factor, levels in zip(grid.factors, grid.levels, strict=True)},
        "consensus": _nulls(compared),
        "strata": [
            {
                "least_bits": stratum.least_bits,
                "schemes": stratum.schemes,
                "equal_levels": stratum.equal_levels,
                "sd": stratum.sd,
                "shapley": _nulls(stratum.shapley),
                "main": _nulls(stratum.main),
                "interaction": null_if_nan(stratum.interaction),
                "terms": {" x ".join(term): null_if_nan(share) for term, share in stratum.terms.items()},
                "low": stratum.low,
                "high": stratum.high,
            }
            for stratum in strata
        ],
    }


def _nulls(shares: Mapping[str, float]) -> dict[str, float | None]:
    return {factor: null_if_nan(share) for factor, share in shares.items()}


def _text(metric: str, grid: Grid, strata: Sequence[Stratum], compared: Mapping[str, float]) -> str:
    head = ["least bits", "schemes", f"sd of {metric}"]
    for factor in grid.factors:
        head += [factor, "main"]
    rows = [[*head, "interactions"]]
    for stratum in strata:
        mark = "" if stratum.equal_levels else " *"
        cells = [as_given(stratum.least_bits) + mark, str(stratum.schemes), f"{stratum.sd:.4g}"]
        for factor in grid.factors:
            cells += [_percent(stratum.shapley[factor]), _percent(stratum.main[factor])]
        rows.append([*cells, _percent(stratum.interaction)])
    forest = ["consensus", str(strata[0].schemes), ""]
    for factor in grid.factors:
        forest += [_percent(compared[factor]), ""]
    rows.append([*forest, ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not all(stratum.equal_levels for stratum in strata):
        lines.append(
            "*: the parts do not have the same bits here; one has bits that another lacks, and its share grows"
        )
    return "\n".join([*lines, *NOTES])


def _percent(share: float) -> str:
    return "none varies" if math.isnan(share) else f"{100 * share:.1f} %"


def _plot_writer(arguments: argparse.Namespace, strata: Sequence[Stratum]) -> Callable[[Path], object]:
    from quantrust.report.plots import draw_importance

    form = form_of(arguments.plot)
    where = ", ".join(f"{column} {value or 'empty'}" for column, value in arguments.where)
    note = "; ".join(
        [
            *([where] if where else []),
            "share: main effect and an equal part of each interaction",
            "sd: standard deviation over the schemes, in the metric's unit",
            "no intervals: a table of metrics has no single answers",
        ]
    )
    return lambda partial: draw_importance(partial, form, arguments.metric, strata, note)
