"""Intervals of a learned estimator draw one of its networks with every resample of images, the same on both sides."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.breakdowns import BreakdownSettings, break_down
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.certification import CertificationSettings, evaluate_certification
from quantrust.evaluation.comparison import compare
from quantrust.evaluation.decisions import DecisionSettings, decide_variant
from quantrust.evaluation.intervals import metric_interval
from quantrust.evaluation.members import are_probabilities
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.resampling import Resampler
from quantrust.evaluation.results import Estimates
from quantrust.evaluation.shipping import ShippingSettings, write_shipping
from quantrust.evaluation.summary import deploy
from quantrust.evaluation.variant import EvaluationSettings, draw_setting, evaluate_variant, settings_of
from resampled import resampled
from settings_given import given

MEMBERS = ("selector", "selector@2", "selector@3")
RISKS, COSTS = [0.05, 0.2], [10.0]
DRAWS = {"id_dataset": "home", "resamples": 30, "seed": 4}
SETTINGS = {"model": "m", "scheme": "s", "estimators": ["selector"], "risks": RISKS, **DRAWS}


def answers(noises: dict[str, float], right: float = 0.7) -> pl.DataFrame:
    """Scores on the same questions; a column for each noise that blurs what it knows of the quality."""
    parts = []
    for dataset, split, n in (("home", "val", 150), ("home", "test", 300), ("shift", "test", 150)):
        rng = np.random.default_rng([len(dataset), n])
        quality = rng.choice([0, 0.6, 1.0], p=[0.9 - right, 0.1, right], size=n)
        columns = {
            name: np.clip((1 - noise) * quality + noise * np.random.default_rng([n, place]).random(n), 0, 1)
            for place, (name, noise) in enumerate(noises.items())
        }
        parts.append(
            pl.DataFrame(
                {
                    "dataset": [dataset] * n,
                    "split": [split] * n,
                    "question_id": [f"{split}-{index}" for index in range(n)],
                    "image_id": [f"{split}-{index // 2}" for index in range(n)],
                    "answer_type": ["other"] * n,
                    "question_kind": ["colour"] * n,
                    "quality": quality,
                    **columns,
                }
            )
        )
    return pl.concat(parts)


@pytest.fixture(scope="module")
def scores() -> pl.DataFrame:
    """Three networks, the last of which is much the worst."""
    return answers({"maxprob": 0.7, **dict(zip(MEMBERS, (0.4, 0.5, 0.95), strict=True))})


@pytest.fixture(scope="module")
def alike(scores: pl.DataFrame) -> pl.DataFrame:
    return scores.with_columns(pl.col("selector").alias(name) for name in MEMBERS)


@pytest.fixture(scope="module")
def mixtures(scores: pl.DataFrame) -> dict[str, pl.DataFrame]:
    id_rows, shift = scores.filter(pl.col("dataset") == "home"), scores.filter(pl.col("dataset") == "shift")
    return {"shift": mixture_table(id_rows, shift, [1.0, 0.0], seed=0)}


def test_every_resample_is_one_of_one_member_in_turn(scores, mixtures):
    """Against each member on all resamples, of which its own are taken."""
    metrics, curves = evaluate_variant(scores, mixtures, **given(EvaluationSettings, costs=COSTS, **SETTINGS))
    val = scores.filter(pl.col("split") == "val")
    for setting in settings_of(scores, mixtures, "home"):
        draws = draw_setting(setting, 30, 4)
        resampler = Resampler(setting.answers["quality"].to_numpy(), draws)
        turns = np.arange(30) % 3
        found, risks = [], []
        for name in MEMBERS:
            ranking = rank(setting.answers["quality"], setting.answers[name])
            thresholds = deploy(rank(val["quality"], val[name]), RISKS, COSTS)
            found.append(resampler.evaluate(ranking, RISKS, COSTS, thresholds, True))
            risks.append(resampler.risks_at(ranking, np.array([0.5])))
        here = metrics.filter(
            pl.col("dataset") == setting.dataset, pl.col("id_share").eq_missing(setting.id_share), pl.col("low") < 2
        )
        assert {"ece", "coverage_at_risk", "deployed_risk", "e_aurc"} <= set(here["metric"])
        for row in here.iter_rows(named=True):
            key = row["metric"], row["parameter"]
            resampled = np.choose(turns, [of_member[key] for of_member in found])
            low, high = metric_interval(row["metric"], row["value"], resampled, members=np.array(row["members"]))
            assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-12)
        curve = curves.filter(
            pl.col("dataset") == setting.dataset,
            pl.col("id_share").eq_missing(setting.id_share),
            (pl.col("coverage") - 0.5).abs() < 1e-9,
        )
        band = np.quantile(np.choose(turns, [one[:, 0] for one in risks]), [0.025, 0.975])
        assert curve.select("low", "high").row(0) == pytest.approx(tuple(band), abs=1e-12)


def test_the_value_is_that_of_the_first_member_and_the_others_stand_beside_it(scores, mixtures):
    metrics, _ = evaluate_variant(
        scores, mixtures, **given(EvaluationSettings, costs=[], **SETTINGS | {"estimators": ["selector", "maxprob"]})
    )
    alone, _ = evaluate_variant(
        scores.drop(MEMBERS[1:]),
        mixtures,
        **given(EvaluationSettings, costs=[], **SETTINGS | {"estimators": ["selector", "maxprob"]}),
    )
    assert metrics["value"].equals(alone["value"])
    learned = metrics.filter(pl.col("estimator") == "selector")
    assert learned["members"].list.len().unique().to_list() == [3]
    assert learned["members"].list.first().equals(learned["value"].alias("members"))
    aurc = learned.filter(pl.col("metric") == "aurc")["members"].to_list()
    assert all(last > first for first, _, last in aurc)
    assert alone["members"].null_count() == alone.height
    assert metrics.filter(pl.col("estimator") == "maxprob")["members"].null_count() == metrics.height // 2


def test_members_that_agree_change_nothing(scores, alike, mixtures):
    one = scores.drop(MEMBERS[1:])
    certificates = {"delta": 0.1, "seed": 0, "splits": 6, "id_dataset": "home"}
    for evaluate, kind, settings in (
        (evaluate_variant, EvaluationSettings, {"costs": COSTS, **SETTINGS}),
        (break_down, BreakdownSettings, SETTINGS),
        (decide_variant, DecisionSettings, {"delta": 0.1, "splits": 3, **SETTINGS}),
        (
            evaluate_certification,
            CertificationSettings,
            {"model": "m", "scheme": "s", "estimators": ["selector"], "risks": [0.2], **certificates},
        ),
    ):
        tables = [evaluate(table, mixtures, **given(kind, **settings)) for table in (one, alike)]
        pairs = zip(*(table if isinstance(table, tuple) else (table,) for table in tables), strict=True)
        for first, second in pairs:
            same = [name for name in first.columns if name != "members"]
            assert_frame_equal(first.select(same), second.select(same), abs_tol=1e-12)


def test_breakdowns_decisions_and_certificates_draw_members_too(scores, alike, mixtures):
    groups, bins = (
        [break_down(table, mixtures, **given(BreakdownSettings, **SETTINGS))[place] for table in (scores, alike)]
        for place in range(2)
    )
    decisions = [
        decide_variant(table, mixtures, **given(DecisionSettings, delta=0.1, splits=3, **SETTINGS))
        for table in (scores, alike)
    ]
    for (drawn, fixed), key in (
        ((table.filter(pl.col("metric") == "aurc") for table in groups), "high"),
        ((table.filter(pl.col("risk_limit") == 0.2) for table in decisions), "coverage_high"),
    ):
        assert drawn.select("dataset").equals(fixed.select("dataset"))
        assert not drawn[key].equals(fixed[key])
    assert bins[0].drop("low", "high").equals(bins[1].drop("low", "high"))
    assert not bins[0].equals(bins[1])
    settings = {"model": "m", "scheme": "s", "estimators": ["selector"], "risks": [0.2], "delta": 0.1, "seed": 0}
    certificates = [
        evaluate_certification(table, mixtures, **given(CertificationSettings, id_dataset="home", splits=9, **settings))
        for table in (scores, alike)
    ]
    # the first split is of the estimator itself, and the last network ranks too badly to be certified
    assert certificates[0]["threshold"].equals(certificates[1]["threshold"])
    assert (certificates[0]["certified_share"] < certificates[1]["certified_share"]).all()


def test_both_sides_of_a_difference_draw_the_same_member(scores, mixtures):
    """Two variants whose members of the same number agree do not differ, however much the members differ."""
    settings = {"metrics": [("aurc", None), ("ece", None), ("coverage_at_risk", 0.2)], **DRAWS}
    same = compare(Estimates(scores, "selector"), Estimates(scores, "selector"), mixtures, **settings)
    assert same.select("low", "high").unique().rows() == [(0.0, 0.0)]
    swapped = scores.rename({"selector@2": "selector@3", "selector@3": "selector@2"})
    other = compare(Estimates(scores, "selector"), Estimates(swapped, "selector"), mixtures, **settings)
    assert (other["difference"] == 0).all()
    assert (other["low"] < 0).all() and (other["high"] > 0).all()


def test_a_verdict_is_settled_only_if_it_is_under_every_member(scores, mixtures, tmp_path):
    """The scheme of one bad network in three meets the criterion under the two others only."""
    good = scores.with_columns(pl.col("selector@2").alias("selector@3"))
    write_table(mixtures["shift"], tmp_path / "mixture.parquet")
    for name, table in (
        ("bf16", good),
        ("same", good),
        ("torn", scores),
        ("lost", answers(dict.fromkeys(MEMBERS, 1), 0.4)),
    ):
        write_table(table, tmp_path / f"{name}.parquet")
    schemes = ("bf16", "same", "torn", "lost")
    files = resampled(
        {("m", name): tmp_path / f"{name}.parquet" for name in schemes},
        {"shift": tmp_path / "mixture.parquet"},
        tmp_path,
        estimators=["selector"],
        metrics=[("accuracy", None), ("coverage_at_risk", 0.2)],
        **DRAWS | {"resamples": 60},
    )
    settings = ShippingSettings(reference="bf16", estimators=["selector"], risks=[0.2], keeps=0.9)
    write_shipping(files, tmp_path / "shipping.parquet", settings)
    table = pl.read_parquet(tmp_path / "shipping.parquet").filter(dataset="home", metric="coverage_at_risk")
    columns = ("scheme", "verdict", "members", "members_meet", "members_fail")
    assert table.select(columns).rows() == [
        ("same", "meets", 3, 3, 0),
        ("torn", "open", 3, 2, 1),
        ("lost", "fails", 3, 0, 3),
    ]


def test_every_member_is_calibrated_by_itself(scores):
    table = add_calibrated(scores, ["selector+platt"], "home")
    assert table.columns[-3:] == ["selector+platt", "selector@2+platt", "selector@3+platt"]
    for name in MEMBERS:
        alone = add_calibrated(scores.select("dataset", "split", "quality", name), [f"{name}+platt"], "home")
        assert alone[f"{name}+platt"].equals(table[f"{name}+platt"])


def test_the_calibration_errors_of_members_are_reflected_at_their_own_values():
    """Two networks of errors .10 and .20, whose resamples are .02 above them: both are .02 below in truth."""
    resampled = np.array([0.12, 0.22] * 50)
    assert metric_interval("ece", 0.10, resampled, members=np.array([0.10, 0.20])) == pytest.approx((0.08, 0.18))


def test_fewer_resamples_than_members_are_refused(scores, mixtures):
    with pytest.raises(QuantrustError, match="2 resamples of images are too few for selector, which has 3 members"):
        evaluate_variant(scores, mixtures, **given(EvaluationSettings, costs=[], **SETTINGS | {"resamples": 2}))


def test_a_member_without_a_confidence_is_named(scores, mixtures):
    broken = scores.with_columns(pl.lit(None, pl.Float64).alias("selector@3"))
    with pytest.raises(QuantrustError, match=r"m/s: question val-0 of home: selector@3 is None"):
        evaluate_variant(broken, mixtures, **given(EvaluationSettings, costs=[], **SETTINGS))


def test_a_margin_is_no_probability_wherever_it_lies():
    within = pl.DataFrame(dict.fromkeys(("maxprob", "mine", "match-margin"), (0.1, 0.9)))
    assert [are_probabilities(within, name) for name in within.columns] == [True, True, False]
    assert not are_probabilities(within.with_columns(mine=pl.col("mine") + 0.5), "mine")
