"""The page's first screen: what to ship, in a sentence a model, and a matrix of verdicts.

There is one of both for every confidence and risk limit that has verdicts. All of them are in the page, so that a
reader may switch without anything being computed there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from quantrust.evaluation.limits import fewest_to_judge
from quantrust.evaluation.shipping import FAILS, MEETS, OPEN, fewest_images
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.page.words import few_images, listed, percent, span, too_few
from quantrust.report.results import distinct, pick
from quantrust.report.wording import in_words, items, threshold_in_words

REFERENCE, NONE = "reference", "none"
"""What stands in the place of a verdict: the scheme that others are held against, and a study without it."""
SIGNS = {
    MEETS: ("✓", "ships"),
    OPEN: ("?", "not settled"),
    FAILS: ("✗", "fails"),
    REFERENCE: ("=", "reference"),
    NONE: ("–", "no verdict"),  # noqa: RUF001
}
UNDER_SHIFT = {MEETS: ("✓", "holds on"), OPEN: ("?", "not settled on"), FAILS: ("✗", "breaks on")}
"""What becomes of a verdict that a scheme ships."""

Row = dict[str, Any]


class Copyable(NamedTuple):
    """Something in a sentence that a press copies.

    Attributes
    ----------
    shown, whole : str
        What stands on the page, and what is copied.
    what : str
        What it is, for those who do not see the page.
    """

    shown: str
    whole: str
    what: str


Sentence = list[str | Copyable]


@dataclass(frozen=True)
class Cell:
    """A field of the matrix.

    Attributes
    ----------
    model, scheme : str
    verdict : str
        A key of `SIGNS`.
    kept : tuple of float or None
        The share of the reference's coverage that is kept, and its interval; None where undefined.
    size, share_of_bf16 : int, float
        Bytes of the weight file, and their share of those of all weights in bfloat16.
    shifts : tuple of (str, str)
        Of a scheme that ships, every shifted dataset and the verdict there.
    """

    model: str
    scheme: str
    verdict: str
    kept: tuple[float | None, float | None, float | None]
    size: int
    share_of_bf16: float
    shifts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Choice:
    """What to do with a model.

    Attributes
    ----------
    model : str
    scheme : str or None
        The scheme to ship; None where nothing can be said.
    lead : list of str and Copyable
        The sentence.
    notes : list of list of str and Copyable
        How far it holds.
    command : Copyable or None
        What bundles it.
    """

    model: str
    scheme: str | None
    lead: Sentence
    notes: list[Sentence] = field(default_factory=list)
    command: Copyable | None = None


@dataclass(frozen=True)
class Panel:
    """Sentences and matrix for one confidence and one risk limit.

    Attributes
    ----------
    estimator : str
    risk : float
        The risk limit.
    choices : list of Choice
        One a model.
    rows : list of (str, list of Cell)
        Schemes from the largest to the smallest, each with a cell a model.
    """

    estimator: str
    risk: float
    choices: list[Choice]
    rows: list[tuple[str, list[Cell]]]

    @property
    def judged(self) -> int:
        """How many verdicts there are."""
        return sum(cell.verdict in (MEETS, OPEN, FAILS) for _, row in self.rows for cell in row)


@dataclass(frozen=True)
class VerdictTables:
    """What verdicts are read off.

    Attributes
    ----------
    kept : polars.DataFrame
        The table of `quantrust.evaluation.shipping`.
    sizes : polars.DataFrame
        The table of sizes.
    decisions : polars.DataFrame
        The table of `quantrust.evaluation.decisions`, all variants.
    """

    kept: pl.DataFrame
    sizes: pl.DataFrame
    decisions: pl.DataFrame


def verdict_panels(tables: VerdictTables, study: Mapping[str, Any]) -> list[Panel]:
    """Return a panel for every confidence and risk limit that has verdicts, in the order of the config.

    Parameters
    ----------
    tables : VerdictTables
    study : mapping
        The config, completed.
    """
    shipping = study["report"]["shipping"]
    return [
        _Judge(tables, study, estimator, risk).panel()
        for estimator in shipping["estimators"]
        for risk in shipping["risks"]
    ]


class _Judge:
    """The verdicts by one confidence at one risk limit."""

    def __init__(self, tables: VerdictTables, study: Mapping[str, Any], estimator: str, risk: float):
        self._estimator, self._risk = estimator, risk
        self._id_dataset = study["study"]["id_dataset"]
        self._keeps, self._level = study["report"]["shipping"]["keeps"], study["evaluation"]["confidence_level"]
        self._models = distinct(tables.decisions, "model")
        self._schemes = distinct(tables.decisions, "scheme")
        self._shifts = [name for name in distinct(tables.decisions, "dataset") if name != self._id_dataset]
        self._kept = _by_cell(
            pick(tables.kept, metric="coverage_at_risk", parameter=risk, estimator=estimator),
        )
        self._decided = _by_cell(pick(tables.decisions, risk_limit=risk, estimator=estimator))
        self._sizes = {(row["model"], row["scheme"]): row for row in tables.sizes.iter_rows(named=True)}

    def panel(self) -> Panel:
        cells = {(model, scheme): self._cell(model, scheme) for model in self._models for scheme in self._schemes}
        share = {scheme: sum(cells[model, scheme].share_of_bf16 for model in self._models) for scheme in self._schemes}
        # Sorting keeps the order of the study where schemes have one size.
        rows = [
            (scheme, [cells[model, scheme] for model in self._models])
            for scheme in sorted(self._schemes, key=lambda scheme: -share[scheme])
        ]
        choices = [self._choice(model, [cells[model, scheme] for scheme in self._schemes]) for model in self._models]
        return Panel(self._estimator, self._risk, choices, rows)

    def _cell(self, model: str, scheme: str) -> Cell:
        row, size = self._kept.get((model, scheme, self._id_dataset)), self._sizes[model, scheme]
        if row is None:
            verdict = REFERENCE if scheme == UNQUANTIZED else NONE
            return Cell(model, scheme, verdict, (None, None, None), size["bytes_on_disk"], size["share_of_bf16"])
        verdict = row["verdict"]
        shifts = [(name, self._kept[model, scheme, name]["verdict"]) for name in self._shifts]
        kept = (row["kept"], row["kept_low"], row["kept_high"])
        under = tuple(shifts) if verdict == MEETS else ()
        return Cell(model, scheme, verdict, kept, size["bytes_on_disk"], size["share_of_bf16"], under)

    def _choice(self, model: str, cells: list[Cell]) -> Choice:
        judged = [cell for cell in cells if cell.verdict in (MEETS, OPEN, FAILS)]
        if not judged:
            lacking = f"scheme beside {UNQUANTIZED}" if len(cells) == 1 and cells[0].verdict == REFERENCE else None
            return Choice(model, None, [f"no verdict: the study has no {lacking or UNQUANTIZED} to compare with."])
        row = self._kept[model, judged[0].scheme, self._id_dataset]
        if row["images"] < fewest_images(self._keeps, self._level):
            return Choice(
                model, None, [f"nothing can be said: {few_images(row['n'], row['images'], self._keeps, self._level)}"]
            )
        meets = [cell for cell in judged if cell.verdict == MEETS]
        if not meets:
            return self._unquantized(model, judged)
        # Of schemes of one size the one that keeps most.
        best = min(meets, key=lambda cell: (cell.share_of_bf16, -(cell.kept[0] or 0.0)))
        low_high = span(best.kept[1], best.kept[2])
        what = f"which keeps {percent(best.kept[0])} ({low_high}) of {UNQUANTIZED}'s coverage"
        start = f"ship {best.scheme}, at {percent(best.share_of_bf16)} of the bytes, {what}"
        return self._deployed(model, best, start, [])

    def _unquantized(self, model: str, judged: list[Cell]) -> Choice:
        """Say that no scheme is shown to keep enough, and what may change that."""
        notes: list[Sentence] = []
        if all(cell.kept[0] is None for cell in judged):
            text = (
                f"no verdict: {UNQUANTIZED} itself answers nothing at a risk of {in_words(self._risk)}, so that there "
                f"is nothing to be kept. A higher limit or more {items()} may help."
            )
            return Choice(model, None, [text])
        if unsettled := [cell.scheme for cell in judged if cell.verdict == OPEN]:
            notes.append([f"More {items()} may settle what these schemes keep: {', '.join(unsettled)}."])
        start = f"stay with {UNQUANTIZED}: no scheme is shown to keep {in_words(self._keeps)} of its coverage"
        size = self._sizes[model, UNQUANTIZED]
        reference = Cell(model, UNQUANTIZED, REFERENCE, (None,) * 3, size["bytes_on_disk"], size["share_of_bf16"])
        return self._deployed(model, reference, start, notes)

    def _deployed(self, model: str, cell: Cell, start: str, notes: list[Sentence]) -> Choice:
        """Say under which threshold a scheme answers how much, at which risk, and how far that holds."""
        row, scheme = self._decided[model, cell.scheme, self._id_dataset], cell.scheme
        if row["threshold"] is None:
            end = f". No threshold keeps a risk of {in_words(self._risk)} on val, so that it would answer nothing."
            return Choice(model, scheme, [f"{start}{end}"], notes)
        threshold = Copyable(
            threshold_in_words(row["threshold"]), str(row["threshold"]), f"threshold of {scheme} for {model}"
        )
        command = f"snakemake data/bundles/{model}/{scheme}"
        lead: Sentence = [
            f"{start}. Answer where the confidence of {self._estimator} is at least ",
            threshold,
            f": {self._measured(row)}.{self._broken(model, scheme)}",
        ]
        return Choice(
            model,
            scheme,
            lead,
            [[self._limit(row)], self._certified(row), *notes, *self._under_shift(model, cell)],
            Copyable(command, command, f"command that bundles {scheme} for {model}"),
        )

    def _measured(self, row: Row) -> str:
        coverage, risk = (
            f"{percent(row[f'deployed_{name}'])} ({span(row[f'deployed_{name}_low'], row[f'deployed_{name}_high'])})"
            for name in ("coverage", "risk")
        )
        if row["deployed_risk"] is None:
            return f"this answers none of the {row['n']:,} test {items()}"
        return f"this answers {coverage} of the {row['n']:,} test {items()} at a risk of {risk}"

    def _broken(self, model: str, scheme: str) -> str:
        """Name the shifted datasets on which the threshold breaks its limit."""
        rows = {dataset: self._decided[model, scheme, dataset] for dataset in self._shifts}
        broken = [dataset for dataset, row in rows.items() if self._is_above(row)]
        return f" Not on {listed(broken)}: there its risk is above {in_words(self._risk)}." if broken else ""

    def _is_above(self, row: Row) -> bool:
        """Return whether the whole interval of the risk lies above the limit, on answers enough to tell."""
        enough = row["deployed_images"] >= fewest_to_judge(self._risk, self._level)
        return enough and row["deployed_risk_low"] > self._risk

    def _limit(self, row: Row) -> str:
        """Say whether the threshold of val keeps the limit on the test set."""
        limit = f"the limit of {in_words(self._risk)}"
        fewest = fewest_to_judge(self._risk, self._level)
        if row["deployed_images"] < fewest:
            return (
                f"Whether {limit} is kept cannot be said: the answers are about {row['deployed_images']:,} images. "
                f"{too_few(fewest, self._risk)}."
            )
        if self._is_above(row):
            return f"This threshold was set on val and breaks {limit} on the test set. Choose a higher one."
        if row["deployed_risk_high"] <= self._risk:
            return f"This threshold was set on val and keeps {limit} on the test set."
        return (
            f"This threshold was set on val. Whether it keeps {limit} is not settled: the interval contains the limit."
        )

    def _certified(self, row: Row) -> Sentence:
        """Say which threshold is certified, what it answers, or why there is none."""
        limit = in_words(self._risk)
        if row["certified_delta"] is None:
            return [
                f"No threshold is certified: the config does not declare this scheme, confidence and a limit of "
                f"{limit} under bundles. To declare them now, after results were seen, takes new images."
            ]
        delta, images = in_words(row["certified_delta"]), row["certified_images"]
        if row["certified_threshold"] is None:
            return [
                f"No threshold is certified: on {images:,} test images none is shown to keep the limit of {limit}. A "
                f"certificate takes at least {row['certified_fewest']:,} answers, even if all are right."
            ]
        coverage = f"{percent(row['certified_coverage'])}"
        risk = "" if row["certified_risk"] is None else f" at a risk of {percent(row['certified_risk'])}"
        what = f"certified threshold of {row['scheme']} for {row['model']}"
        return [
            "The certified threshold is ",
            Copyable(threshold_in_words(row["certified_threshold"]), str(row["certified_threshold"]), what),
            f", which answers {coverage}{risk}. In distribution its risk stays below {limit}. The probability that "
            f"this fails for any certified threshold of {row['model']} is at most {delta}.",
        ]

    def _under_shift(self, model: str, cell: Cell) -> Iterator[Sentence]:
        verdicts = dict(cell.shifts)
        for dataset in self._shifts:
            row = self._decided[model, cell.scheme, dataset]
            text = f"On {dataset} the threshold set on val {self._shifted(row)}."
            if dataset in verdicts:
                kept = self._kept[model, cell.scheme, dataset]
                keeps = f"it keeps {percent(kept['kept'])} ({span(kept['kept_low'], kept['kept_high'])})"
                word = {MEETS: "holds", FAILS: "breaks", OPEN: "is not settled"}[verdicts[dataset]]
                known = "" if kept["kept"] is None else f": {keeps}"
                text += f" The verdict {word} there{known}."
            yield [text]

    def _shifted(self, row: Row) -> str:
        if row["deployed_risk"] is None:
            return "answers nothing"
        risk = f"{percent(row['deployed_risk'])} ({span(row['deployed_risk_low'], row['deployed_risk_high'])})"
        if row["deployed_images"] < fewest_to_judge(self._risk, self._level):
            told = "too few answers to judge"
        elif self._is_above(row):
            told = "above the limit"
        else:
            within = row["deployed_risk_high"] <= self._risk
            told = "within the limit" if within else "which settles nothing"
        return f"answers {percent(row['deployed_coverage'])} at a risk of {risk}, {told}"


def _by_cell(rows: pl.DataFrame) -> dict[tuple[str, str, str], Row]:
    return {(row["model"], row["scheme"], row["dataset"]): row for row in rows.iter_rows(named=True)}
