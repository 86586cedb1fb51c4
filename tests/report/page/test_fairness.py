"""The section on fairness: every sentence and cell is read off the table, and nothing is claimed beyond it."""

from dataclasses import replace
from html import escape

import polars as pl
import pytest

from quantrust.evaluation.fairness import SCHEMA
from quantrust.report.page.build import write_page
from quantrust.report.page.fairness import fairness_section

STUDY = {
    "evaluation": {"groups": ["answer_type"], "confidence_level": 0.95},
    "report": {"shipping": {"estimators": ["maxprob"], "risk": 0.05}},
}


def row(scheme: str, group: str | None, metric: str, value: float | None, **more) -> dict:
    """A row of the table; of a group with these numbers."""
    common = {"model": "m", "scheme": scheme, "estimator": "maxprob", "dataset": "id", "metric": f"deployed_{metric}"}
    grouping = None if group is None else "answer_type"
    given = {"grouping": grouping, "group": group, "value": value, "worst": False, "behind": False, **more}
    if value is None or group is None:
        given = {key: None if key in ("worst", "behind") else one for key, one in given.items()}
    return dict.fromkeys(SCHEMA) | common | given


WORST = {"worst": True, "worst_share": 0.62, "gap": 0.04, "gap_low": -0.01, "gap_high": 0.08, "verdict": "open"}
WIDER = WORST | {"gap": 0.09, "gap_low": 0.05, "gap_high": 0.12, "behind": True, "verdict": "fails", "effect": "widens"}
CHANGES = {"reference_gap": 0.04, "change": 0.05, "change_low": 0.01, "change_high": 0.05, "p_holm": 0.01}
OPEN = {"verdict": "meets", "effect": "open", "p_holm": 1.0, "change_low": -0.02, "change_high": 0.03, "gap": -0.01}


@pytest.fixture(scope="module")
def section() -> dict:
    rows = [
        *(row("bf16", None, metric, value) for metric, value in (("coverage", 0.7), ("risk", 0.04))),
        row("bf16", "number", "risk", 0.08, **WORST),
        row("bf16", "other", "risk", 0.03, gap=-0.01, verdict="meets"),
        row("bf16", "rare", "risk", None),
        *(row("rtn-w2c", None, metric, value) for metric, value in (("coverage", 0.5), ("risk", 0.06))),
        row("rtn-w2c", "number", "risk", 0.15, **WIDER | CHANGES),
        row("rtn-w2c", "other", "risk", 0.05, **OPEN),
    ]
    return fairness_section(pl.DataFrame(rows, schema=SCHEMA), "id", STUDY)


def test_the_worst_group_is_named_with_the_interval_of_its_gap_and_what_chance_has_to_do_with_it(section) -> None:
    worst, *_ = section["parts"][0]["sentences"]
    assert worst == (
        "By answer_type, the worst group under bf16 in risk is “number”: 8.0 %, +4.0 points "
        "(\N{MINUS SIGN}1.0 to +8.0) from all questions; that it is behind is not shown "
        "(the worst in 62 % of resamples)."
    )


def test_pairs_that_keep_and_break_the_limit_are_counted(section) -> None:
    assert section["parts"][0]["sentences"][1] == (
        "Of 4 pairs of a group and a scheme, the threshold keeps the 5 % limit in 2 (whole interval of the risk below "
        "it) and breaks it in 1 (whole interval above it): “number” under rtn-w2c; the rest is not settled."
    )


def test_wider_gaps_are_named_and_what_is_not_determined_is_counted_with_its_intervals(section) -> None:
    assert section["parts"][0]["sentences"][2:] == [
        "In distribution, on id, quantization widens 1 gap: “number” in risk under rtn-w2c (+4.0 to +9.0).",
        "It narrows 0 gaps, and changes 0 of groups that are not behind; 1 of 2 changes are not determined (their "
        "intervals reach 2.5 points to either side in the median).",
    ]


def test_groups_of_few_images_are_named_as_such(section) -> None:
    assert section["intro"][-1] == "On id these are “rare” (answer_type)."
    assert "fewer than 73 images" in section["intro"][-2]


def test_a_study_without_another_scheme_says_that_nothing_is_tested() -> None:
    rows = [row("bf16", None, metric, 0.5) for metric in ("coverage", "risk")]
    (part,) = fairness_section(pl.DataFrame(rows, schema=SCHEMA), "id", STUDY)["parts"]
    assert part["sentences"] == [
        "No grouping has two groups of enough images under bf16.",
        "The study has no scheme beside bf16, or lacks bf16: no change of gaps is tested.",
    ]
    assert part["rows"] == [{"scheme": "bf16", "risk": 0.5, "coverage": 0.5, "worst": [None, None]}]


def test_the_page_shows_the_worst_group_of_every_variant_and_estimator(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8").split('<section id="fairness"')[1].split("</section>")[0]
    table = pl.read_csv(page_study.sources.fairness, schema=SCHEMA).filter(pl.col("worst"), dataset="scenes")
    assert not table.is_empty()
    for found in table.iter_rows(named=True):
        assert f"<td>{escape(found['group'])}: {100 * found['value']:.1f} %<small>gap" in text
    assert text.count("<details>") == 2 * 2
    # Its six questions are about three images; its name is the user's, and no markup.
    assert "“$&lt;b&gt;kind&lt;/b&gt;$” (question_kind)" in text


def test_a_study_without_groupings_has_no_such_section(page_study, tmp_path) -> None:
    write_page(
        replace(page_study.sources, fairness=None),
        tmp_path / "index.html",
        captions=page_study.figures,
        config=page_study.config,
        workflow={"snakemake": "9.0"},
    )
    assert 'id="fairness"' not in (tmp_path / "index.html").read_text(encoding="utf-8")
