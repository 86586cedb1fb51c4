"""Fairness by group: against values by hand, a reference that resamples answer by answer, and known populations."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.confidence.catalogue import member_name
from quantrust.errors import QuantrustError
from quantrust.evaluation import metrics
from quantrust.evaluation.comparison import holm, two_sided_p_value
from quantrust.evaluation.fairness import SCHEMA, FairnessSettings, write_fairness
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.variant import Setting, draw_setting

LIMIT = 0.3
"""Nine images can judge it."""
SETTINGS = {
    "groupings": ["answer_type", "topic"],
    "reference": "bf16",
    "estimators": ["maxprob", "selector"],
    "risk": LIMIT,
    "id_dataset": "id",
    "resamples": 60,
    "seed": 5,
}


def answers(scheme: str) -> pl.DataFrame:
    """Answers to the same questions; three test questions an image, and a Selector of two members."""
    parts = []
    for dataset, split, n in (("id", "val", 90), ("id", "test", 240), ("shift", "test", 150)):
        rng = np.random.default_rng(n)
        kind = rng.choice(["other", "yes/no"], n)
        own = np.random.default_rng([n, len(scheme)])
        right = {"other": 0.55, "yes/no": 0.85}
        quality = np.array([own.choice([1.0, 0.3, 0.0], p=[right[k], 0.1, 0.9 - right[k]]) for k in kind])
        columns = {
            name: np.clip(0.4 * quality + 0.6 * own.random(n), 0, 1).round(2)
            for name in ("maxprob", "selector", member_name("selector", 1))
        }
        parts.append(
            pl.DataFrame(
                {
                    "dataset": dataset,
                    "split": split,
                    "question_id": [f"{split}-{index}" for index in range(n)],
                    "image_id": [f"{split}-{index // 3}" for index in range(n)],
                    "answer_type": kind,
                    "question_kind": pl.Series([None] * n, dtype=pl.String),
                    "quality": quality,
                    **columns,
                }
            )
        )
    return pl.concat(parts)


def judged(folder: Path, scores: dict[str, pl.DataFrame], groups: dict[str, pl.DataFrame], **changes) -> pl.DataFrame:
    """The table of a model of these schemes."""
    first = next(iter(scores.values()))
    paths = {("m", scheme): folder / f"{scheme}.parquet" for scheme in scores}
    for (_, scheme), path in paths.items():
        write_table(scores[scheme], path)
    mixtures = {}
    if "shift" in set(first["dataset"]):
        mixtures["shift"] = folder / "mixtures.parquet"
        id_rows, shift = (first.filter(dataset=name) for name in ("id", "shift"))
        write_table(mixture_table(id_rows, shift, [1, 0], 0), mixtures["shift"])
    group_paths = {dataset: folder / f"groups-{dataset}.parquet" for dataset in groups}
    for dataset, path in group_paths.items():
        write_table(groups[dataset], path)
    out = folder / "fairness.parquet"
    write_fairness(paths, mixtures, group_paths, out, FairnessSettings(**SETTINGS | changes))
    return pl.read_parquet(out)


def topics(scores: pl.DataFrame) -> pl.DataFrame:
    """Three topics of the ID test questions: one of a third of them, one of four images alone, none of the rest."""
    own = scores.filter(dataset="id", split="test")
    number = own["image_id"].str.split("-").list.last().cast(pl.Int64)
    topic = pl.select(
        pl.when(number < 27).then(pl.lit("street")).when(number < 31).then(pl.lit("sea")).otherwise(None)
    ).to_series()
    return pl.DataFrame({"question_id": own["question_id"], "topic": topic}).reverse()


SCHEMES = ("bf16", "hqq-w3", "rtn-w2g")


@pytest.fixture(scope="module")
def scores() -> dict[str, pl.DataFrame]:
    return {scheme: answers(scheme) for scheme in SCHEMES}


@pytest.fixture(scope="module")
def table(scores, tmp_path_factory) -> pl.DataFrame:
    return judged(tmp_path_factory.mktemp("fairness"), scores, {"id": topics(scores["bf16"])})


def threshold_of(scores: pl.DataFrame, column: str) -> float | None:
    val = scores.filter(dataset="id", split="val")
    return metrics.coverage_at_risk(rank(val["quality"], val[column]), LIMIT).threshold


def slow_results(scores: pl.DataFrame, dataset: str, columns: list[str], of_group: dict[str, str | None]) -> dict:
    """Coverage and risk of each group and of all, on the test set and on each resample, answer by answer."""
    test = scores.filter(dataset=dataset, split="test").sort("question_id")
    draws = draw_setting(Setting(dataset, 1.0 if dataset == "id" else 0.0, test), SETTINGS["resamples"], 5)
    thresholds = [threshold_of(scores, column) for column in columns]

    def measured(member: int, times: np.ndarray) -> dict[str | None, tuple[float, float]]:
        asked, kept, lost = defaultdict(float), defaultdict(float), defaultdict(float)
        for place, row in enumerate(test.iter_rows(named=True)):
            for group in {None, of_group.get(row["question_id"])}:
                asked[group] += times[place]
                if row[columns[member]] >= thresholds[member]:
                    kept[group] += times[place]
                    lost[group] += times[place] * (1 - row["quality"])
        return {group: (kept[group] / asked[group], lost[group] / kept[group]) for group in asked}

    on_resamples = [measured(number % len(columns), counts[draws.image]) for number, counts in enumerate(draws.counts)]
    return {"value": measured(0, np.ones(test.height)), "resampled": on_resamples, "threshold": thresholds[0]}


@pytest.mark.parametrize(("dataset", "grouping"), [("id", "answer_type"), ("id", "topic"), ("shift", "answer_type")])
@pytest.mark.parametrize(
    "columns", [["maxprob"], ["selector", member_name("selector", 1)]], ids=["maxprob", "selector"]
)
def test_numbers_are_those_of_counting_answer_by_answer(scores, table, dataset, grouping, columns) -> None:
    own = topics(scores["bf16"]) if grouping == "topic" else scores["bf16"].filter(dataset=dataset, split="test")
    of_group = dict(own.select("question_id", grouping).iter_rows())
    slow = {scheme: slow_results(scores[scheme], dataset, columns, of_group) for scheme in SCHEMES[:2]}
    rows = table.filter(pl.col("grouping") == grouping, pl.col("gap").is_not_null(), estimator=columns[0])
    rows = rows.filter(dataset=dataset, scheme=SCHEMES[1])
    # In the topic sea there are too few images, so that street is the one topic.
    assert set(rows["group"]) == ({"street"} if grouping == "topic" else {"other", "yes/no"})
    tail = 0.05 / 2 / rows["group"].n_unique()
    for row in rows.iter_rows(named=True):
        number = ["deployed_coverage", "deployed_risk"].index(row["metric"])
        value, gap, all_values, gaps = {}, {}, {}, {}
        for scheme, found in slow.items():
            value[scheme] = found["value"][row["group"]][number]
            gap[scheme] = value[scheme] - found["value"][None][number]
            all_values[scheme] = np.array([one[row["group"]][number] for one in found["resampled"]])
            gaps[scheme] = all_values[scheme] - np.array([one[None][number] for one in found["resampled"]])
        reference, own = SCHEMES[:2]
        assert row["threshold"] == slow[own]["threshold"]
        assert (row["value"], row["gap"]) == pytest.approx((value[own], gap[own]))
        assert (row["low"], row["high"]) == pytest.approx(np.quantile(all_values[own], [tail, 1 - tail]))
        assert (row["gap_low"], row["gap_high"]) == pytest.approx(np.quantile(gaps[own], [tail, 1 - tail]))
        change = gaps[own] - gaps[reference]
        assert row["change"] == pytest.approx(gap[own] - gap[reference])
        assert row["reference_gap"] == pytest.approx(gap[reference])
        assert (row["change_low"], row["change_high"]) == pytest.approx(np.quantile(change, [0.025, 0.975]))
        assert row["p_value"] == pytest.approx(two_sided_p_value(change))


def test_rows_are_of_every_scheme_estimator_dataset_and_group(table) -> None:
    assert table.schema == SCHEMA
    # Of the ID dataset all questions, two types and two topics; of the shift all questions and two types.
    assert table.height == 3 * 2 * 2 * (5 + 3)
    assert table["scheme"].unique(maintain_order=True).to_list() == list(SCHEMES)
    assert table.filter(scheme="bf16")["change"].null_count() == table.filter(scheme="bf16").height


def test_p_values_are_corrected_for_all_groups_estimators_and_schemes_of_a_dataset(table) -> None:
    for dataset in ("id", "shift"):
        tests = table.filter(pl.col("p_value").is_not_null(), dataset=dataset)
        # coverage and risk of the groups of which something is said, of two schemes by two estimators
        assert tests.height == 2 * 2 * 2 * (3 if dataset == "id" else 2)
        assert tests["p_holm"].to_list() == holm(tests["p_value"]).tolist()


def test_of_too_few_images_counts_stand_and_nothing_is_said(table) -> None:
    few = table.filter(grouping="topic", group="sea")
    assert set(few["images"]) == {4}
    assert set(few["n"]) == {12}
    numbers = [
        name for name, dtype in SCHEMA.items() if dtype == pl.Float64 and name not in ("risk_limit", "threshold")
    ]
    assert few.select(*numbers, "verdict", "behind", "worst", "effect").null_count().row(0) == (few.height,) * (
        len(numbers) + 4
    )


HAND = {
    # Ten images with a question of each group; the threshold answers the first nine of each.
    "easy": [1.0] * 9 + [0.0],
    "hard": [1.0] * 6 + [0.0] * 3 + [1.0],
}


def by_hand(wrong: int) -> pl.DataFrame:
    """Val that a threshold of 0.5 fits, and test answers of which the easy group has some wrong ones."""
    val = [("val", f"v{n}", f"v{n}", None, quality, confidence) for n, (quality, confidence) in enumerate(VAL)]
    test = []
    for group, qualities in HAND.items():
        for image, quality in enumerate(qualities):
            quality = 0.0 if group == "easy" and image < wrong else quality
            confidence = 0.4 if image == 9 else 0.5
            test.append(("test", f"{group}-{image}", f"i{image}", group, quality, confidence))
    columns = ["split", "question_id", "image_id", "answer_type", "quality", "maxprob"]
    return pl.DataFrame(val + test, schema=columns, orient="row").with_columns(
        pl.lit("id").alias("dataset"), pl.lit(None, dtype=pl.String).alias("question_kind")
    )


# With 0.4 the risk is 2/4, above the limit.
VAL = [(1.0, 0.9), (1.0, 0.5), (0.0, 0.4), (0.0, 0.4)]


def test_values_by_hand(tmp_path) -> None:
    scores = {"bf16": by_hand(0), "rtn-w2c": by_hand(2)}
    table = judged(tmp_path, scores, {}, groupings=["answer_type"], estimators=["maxprob"])
    assert set(table["threshold"]) == {0.5}
    risks = {(row["scheme"], row["group"]): row for row in table.filter(metric="deployed_risk").iter_rows(named=True)}
    # 0 and 3 of 9 answers are wrong, of all 3 of 18; under two bits 2 and 3 of 9, of all 5 of 18.
    expected = {("bf16", "easy"): (0, 3), ("bf16", "hard"): (3, 3), ("rtn-w2c", "easy"): (2, 5)}
    for key, (wrong, of_all) in expected.items():
        assert (risks[key]["value"], risks[key]["gap"]) == pytest.approx((wrong / 9, wrong / 9 - of_all / 18))
        assert (risks[key]["n"], risks[key]["answered"], risks[key]["answered_images"]) == (10, 9, 9)
    assert risks["bf16", None]["value"] == pytest.approx(3 / 18)
    assert [row["worst"] for row in risks.values()] == [None, False, True, None, False, True]
    change = risks["rtn-w2c", "hard"]["change"]
    assert change == pytest.approx((3 / 9 - 5 / 18) - (3 / 9 - 3 / 18))
    coverage = table.filter(metric="deployed_coverage", group="hard")
    assert coverage["value"].to_list() == [0.9, 0.9]
    # Both groups are answered about the same images: neither is behind on any resample.
    assert coverage.select("gap", "gap_low", "gap_high").row(0) == (0, 0, 0)
    assert coverage["behind"].to_list() == [False, False]
    assert coverage["p_value"].to_list() == [None, 1.0]


def test_a_threshold_that_answers_nothing_leaves_the_risk_unsaid(tmp_path) -> None:
    nothing = by_hand(0).with_columns(quality=pl.when(pl.col("split") == "val").then(0.0).otherwise(pl.col("quality")))
    table = judged(tmp_path, {"bf16": nothing}, {}, groupings=["answer_type"], estimators=["maxprob"])
    assert table["threshold"].null_count() == table.height
    assert table.filter(metric="deployed_risk")["value"].null_count() == 3
    assert table.filter(metric="deployed_coverage")["value"].to_list() == [0, 0, 0]


def test_schemes_of_other_questions_are_refused(tmp_path) -> None:
    other = by_hand(0).with_columns(pl.col("question_id").str.replace("hard-3", "hard-33"))
    with pytest.raises(
        QuantrustError, match=r"m/rtn-w2c and another scheme of m do not answer the same questions of id"
    ):
        judged(tmp_path, {"bf16": by_hand(0), "rtn-w2c": other}, {}, groupings=["answer_type"], estimators=["maxprob"])


GROUPS = ("a", "b", "c", "d", "e", "f")


def population(rng: np.random.Generator, risks: dict[str, float], images: int = 240) -> pl.DataFrame:
    """Answers to one question of each group an image, right with a probability that the group and the image have."""
    ease = rng.uniform(0.7, 1.3, images)
    rows = []
    for number, group in enumerate(GROUPS):
        wrong = rng.random(images) < np.clip(ease * risks[group], 0, 1)
        rows.append(
            pl.DataFrame(
                {
                    "split": "test",
                    "question_id": [f"{image}-{number}" for image in range(images)],
                    "image_id": [str(image) for image in range(images)],
                    "answer_type": group,
                    "quality": 1.0 - wrong,
                    "maxprob": np.where(rng.random(images) < 0.9, 0.9, 0.1),
                }
            )
        )
    # The threshold of val is 0.9.
    val = [("val", "v0", "v0", "a", 1.0, 0.9), ("val", "v1", "v1", "a", 0.0, 0.1)]
    fixed = pl.DataFrame(val, schema=rows[0].columns, orient="row")
    return pl.concat([fixed, *rows]).with_columns(
        pl.lit("id").alias("dataset"), pl.lit(None, dtype=pl.String).alias("question_kind")
    )


ALIKE = dict.fromkeys(GROUPS, 0.12)
FEW_RESAMPLES = {"groupings": ["answer_type"], "estimators": ["maxprob"], "resamples": 1999}


def test_a_planted_gap_is_found_and_named(tmp_path) -> None:
    rng = np.random.default_rng(1)
    scores = {"bf16": population(rng, ALIKE), "rtn-w2c": population(rng, ALIKE | {"d": 0.45})}
    table = judged(tmp_path, scores, {}, **FEW_RESAMPLES).filter(metric="deployed_risk")
    found = table.filter(scheme="rtn-w2c", group="d").row(0, named=True)
    assert (found["worst"], found["behind"], found["effect"], found["verdict"]) == (True, True, "widens", "fails")
    assert found["worst_share"] == 1.0
    # 0.45 minus the mean of the groups, 0.175
    assert found["gap_low"] < 0.275 < found["gap_high"]
    # No other group is called behind, though the rest of the groups are ahead of a mean that d has raised.
    assert table.filter(pl.col("behind")).height == 1
    assert table.filter(scheme="bf16", behind=True).is_empty()


def test_no_gap_is_claimed_where_there_is_none(tmp_path) -> None:
    """Forty samples of groups that are alike: some group is the worst in each, and few are called behind."""
    rng = np.random.default_rng(0)
    named, behind, effects, covered = 0, 0, 0, 0
    for _ in range(40):
        scores = {scheme: population(rng, ALIKE) for scheme in ("bf16", "rtn-w2c")}
        table = judged(tmp_path, scores, {}, **FEW_RESAMPLES | {"resamples": 600})
        worst = table.filter(pl.col("worst"), metric="deployed_risk", scheme="bf16")
        named += worst.height
        behind += table.filter(pl.col("behind"), metric="deployed_risk", scheme="bf16").height > 0
        effects += table.filter(pl.col("effect").is_in(["widens", "narrows"])).height > 0
        # The true gap is 0 in every group; the worst group's own gap is above it in every sample.
        covered += int(worst["gap_low"][0] <= 0)
        assert worst["gap"][0] > 0
    assert named == 40
    # 5 % of the samples are 2; more than 6 have a probability below 1 %.
    assert behind <= 6
    assert effects <= 6
    assert covered >= 34


def test_the_fewest_images_follow_from_the_limit() -> None:
    """As for the verdicts on a limit: with 72 images and less a risk of 5 % cannot be told from one of 10 %."""
    assert [FairnessSettings(**SETTINGS | {"risk": risk}).fewest for risk in (LIMIT, 0.05)] == [9, 73]
