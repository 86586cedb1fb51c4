"""The page's section on fairness by group: sentences and rows that are read off the study's table."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from quantrust.evaluation.fairness import AHEAD, COVERAGE, NARROWS, OPEN, RISK, WIDENS
from quantrust.evaluation.limits import fewest_to_judge
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.page.words import listed, percent
from quantrust.report.results import distinct, pick
from quantrust.report.wording import in_words, items, items_about, signed

NAMED = 6
"""Groups that a sentence names one by one; of more it gives the number and the most telling ones."""
MEASURES = {RISK: "risk", COVERAGE: "coverage"}


def fairness_section(table: pl.DataFrame, id_dataset: str, study: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the section shows.

    Parameters
    ----------
    table : polars.DataFrame
        The table of `quantrust.evaluation.fairness`.
    id_dataset : str
        The ID dataset.
    study : mapping
        The config.

    Returns
    -------
    dict
        ``intro``: sentences on what is shown. ``parts``: for each model and each estimator of the shipping criterion
        its ``sentences``, and ``rows`` of the table of worst groups: a row per scheme, whose ``worst`` has a cell for
        each of ``columns``, None where nothing is said.
    """
    groupings, level = study["evaluation"]["groups"], study["evaluation"]["confidence_level"]
    limit = study["report"]["shipping"]["risk"]
    parts = []
    for model in distinct(table, "model"):
        for estimator in study["report"]["shipping"]["estimators"]:
            own = pick(table, model=model, estimator=estimator)
            here = pick(own, dataset=id_dataset)
            sentences = [*_worst_sentences(here, groupings), *_limit_sentences(here, limit), *_effects(own, id_dataset)]
            parts.append(
                {
                    "model": model,
                    "estimator": estimator,
                    "sentences": sentences,
                    "rows": _rows(here, groupings),
                }
            )
    return {
        "intro": _intro(pick(table, dataset=id_dataset), id_dataset, limit, level),
        "columns": [(grouping, MEASURES[metric]) for grouping in groupings for metric in MEASURES],
        "parts": parts,
    }


def _intro(table: pl.DataFrame, id_dataset: str, limit: float, level: float) -> list[str]:
    fewest = fewest_to_judge(limit, level)
    groups = table.filter(pl.col("group").is_not_null())
    said = set(groups.filter(pl.col("value").is_not_null()).select("grouping", "group").iter_rows())
    silent = [row for row in groups.select("grouping", "group").unique(maintain_order=True).rows() if row not in said]
    sentences = [
        f"Every variant answers with one threshold: the one that keeps a risk of {in_words(limit)} on all val "
        f"{items()} of {id_dataset}. This is what it does to each group of {items()}. A group is behind if its risk is "
        f"higher than that of all {items()}, or its coverage lower.",
        f"Some group is the worst by chance alone. For this reason the {in_words(level)} intervals of the groups of a "
        "grouping hold for all of them at once, and a group is called behind only if the whole interval of its gap "
        "says so. The gap of the worst group, as measured, is on average too wide.",
        f"Nothing is said of groups with {items_about(f'fewer than {fewest}')}, nor of the risk where fewer are "
        "answered.",
    ]
    if silent:
        names = listed([f"{_quoted(group)} ({grouping})" for grouping, group in silent[:NAMED]])
        more = f" and {len(silent) - NAMED} more" if len(silent) > NAMED else ""
        sentences.append(f"On {id_dataset} these are {names}{more}.")
    return sentences


def _worst_sentences(here: pl.DataFrame, groupings: list[str]) -> list[str]:
    """Name the worst group of each grouping without quantization, or under the first scheme of a study without it."""
    scheme = UNQUANTIZED if UNQUANTIZED in set(here["scheme"]) else here["scheme"][0]
    sentences = []
    for grouping in groupings:
        parts = []
        for metric, measure in MEASURES.items():
            rows = pick(here, scheme=scheme, grouping=grouping, metric=metric).filter(pl.col("worst"))
            for row in rows.iter_rows(named=True):
                shown = "it is behind" if row["behind"] else "that it is behind is not shown"
                parts.append(
                    f"in {measure} is {_quoted(row['group'])}: {percent(row['value'])}, {_points(row, 'gap')} from all "
                    f"{items()}; {shown} ({_worst_share(row)})"
                )
        if parts:
            sentences.append(f"By {grouping}, the worst group under {scheme} {'; '.join(parts)}.")
    return sentences or [f"No grouping has two groups of enough images under {scheme}."]


