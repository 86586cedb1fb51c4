"""The summary in words: every number in it is one of the tables'."""

import polars as pl
import pytest

from quantrust.evaluation.comparison import SCHEMA as COMPARISONS
from quantrust.evaluation.shipping import SCHEMA as SHIPPING
from quantrust.report.page.words import limits_of_data, limits_of_val, limits_of_verdicts, percent, span, summary
from quantrust.report.wording import in_words

ID_DATASET = "scenes"
STUDY = {
    "report": {"shipping": {"estimators": ["maxprob", "selector"], "risk": 0.05, "keeps": 0.95}},
    "evaluation": {"confidence_level": 0.95},
    "certification": {"delta": 0.1},
    "comparison": {"resamples": 2000},
}


METRICS = pl.DataFrame(
    [
        ("m", "bf16", "maxprob", "aurc", None, None),
        ("m", "bf16", "selector", "coverage_at_risk", 0.05, [0.60, 0.62, 0.59]),
        ("m", "bf16", "selector", "coverage_at_risk", 0.01, [0.1, 0.9, 0.1]),
        ("m", "bf16", "selector", "aurc", None, [0.040, 0.041, 0.042]),
        ("m", "bf16", "selector", "ece", None, [0.02, 0.03, 0.02]),
        ("m", "hqq-w2g64", "selector", "coverage_at_risk", 0.05, [0.30, 0.25, 0.26]),
        ("m", "hqq-w2g64", "selector", "aurc", None, [0.131, 0.130, 0.130]),
        ("m", "hqq-w2g64", "selector", "ece", None, [0.05, 0.05, 0.01]),
    ],
    schema={
        **dict.fromkeys(("model", "scheme", "estimator", "metric"), pl.String),
        "parameter": pl.Float64,
        "members": pl.List(pl.Float64),
    },
    orient="row",
)


def kept(
    scheme: str, share: float, value: float, low: float, high: float, verdict: str, estimator: str = "maxprob"
) -> list[dict]:
    common = {"model": "m", "scheme": scheme, "estimator": estimator, "dataset": ID_DATASET, "n": 1234, "images": 300}
    # Of five trainings, where it is open, two meet and one fails the criterion.
    common |= {"members": 5, "members_meet": 5 if verdict == "meets" else 2, "members_fail": 1}
    return [
        {
            **common,
            "metric": "accuracy",
            "parameter": None,
            "kept": share,
            "kept_low": share,
            "kept_high": share,
            "verdict": None,
        },
        {
            **common,
            "metric": "coverage_at_risk",
            "parameter": 0.05,
            "kept": value,
            "kept_low": low,
            "kept_high": high,
            "verdict": verdict,
        },
    ]


def decision(
    scheme: str, dataset: str, risk: float | None, low: float | None, high: float | None, answered: int, share: float
) -> dict:
    """A row of the table of decisions; a share of 200 halves of 750 images certifies."""
    common = {"model": "m", "scheme": scheme, "estimator": "maxprob", "dataset": dataset, "risk_limit": 0.05}
    return common | {
        "deployed_risk": risk,
        "deployed_risk_low": low,
        "deployed_risk_high": high,
        "deployed_images": answered,
        "images": 750,
        "val_images": 280,
        "splits": 200,
        "certified_share": share,
    }


