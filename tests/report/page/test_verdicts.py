"""The first screen: what it says to ship, under which threshold, and the matrix of verdicts."""

import itertools

import polars as pl
import pytest

from quantrust.evaluation.decisions import SCHEMA as DECISIONS
from quantrust.evaluation.shipping import SCHEMA as SHIPPING
from quantrust.report.page.verdicts import Choice, Panel, VerdictTables, verdict_panels

ID_DATASET, SHIFT = "scenes", "dusk"
BYTES = {"bf16": 1.0, "w8": 0.5, "w4": 0.25, "v4": 0.25, "w2": 0.125}
STUDY = {
    "study": {"id_dataset": ID_DATASET},
    "report": {"shipping": {"estimators": ["maxprob"], "risk": 0.05, "risks": [0.05], "keeps": 0.95}},
    "evaluation": {"confidence_level": 0.95},
}
KEPT = {"meets": (0.98, 0.96, 1.0), "open": (0.95, 0.9, 0.99), "fails": (0.6, 0.5, 0.7)}


def kept(scheme: str, verdict: str, shifted: str = "open", images: int = 750, **changes) -> list[dict]:
    """The rows of a scheme by MaxProb at 5 %, with its verdicts in distribution and under the shift."""
    names = ("kept", "kept_low", "kept_high")
    common = {"model": "m", "scheme": scheme, "estimator": "maxprob", "metric": "coverage_at_risk", "parameter": 0.05}
    return [
        common
        | dict(zip(names, KEPT[one], strict=True))
        | {"dataset": dataset, "verdict": one, "images": images}
        | changes
        for dataset, one in ((ID_DATASET, verdict), (SHIFT, shifted))
    ]


def decision(scheme: str, dataset: str = ID_DATASET, **changes) -> dict:
    """A row of the table of decisions: a threshold that keeps 5 %, as far as answers about 700 images tell."""
    return {
        **{"model": "m", "scheme": scheme, "estimator": "maxprob", "dataset": dataset, "risk_limit": 0.05, "n": 1500},
        **{"deployed_coverage": 0.8, "deployed_coverage_low": 0.78, "deployed_coverage_high": 0.82},
        **{"deployed_risk": 0.04, "deployed_risk_low": 0.03, "deployed_risk_high": 0.05, "deployed_images": 700},
        **{"certified_threshold": 0.95, "certified_delta": 0.1, "certified_images": 750, "certified_fewest": 93},
        **{"certified_coverage": 0.5, "certified_risk": 0.02},
        **{"threshold": 0.9, **changes},
    }


ABOVE = {"deployed_risk": 0.2, "deployed_risk_low": 0.15, "deployed_risk_high": 0.25}


def panels(kept_rows: list[dict], *changed: dict, study: dict = STUDY, schemes=tuple(BYTES)) -> list[Panel]:
    """Return the panels of a study of one model, whose decisions are alike but for those given."""
    rows = [decision(scheme, dataset) for scheme, dataset in itertools.product(schemes, (ID_DATASET, SHIFT))]
    own = {(row["scheme"], row["dataset"], row["risk_limit"], row["estimator"]): row for row in (*rows, *changed)}
    sizes = [
        {"model": "m", "scheme": scheme, "bytes_on_disk": round(1e6 * BYTES[scheme]), "share_of_bf16": BYTES[scheme]}
        for scheme in schemes
    ]
    tables = VerdictTables(
        kept=pl.DataFrame(kept_rows, schema=SHIPPING),
        sizes=pl.DataFrame(sizes),
        decisions=pl.DataFrame(list(own.values()), schema=DECISIONS),
    )
    return verdict_panels(tables, study)


def choice(kept_rows: list[dict], *changed: dict, **given) -> Choice:
    ((found,),) = [panel.choices for panel in panels(kept_rows, *changed, **given)]
    return found


def text(parts: list) -> str:
    return "".join(part if isinstance(part, str) else f"[{part.shown}]" for part in parts)


ALL = [*kept("w8", "meets", "meets"), *kept("w4", "meets", "fails"), *kept("v4", "open"), *kept("w2", "fails")]