def _limit_sentences(here: pl.DataFrame, limit: float) -> list[str]:
    """Name the groups for which the threshold breaks the limit, with the schemes under which it does."""
    risks = here.filter(pl.col("group").is_not_null() & pl.col("verdict").is_not_null())
    if risks.is_empty():
        return []
    broken = risks.filter(verdict="fails").group_by("group", maintain_order=True).agg("scheme")
    kept = pick(risks, verdict="meets").height
    names = [f"{_quoted(group)} under {_some(schemes)}" for group, schemes in broken.iter_rows()]
    which = f": {listed(names)}" if names else ""
    return [
        f"Of {risks.height} pairs of a group and a scheme, the threshold keeps the {in_words(limit)} limit in {kept} "
        f"(whole interval of the risk below it) and breaks it in {pick(risks, verdict='fails').height} (whole interval "
        f"above it){which}; the rest is not settled."
    ]


def _effects(own: pl.DataFrame, id_dataset: str) -> list[str]:
    """Say on each dataset whose gaps quantization widens and narrows, and what is not determined."""
    sentences = []
    for dataset in distinct(own, "dataset"):
        tests = pick(own, dataset=dataset).filter(pl.col("effect").is_not_null())
        if tests.is_empty():
            continue
        where = f"In distribution, on {dataset}," if dataset == id_dataset else f"On {dataset}"
        widened, narrowed, undecided = (pick(tests, effect=effect) for effect in (WIDENS, NARROWS, OPEN))
        named = f": {', '.join(_widest(widened))}" if widened.height else ""
        sentences.append(f"{where} quantization widens {_number(widened.height, 'gap')}{named}.")
        in_coverage = f", {pick(narrowed, metric=COVERAGE).height} of them in coverage" if narrowed.height else ""
        rest = f"{undecided.height} of {tests.height} changes are not determined"
        if undecided.height:
            half = 50 * float((undecided["change_high"] - undecided["change_low"]).median())
            rest += f" (their intervals reach {half:.1f} points to either side in the median)"
        sentences.append(
            f"It narrows {_number(narrowed.height, 'gap')}{in_coverage}, and changes "
            f"{pick(tests, effect=AHEAD).height} of groups that are not behind; {rest}."
        )
    if not sentences:
        return [f"The study has no scheme beside {UNQUANTIZED}, or lacks {UNQUANTIZED}: no change of gaps is tested."]
    return sentences


def _widest(found: pl.DataFrame) -> list[str]:
    """Name the gaps that change, the largest changes first, and count the rest."""
    found = found.sort(pl.col("change").abs(), descending=True, maintain_order=True)
    names = [_changed(row) for row in found.head(NAMED).iter_rows(named=True)]
    return names + ([f"and {found.height - NAMED} more"] if found.height > NAMED else [])


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _changed(row: Mapping[str, Any]) -> str:
    what = f"{_quoted(row['group'])} in {MEASURES[row['metric']]} under {row['scheme']}"
    return f"{what} ({signed(row['reference_gap'])} to {signed(row['gap'])})"


def _points(row: Mapping[str, Any], name: str) -> str:
    """Return a difference in points with its interval."""
    return f"{signed(row[name])} points ({signed(row[f'{name}_low'])} to {signed(row[f'{name}_high'])})"


def _worst_share(row: Mapping[str, Any]) -> str:
    return f"the worst in {100 * row['worst_share']:.0f} % of resamples"


def _quoted(group: str) -> str:
    """Return a group's name, which may be any word, as it stands in a sentence."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{group}\N{RIGHT DOUBLE QUOTATION MARK}"


def _some(names: list[str]) -> str:
    return listed(names) if len(names) <= NAMED else f"{len(names)} schemes"


def _rows(here: pl.DataFrame, groupings: list[str]) -> list[dict[str, Any]]:
    found = []
    for scheme in distinct(here, "scheme"):
        own = pick(here, scheme=scheme)
        (whole,) = own.filter(pl.col("group").is_null(), metric=RISK).to_dicts()
        (answered,) = own.filter(pl.col("group").is_null(), metric=COVERAGE).to_dicts()
        cells = []
        for grouping in groupings:
            for metric in MEASURES:
                rows = pick(own, grouping=grouping, metric=metric).filter(pl.col("worst")).to_dicts()
                cells.append(rows[0] if rows else None)
        found.append({"scheme": scheme, "risk": whole["value"], "coverage": answered["value"], "worst": cells})
    return found