@pytest.fixture
def groups() -> dict[str, str]:
    """The sentences of the one model by heading."""
    rows = [
        *kept("mbq-w8g64", 1.0, 1.0, 0.99, 1.01, "meets"),
        *kept("mbq-w4g64", 0.98, 0.97, 0.955, 0.99, "meets"),
        *kept("hqq-w4g64", 0.97, 0.94, 0.90, 0.98, "open"),
        *kept("mbq-w2g64", 0.90, 0.60, 0.50, 0.70, "fails"),
        *kept("hqq-w2g64", 0.80, 0.40, 0.30, 0.50, "fails"),
        *kept("mbq-w8g64", 1.0, 1.0, 0.99, 1.01, "meets", "selector"),
        *kept("mbq-w4g64", 0.98, 0.981, 0.96, 1.0, "meets", "selector"),
        *kept("hqq-w4g64", 0.97, 0.97, 0.951, 0.99, "meets", "selector"),
        *kept("mbq-w2g64", 0.90, 0.60, 0.50, 0.70, "fails", "selector"),
    ]
    sizes = pl.DataFrame(
        {
            "model": "m",
            "scheme": ["mbq-w8g64", "mbq-w4g64", "hqq-w4g64", "mbq-w2g64", "hqq-w2g64"],
            "share_of_bf16": [0.6, 0.27, 0.27, 0.21, 0.2],
        }
    )
    decisions = pl.DataFrame(
        [
            decision("mbq-w8g64", ID_DATASET, 0.045, 0.04, 0.05, 500, 0.73),
            decision("mbq-w4g64", ID_DATASET, 0.05, 0.04, 0.06, 400, 0.945),
            decision("mbq-w2g64", ID_DATASET, 0.072, 0.055, 0.09, 300, 0.005),
            decision("hqq-w2g64", ID_DATASET, 0.051, 0.045, 0.06, 73, 0.5),
            decision("mbq-w8g64", "shift", 0.2, 0.1, 0.3, 90, 0.73),
            decision("mbq-w4g64", "shift", 0.06, 0.045, 0.08, 72, 0.945),
            decision("mbq-w2g64", "shift", 0.0, 0.0, 0.0, 11, 0.005),
            decision("hqq-w2g64", "shift", None, None, None, 0, 0.5),
        ],
        infer_schema_length=None,
    )
    names = ("mbq-w8g64", "mbq-w4g64", "hqq-w4g64")
    comparisons = pl.DataFrame(
        {
            "first_model": "m",
            "first_scheme": names,
            "first_estimator": "selector",
            "second_model": "m",
            "second_scheme": names,
            "second_estimator": "maxprob",
            "dataset": ID_DATASET,
            "metric": "aurc",
            "difference": [-0.1, 0.1, -0.1],
            "p_holm": [0.01, 0.02, 0.2],
        }
    )
    kept_rows = pl.DataFrame(rows, infer_schema_length=None)
    found = summary(kept_rows, sizes, decisions, comparisons, METRICS, ID_DATASET, STUDY)
    assert [model for model, _ in found] == ["m"]
    return {heading: "\n".join(sentences) for heading, sentences in found[0][1]}


@pytest.fixture
def sentences(groups) -> str:
    return groups["By the confidence of maxprob"]


def test_the_smallest_scheme_that_meets_the_criterion_is_named(sentences) -> None:
    assert (
        "The smallest scheme that meets the shipping criterion, at 27.0 % of the bytes: mbq-w4g64, which keeps 98.0 % "
        "of accuracy and 97.0 % of C@5 % (95.5 to 99.0 %); one other meets it too." in sentences
    )


def test_of_schemes_of_equal_size_all_are_named_each_estimator_judging_on_its_own(groups) -> None:
    text = groups["By the confidence of selector"]
    assert (
        "The 2 smallest schemes, of equal size, that meet the shipping criterion, at 27.0 % of the bytes: mbq-w4g64, "
        "which keeps 98.0 % of accuracy and 98.1 % of C@5 % (96.0 to 100.0 %); hqq-w4g64, which keeps 97.0 % of "
        "accuracy and 97.0 % of C@5 % (95.1 to 99.0 %); one other meets it too." in text
    )


def test_the_largest_of_those_that_fail_is_named_and_the_others_counted(sentences) -> None:
    assert (
        "The largest scheme that does not, at 21.0 % of the bytes: mbq-w2g64, which keeps 90.0 % of accuracy"
        in sentences
    )
    assert "60.0 % of C@5 % (50.0 to 70.0 %); one other does not either." in sentences


def test_what_is_not_settled_is_said(sentences) -> None:
    assert "For one scheme the 1,234 questions do not settle it: hqq-w4g64" in sentences


def test_what_trainings_judge_differently_is_said(sentences) -> None:
    assert "do not settle it: hqq-w4g64 (of 5 trainings 2 are shown to meet it and 1 to fail)." in sentences


def test_how_far_another_training_moves_a_learned_estimator_is_said(groups) -> None:
    assert groups["Another training"] == (
        "The 3 trainings of selector, alike but for their seeds, lie apart in distribution by so many points, in the "
        "median and the widest scheme: in C@5 % 4.0 and 5.0; in AURC 0.2 and 0.2; in ECE 2.5 and 4.0."
    )


