"""Accuracy, coverage and risk by type of answer and by kind of question."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quantrust.report.figures.clusters import draw_clusters, name_clusters, pitch
from quantrust.report.figures.parts import (
    FEWEST,
    bit_handles,
    in_percent,
    legend,
    manner_note,
    only_say,
    risk_label,
    series_handles,
    shown_estimators,
    title,
)
from quantrust.report.results import distinct, pick, read_tables, rows_of
from quantrust.report.style import ESTIMATOR_LABELS, looks, save_figure, styled_figure
from quantrust.report.wording import in_words, item, items, quality_name

WORDS = {"answer_type": "type of answer", "question_kind": "kind of question"}


@dataclass(frozen=True)
class Settings:
    """What the figure is given beside its inputs.

    Attributes
    ----------
    grouping : {"answer_type", "question_kind"}
    datasets : sequence of str
        The datasets whose groups are shown.
    risk : float in [0, 1]
        The risk limit.
    level : float in (0, 1)
        Confidence level of the intervals, for the note.
    """

    grouping: str
    datasets: Sequence[str]
    risk: float
    level: float


def _grouping(settings: Settings) -> str:
    """Return what a group is called; a kind of item where items are no questions."""
    return WORDS[settings.grouping].replace("question", item())


def draw(pdf: str | Path, png: str | Path, settings: Settings, *, group_paths: Iterable[str | Path]) -> None:
    """Draw accuracy, coverage at a risk limit, and the risk that one threshold for all leaves in each group.

    A row of panels per model; the estimator is the Selector where the study has it. What rests on fewer than `FEWEST`
    answers is not drawn like a measurement: groups of fewer questions and risks of fewer kept answers are left out, and
    a coverage that keeps fewer is a hollow point without an interval.

    Parameters
    ----------
    pdf, png : str or Path
        The files to write.
    settings : Settings
    group_paths : iterable of str or Path
        Tables of `quantrust.evaluation.breakdowns.GROUPS_SCHEMA`.
    """
    table = read_tables(group_paths).filter(
        (pl.col("grouping") == settings.grouping) & pl.col("dataset").is_in(list(settings.datasets))
    )
    if table.is_empty():
        with styled_figure(height=1) as figure:
            only_say(figure, f"No {item()} of {', '.join(settings.datasets)} has a {_grouping(settings)}.")
            save_figure(figure, pdf, png)
        return
    estimator = shown_estimators(table)[-1]
    table = pick(table, estimator=estimator)
    small = table.filter(pl.col("n") < FEWEST).select("dataset", "group").unique().height
    table = table.filter(pl.col("n") >= FEWEST)
    if table.is_empty():
        with styled_figure(height=1) as figure:
            where = ", ".join(settings.datasets)
            only_say(figure, f"Every {_grouping(settings)} of {where} has fewer than {FEWEST} {items()}.")
            save_figure(figure, pdf, png)
        return
    clusters = table.select("dataset", "group").unique(maintain_order=True).rows()
    shown = looks(distinct(table, "scheme"))
    models = distinct(table, "model")
    keys = ["model", "scheme", "dataset", "group"]
    answered = rows_of(table, "deployed_coverage", settings.risk).select(*keys, kept=pl.col("value") * pl.col("n"))
    # A count of answers that has been a share is one only but for rounding.
    enough = pl.col("kept") > FEWEST - 0.5
    columns = [
        (quality_name(), rows_of(table, "accuracy").with_columns(measured=pl.lit(True))),
        (
            f"{risk_label(settings.risk)} within the group",
            rows_of(table, "coverage_at_risk", settings.risk)
            .with_columns(kept=pl.col("value") * pl.col("n"))
            .with_columns(measured=enough),
        ),
        (
            "risk under one threshold",
            rows_of(table, "deployed_risk", settings.risk)
            .join(answered, on=keys)
            .filter(enough)
            .with_columns(measured=True),
        ),
    ]
    with styled_figure(height=1.0 + len(models) * (0.35 + pitch(shown) * len(clusters))) as figure:
        grid = figure.subplots(len(models), len(columns), squeeze=False, sharex="col", sharey=True)
        for row, model in enumerate(models):
            for column, (label, values) in enumerate(columns):
                axes = grid[row][column]
                draw_clusters(axes, pick(values, model=model).rename({"dataset": "section"}), clusters, shown)
                in_percent(axes.xaxis)
                if column == 0:
                    title(axes, model, len(columns))
                if column == 2:
                    axes.axvline(settings.risk, color="#555555", linestyle=":", linewidth=0.8)
                if row == len(models) - 1:
                    axes.set_xlabel(label)
            name_clusters(grid[row][0], clusters, len(settings.datasets) > 1)
        # Once everything is drawn: a limit that is set ends the axes' growth, and the models share them.
        for axes in grid[0]:
            axes.set_xlim(left=-0.02)
        counts = pick(table, model=models[0], scheme=shown[0].name, metric="accuracy")
        sizes = " to ".join(f"{n:,}" for n in sorted({counts["n"].min(), counts["n"].max()}))
        left_out = f"; groups of fewer than {FEWEST} {items()}, which are left out: {small}" if small else ""
        legend(
            figure,
            [*bit_handles(shown, with_marker=True), *series_handles(shown)],
            f"{', '.join(settings.datasets)}: groups of {sizes} test {items()}{manner_note(shown)}; bars: "
            f"{in_words(settings.level)} bootstrap intervals over images; confidence of "
            f"{ESTIMATOR_LABELS[estimator]}; one threshold: the one that keeps the dotted risk on all val {items()} in "
            f"distribution; hollow: fewer than {FEWEST} answers kept; the risk of so few is left out{left_out}",
        )
        save_figure(figure, pdf, png)