def test_the_smallest_scheme_that_ships_is_named_with_threshold_coverage_and_risk() -> None:
    found = choice(ALL)
    assert text(found.lead) == (
        "ship w4, at 25.0 % of the bytes, which keeps 98.0 % (96.0 to 100.0 %) of bf16's coverage. Answer where the "
        "confidence of maxprob is at least [0.9]: this answers 80.0 % (78.0 to 82.0 %) of the 1,500 test questions at "
        "a risk of 4.0 % (3.0 to 5.0 %)."
    )
    assert found.command.whole == "snakemake data/bundles/m/w4"


def test_of_schemes_of_one_size_the_one_that_keeps_most_is_named() -> None:
    assert choice([*kept("w4", "meets", kept=0.97), *kept("v4", "meets", kept=0.99)]).scheme == "v4"


def test_a_threshold_next_to_one_is_shown_apart_from_one_and_copied_whole() -> None:
    threshold = 1 - 3.14e-7
    _, part, _ = choice(ALL, decision("w4", threshold=threshold)).lead
    assert part.shown == "1 - 3.1e-7"
    assert float(part.whole) == threshold


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "This threshold was set on val and keeps the limit of 5 % on the test set."),
        ({"deployed_risk_high": 0.051}, "Whether it keeps the limit of 5 % is not settled"),
        (ABOVE, "This threshold was set on val and breaks the limit of 5 % on the test set."),
        (
            {**ABOVE, "deployed_images": 72},
            "cannot be said: the answers are about 72 images. Fewer than 73 do not tell a risk of 5 % from one of 10 %",
        ),
    ],
)
def test_whether_the_threshold_keeps_its_limit_on_the_test_set_is_said(changes: dict, told: str) -> None:
    assert told in text(choice(ALL, decision("w4", **changes)).notes[0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {},
            "The certified threshold is [0.95], which answers 50.0 % at a risk of 2.0 %. In distribution its risk "
            "stays below 5 %. The probability that this fails for any certified threshold of m is at most 10 %.",
        ),
        (
            {"certified_threshold": None},
            "No threshold is certified: on 750 test images none is shown to keep the limit of 5 %. A certificate takes "
            "at least 93 answers, even if all are right.",
        ),
        (
            {"certified_threshold": None, "certified_delta": None},
            "No threshold is certified: the config does not declare this scheme, confidence and a limit of 5 % under "
            "bundles. To declare them now, after results were seen, takes new images.",
        ),
    ],
    ids=["certified", "not certified", "not declared"],
)
def test_the_certified_threshold_is_said_or_why_there_is_none(changes: dict, told: str) -> None:
    assert text(choice(ALL, decision("w4", **changes)).notes[1]) == told


def test_a_shift_that_breaks_limit_and_verdict_is_named() -> None:
    found = choice(ALL, decision("w4", SHIFT, **ABOVE))
    assert text(found.lead).endswith(" Not on dusk: there its risk is above 5 %.")
    assert text(found.notes[-1]) == (
        "On dusk the threshold set on val answers 80.0 % at a risk of 20.0 % (15.0 to 25.0 %), above the limit. The "
        "verdict breaks there: it keeps 60.0 % (50.0 to 70.0 %)."
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "answers 80.0 % at a risk of 4.0 % (3.0 to 5.0 %), within the limit."),
        ({"deployed_risk_high": 0.06}, "(3.0 to 6.0 %), which settles nothing."),
        ({**ABOVE, "deployed_images": 72}, "(15.0 to 25.0 %), too few answers to judge."),
        (dict.fromkeys(ABOVE) | {"deployed_images": 0}, "answers nothing."),
    ],
)
def test_what_a_shift_leaves_open_breaks_nothing(changes: dict, told: str) -> None:
    found = choice([*kept("w4", "meets", "open")], decision("w4", SHIFT, **changes))
    assert "Not on" not in text(found.lead)
    assert told in text(found.notes[-1]) and "The verdict is not settled there" in text(found.notes[-1])


def test_where_no_scheme_ships_the_unquantized_model_does_and_open_ones_are_named() -> None:
    found = choice([*kept("w8", "open"), *kept("w2", "fails")])
    assert text(found.lead).startswith(
        "stay with bf16: no scheme is shown to keep 95 % of its coverage. Answer where the confidence of maxprob is at"
    )
    assert found.command.whole == "snakemake data/bundles/m/bf16"
    assert "More questions may settle what these schemes keep: w8." in [text(note) for note in found.notes]