def test_limits_that_thresholds_of_val_keep_and_break_are_said(sentences) -> None:
    assert (
        "In distribution, on scenes, the threshold set on val keeps the 5 % limit for 1 of 4 schemes (whole interval "
        "of the risk below it) and breaks it for 1, mbq-w2g64 (whole interval above it); the rest is not settled. The "
        "risk reaches 7.2 %." in sentences
    )
    assert (
        "On shift the threshold set on val keeps the 5 % limit for 0 of 1 schemes (whole interval of the risk below "
        "it) and breaks it for 1 (whole interval above it); the rest is not settled. The risk reaches 20.0 %."
        in sentences
    )


def test_of_few_answers_nothing_is_said_but_that(sentences) -> None:
    """Eleven faultless answers have an interval of 0 to 0, and are not for that a limit that is kept."""
    assert (
        "On shift nothing can be said about the limit for 2 of 4 schemes, whose threshold answers questions about 11 "
        "to 72 images. Fewer than 73 do not tell a risk of 5 % from one of 10 %." in sentences
    )
    assert "On shift 1 of 4 schemes answer nothing" in sentences


def test_halves_that_certify_are_counted(groups, sentences) -> None:
    assert (
        "Of 200 random halves of the test images, one question of each, 0.5 to 94.5 % certify a threshold for a risk "
        "limit of 5 % (in distribution, except with probability 10 %), depending on the scheme; for 2 of 4 schemes "
        "more than half of them do." in sentences
    )
    # No decisions by this estimator.
    assert "certif" not in groups["By the confidence of selector"]


NAMES = [f"{place}_{name}" for place in ("first", "second") for name in ("model", "scheme", "estimator")]


def a_summary(kept_rows: list[dict], decisions: list[dict], **study: dict) -> str:
    kept_table, decided = (pl.DataFrame(rows, infer_schema_length=None) for rows in (kept_rows, decisions))
    sizes = pl.DataFrame({"model": "m", "scheme": ["mbq-w8g64"], "share_of_bf16": [0.6]})
    comparisons = pl.DataFrame(
        [("m", "bf16", "selector", "m", "bf16", "maxprob", ID_DATASET, "aurc", -0.1, 0.01)],
        schema=[*NAMES, "dataset", "metric", "difference", "p_holm"],
        orient="row",
    )
    ((_, found),) = summary(kept_table, sizes, decided, comparisons, METRICS, ID_DATASET, STUDY | study)
    return "\n".join(sentence for _, sentences in found for sentence in sentences)


@pytest.mark.parametrize(
    ("schemes", "lacking"), [(["bf16"], "scheme beside bf16"), (["mbq-w8g64"], "bf16")], ids=["alone", "without"]
)
def test_what_a_study_lacks_to_judge_schemes_is_named(schemes: list[str], lacking: str) -> None:
    kept_table = pl.DataFrame(schema=SHIPPING)
    sizes = pl.DataFrame({"model": "m", "scheme": schemes, "share_of_bf16": [1.0]})
    decided = pl.DataFrame([decision(schemes[0], ID_DATASET, 0.04, 0.03, 0.05, 500, 0.7)])
    comparisons = pl.DataFrame(schema={**dict.fromkeys(NAMES, pl.String), **COMPARISONS})
    ((_, found),) = summary(kept_table, sizes, decided, comparisons, METRICS, ID_DATASET, STUDY)
    assert found[0][1][0] == f"The study has no {lacking}, which the shipping criterion compares with."


def test_a_summary_of_few_questions_says_that_nothing_can_be_said() -> None:
    """Sixty questions about ten images, all answered alike: no interval has a width, and none means anything."""
    few = [row | {"n": 60, "images": 10} for row in kept("mbq-w8g64", 1.0, 1.0, 1.0, 1.0, "open")]
    text = a_summary(few, [decision("mbq-w8g64", ID_DATASET, 0.0, 0.0, 0.0, 9, 0.0) | {"images": 10}])
    assert (
        "Nothing can be said about the shipping criterion: the 60 questions are about 10 images, and fewer than 73 do "
        "not tell a loss of 5 % from one of 10 %." in text
    )
    assert "nothing can be said about the limit for 1 of 1 schemes, whose threshold answers questions about 9" in text
    assert (
        "No half of the test images can certify a threshold for a risk limit of 5 % (in distribution, except with "
        "probability 10 %): that takes 45 answers, all right, one an image, and a half has 5." in text
    )
    assert "keeps the" not in text and "breaks" not in text


