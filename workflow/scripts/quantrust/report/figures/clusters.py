"""Points with bars in clusters, one under another: a cluster for each group of questions, in it a point a scheme."""

import textwrap
from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from quantrust.report.results import pick
from quantrust.report.style import Look

LONGEST = 40
"""Characters of a group's name."""

Cluster = tuple[str, str]
"""A section and a group in it: a dataset, or a grouping."""


def pitch(shown: Sequence[Look]) -> float:
    """Return the height of a cluster in inches."""
    return max(0.2, 0.06 + 0.03 * len(shown))


def draw_clusters(axes: Axes, values: pl.DataFrame, clusters: Sequence[Cluster], shown: Sequence[Look]) -> None:
    """Draw the points of a panel.

    Parameters
    ----------
    axes : Axes
    values : polars.DataFrame
        ``scheme``, ``section``, ``group``, ``value``, ``low``, ``high``, and whether it is ``measured``: if not, the
        point is hollow and has no bar. A point without a value is left out.
    clusters : sequence of Cluster
        From the top.
    shown : sequence of Look
    """
    for place, look in enumerate(shown):
        rows = {(row["section"], row["group"]): row for row in pick(values, scheme=look.name).iter_rows(named=True)}
        drawn = [
            (number, rows[cluster])
            for number, cluster in enumerate(clusters)
            if cluster in rows and rows[cluster]["value"] is not None
        ]
        shift = offset(place, len(shown))
        measured = [(number, row) for number, row in drawn if row["measured"] and row["low"] is not None]
        axes.errorbar(
            [row["value"] for _, row in measured],
            [number + shift for number, _ in measured],
            xerr=[
                [max(0, row["value"] - row["low"]) for _, row in measured],
                [max(0, row["high"] - row["value"]) for _, row in measured],
            ],
            color=look.colour,
            marker=look.marker,
            markersize=3.2,
            markeredgewidth=0,
            linestyle="none",
            elinewidth=0.9,
        )
        hollow = [one for one in drawn if one not in measured]
        axes.plot(
            [row["value"] for _, row in hollow],
            [number + shift for number, _ in hollow],
            color=look.colour,
            marker=look.marker,
            markersize=3.2,
            markerfacecolor="white",
            markeredgewidth=0.7,
            linestyle="none",
        )
    for number in range(1, len(clusters)):
        other_section = clusters[number][0] != clusters[number - 1][0]
        axes.axhline(
            number - 0.5, color="#777777" if other_section else "#DDDDDD", linewidth=0.6 if other_section else 0.4
        )
    axes.grid(False, axis="y")
    axes.set_ylim(len(clusters) - 0.5, -0.5)


def offset(place: int, schemes: int) -> float:
    """Return how far below the middle of a cluster the scheme of a place is drawn, in clusters."""
    return (place - (schemes - 1) / 2) * 0.82 / schemes


def name_clusters(axes: Axes, clusters: Sequence[Cluster], with_section: bool) -> None:
    """Write the names of groups at their clusters, the first of each section with the section's name if asked for."""
    labels = []
    for number, (section, group) in enumerate(clusters):
        first = with_section and (number == 0 or clusters[number - 1][0] != section)
        name = as_text(group)
        labels.append(f"{as_text(section)}: {name}" if first and section else name)
    axes.set_yticks(range(len(clusters)), labels)


def as_text(name: str) -> str:
    """Return a name from a user's file as it may stand in a figure: not too long, and never read as a formula.

    Examples
    --------
    >>> as_text("$5 to $10"), as_text("a name of far more characters than an axis has room for")
    ('\\\\$5 to \\\\$10', 'a name of far more characters than an...')
    """
    return textwrap.shorten(name, LONGEST, placeholder="...").replace("$", r"\$")