def test_without_a_threshold_on_val_nothing_is_bundled() -> None:
    found = choice(ALL, decision("w4", threshold=None))
    assert text(found.lead).endswith("No threshold keeps a risk of 5 % on val, so that it would answer nothing.")
    assert found.command is None


def test_a_threshold_that_no_test_answer_reaches_answers_nothing() -> None:
    nothing = dict.fromkeys(ABOVE) | {"deployed_coverage": 0.0, "deployed_images": 0}
    assert "this answers none of the 1,500 test questions." in text(choice(ALL, decision("w4", **nothing)).lead)


@pytest.mark.parametrize(
    ("kept_rows", "schemes", "told"),
    [
        ([], ["bf16"], "no verdict: the study has no scheme beside bf16 to compare with."),
        ([], ["w4", "w2"], "no verdict: the study has no bf16 to compare with."),
        (
            kept("w4", "open", images=10, n=60),
            ["bf16", "w4"],
            "nothing can be said: the 60 questions are about 10 images, and fewer than 73 do not tell a loss of 5 % "
            "from one of 10 %.",
        ),
        (
            kept("w4", "open", kept=None, kept_low=None, kept_high=None),
            ["bf16", "w4"],
            "no verdict: bf16 itself answers nothing at a risk of 5 %, so that there is nothing to be kept. A higher "
            "limit or more questions may help.",
        ),
    ],
    ids=["alone", "without the reference", "few images", "nothing to keep"],
)
def test_where_there_is_no_verdict_the_reason_is_said_and_nothing_is_shipped(kept_rows, schemes, told) -> None:
    found = choice(kept_rows, schemes=schemes)
    assert (text(found.lead), found.scheme, found.command) == (told, None, None)


def test_the_matrix_has_schemes_by_bytes_with_verdicts_and_what_becomes_of_them_under_shift() -> None:
    (panel,) = panels(ALL, schemes=("w2", "v4", "w4", "bf16", "w8"))
    assert [(scheme, cell.verdict, cell.shifts) for scheme, (cell,) in panel.rows] == [
        ("bf16", "reference", ()),
        ("w8", "meets", ((SHIFT, "meets"),)),
        ("v4", "open", ()),
        ("w4", "meets", ((SHIFT, "fails"),)),
        ("w2", "fails", ()),
    ]
    (cell,) = panel.rows[3][1]
    assert (cell.kept, cell.size, cell.share_of_bf16) == ((0.98, 0.96, 1.0), 250_000, 0.25)
    assert panel.judged == 4


def test_without_the_reference_every_scheme_is_in_the_matrix_without_a_verdict() -> None:
    (panel,) = panels([], schemes=("w4", "w2"))
    assert [(scheme, cell.verdict) for scheme, (cell,) in panel.rows] == [("w4", "none"), ("w2", "none")]


def test_every_confidence_and_limit_has_a_panel_of_its_own() -> None:
    shipping = {"estimators": ["selector", "maxprob"], "risk": 0.05, "risks": [0.05, 0.1], "keeps": 0.95}
    given = [
        (decision(scheme, dataset) | {"risk_limit": risk, "estimator": estimator, "threshold": risk})
        for scheme, dataset in itertools.product(BYTES, (ID_DATASET, SHIFT))
        for risk, estimator in itertools.product(shipping["risks"], shipping["estimators"])
    ]
    verdicts = {
        ("selector", 0.05): "fails",
        ("selector", 0.1): "meets",
        ("maxprob", 0.05): "meets",
        ("maxprob", 0.1): "open",
    }
    rows = [
        row
        for (estimator, risk), one in verdicts.items()
        for row in kept("w4", one, estimator=estimator, parameter=risk)
    ]
    found = panels(rows, *given, study=STUDY | {"report": {"shipping": shipping}})
    assert {(panel.estimator, panel.risk): panel.choices[0].scheme for panel in found} == {
        ("selector", 0.05): "bf16",
        ("selector", 0.1): "w4",
        ("maxprob", 0.05): "w4",
        ("maxprob", 0.1): "bf16",
    }
    assert [panel.choices[0].lead[1].whole for panel in found] == ["0.05", "0.1", "0.05", "0.1"]