def test_too_few_resamples_tell_no_estimator_from_another() -> None:
    rows = kept("mbq-w8g64", 1.0, 1.0, 1.0, 1.0, "open"), [decision("mbq-w8g64", ID_DATASET, 0.0, 0.0, 0.0, 9, 0.0)]
    assert (
        "No estimator can be told from another: after Holm's correction for 1 difference it takes 39 "
        "resamples (comparison.resamples) to find any, and there are 38."
        in a_summary(*rows, comparison={"resamples": 38})
    )
    assert "selector ranks answers better than maxprob" in a_summary(*rows, comparison={"resamples": 39})


def test_estimators_are_counted(groups) -> None:
    compared = groups["Estimators compared"]
    assert "selector ranks answers better than maxprob" in compared
    assert "for 1 of 3 schemes and worse for 1" in compared


def asked(skipped: dict[int, tuple[int, int]] | None = None, shared: dict[int, int] | None = None) -> pl.DataFrame:
    """Counts with (questions, images) left out, and images shared with dev, by row; dev shares all with itself."""
    rows = [
        (ID_DATASET, "dev", 750),
        (ID_DATASET, "test", 750),
        ("language", "test", 1867),
        ("multimodal", "test", 900),
    ]
    names = ["dataset", "split", "images", "skipped_questions", "skipped_images", "images_in_home_dev"]
    shared = {0: 750, **(shared or {})}
    records = [(*row, *(skipped or {}).get(place, (0, 0)), shared.get(place, 0)) for place, row in enumerate(rows)]
    return pl.DataFrame(records, schema=names, orient="row")


def test_thresholds_of_a_small_val_split_are_said_to_lie_where_they_do_by_chance() -> None:
    enough, few = (pl.DataFrame({"val_images": [images] * 2}) for images in (73, 2))
    assert limits_of_val(enough, ID_DATASET, 0.05, 0.95) == []
    assert limits_of_val(few, ID_DATASET, 0.05, 0.95) == [
        "Thresholds are set on 2 images of scenes in val. Fewer than 73 do not tell a risk of 5 % from one of 10 %, so "
        "that where they lie is chance."
    ]


def test_nothing_is_said_of_data_where_nothing_was_left_out_or_is_shared() -> None:
    assert limits_of_data(asked(), ID_DATASET, True) == []


def test_what_was_left_out_is_one_sentence() -> None:
    assert limits_of_data(asked({0: (1200, 7), 3: (1, 1)}), ID_DATASET, True) == [
        "Left out of every variant, because images could not be read: 1,200 questions about 7 images in dev of scenes "
        "and 1 question about 1 image in test of multimodal."
    ]


def test_test_images_that_the_selector_trained_on_are_one_sentence() -> None:
    assert limits_of_data(asked(shared={2: 1050, 3: 1}), ID_DATASET, False) == []
    assert limits_of_data(asked(shared={2: 1050, 3: 1}), ID_DATASET, True) == [
        "The Selector trains on dev of scenes, which also holds 1,050 of the 1,867 test images of language and 1 of "
        "the 900 test images of multimodal; its results there are not on new images alone."
    ]


def test_what_a_verdict_means_is_said_with_share_level_and_dataset() -> None:
    text = " ".join(limits_of_verdicts(STUDY["report"]["shipping"], ID_DATASET, 0.9, 12))
    assert all(part in text for part in ("at least 95 %", "the whole 90 % interval", "on scenes", "the 12 verdicts"))


def test_a_single_verdict_is_not_said_to_be_one_of_many() -> None:
    assert "many verdicts" not in " ".join(limits_of_verdicts(STUDY["report"]["shipping"], ID_DATASET, 0.95, 1))


def test_measured_fractions_have_one_decimal_and_those_of_the_config_the_ones_they_have() -> None:
    measured = [0.05, 0.125, 1 / 3, 1.0, 0.0, None]
    assert [percent(value) for value in measured] == ["5.0 %", "12.5 %", "33.3 %", "100.0 %", "0.0 %", "none"]
    assert [in_words(value) for value in (0.05, 0.005, 0.3, 1.0)] == ["5 %", "0.5 %", "30 %", "100 %"]
    assert span(0.912, 1.0) == "91.2 to 100.0 %"
    assert span(None, 1.0) == "undefined"
