import math

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.certification import (
    SCHEMA,
    CertificationSettings,
    Population,
    candidate_thresholds,
    certify,
    evaluate_certification,
    fewest_faultless,
    hoeffding_bentkus,
)
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.mixtures import mixture_table
from settings_given import given


def test_the_fewest_faultless_answers_just_suffice():
    for risk, delta in ((0.01, 0.1), (0.05, 0.1), (0.2, 0.05)):
        n = fewest_faultless(risk, delta)
        assert hoeffding_bentkus([0.0], [n], risk)[0] <= delta
        assert hoeffding_bentkus([0.0], [n - 1], risk)[0] > delta
        assert n - 1 < math.log(delta) / math.log(1 - risk) <= n


def test_hoeffding_bentkus_by_its_definition():
    mean, n, risk = 0.03, 400, 0.05
    kl = mean * math.log(mean / risk) + (1 - mean) * math.log((1 - mean) / (1 - risk))
    expected = min(math.exp(-n * kl), math.e * binom.cdf(12, n, risk))
    assert hoeffding_bentkus([mean], [n], risk)[0] == pytest.approx(expected)


def test_a_mean_at_or_above_the_limit_is_never_rejected():
    assert (hoeffding_bentkus([0.05, 0.2, 1.0], [10_000] * 3, 0.05) >= 0.5).all()
    assert hoeffding_bentkus([0.0], [0], 0.05)[0] == 1.0


def test_a_sum_of_tenths_is_not_rounded_up_by_a_hair():
    added_up = sum([0.1] * 30)
    assert added_up > 3
    found = hoeffding_bentkus([added_up / 300], [300], 0.05)[0]
    assert found == pytest.approx(hoeffding_bentkus([3 / 300], [300], 0.05)[0])
    assert found < math.e * binom.cdf(4, 300, 0.05) * 0.9


@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_p_values_of_soft_losses_at_the_limit_are_valid(risk):
    # The mean is exactly the limit: a p-value at most delta must be as rare as delta.
    rng = np.random.default_rng(0)
    losses = rng.choice([0.0, 0.1, 1.0], p=[1 - 2 * risk / 1.1, risk / 1.1, risk / 1.1], size=(4000, 200))
    p_values = hoeffding_bentkus(losses.mean(axis=1), np.full(4000, 200), risk)
    assert np.mean(p_values <= 0.1) <= 0.1


def test_the_walk_stops_at_the_first_candidate_that_fails():
    # Blocks of 100: faultless, then all wrong, then a faultless thousand that would bring the risk down again.
    quality = np.concatenate([np.ones(100), np.zeros(100), np.ones(1000)])
    confidence = np.repeat([0.9, 0.8, 0.1], [100, 100, 1000])
    certified = certify(quality, confidence, np.array([0.9, 0.8, 0.1]), risk=0.2, delta=0.1)
    assert certified == 0.9
    assert certify(quality, confidence, np.array([0.1]), risk=0.2, delta=0.1) == 0.1
    assert certify(quality, confidence, np.array([0.8, 0.1]), risk=0.2, delta=0.1) is None
    assert certify(np.ones(500), np.linspace(0, 1, 500), np.array([0.5, 0.0]), risk=0.2, delta=0.1) == 0.0


def test_candidates_come_from_val_and_can_be_expected_to_keep_enough_answers():
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    val = rank((rng.random(500) < confidence).astype(float), confidence)
    candidates = candidate_thresholds(val, answers=1000, risk=0.1, delta=0.1)
    assert (np.diff(candidates) < 0).all()
    assert np.isin(candidates, confidence).all()
    kept = [np.mean(confidence >= t) * 1000 for t in candidates]
    assert min(kept) >= fewest_faultless(0.1, 0.1)
    assert candidates[-1] == confidence.min()
    assert candidate_thresholds(val, answers=20, risk=0.1, delta=0.1).size == 0


def population(n, rng, questions_an_image=3, hardness=0.0):
    images = np.repeat(np.arange(n // questions_an_image), questions_an_image)
    ease = rng.normal(size=images.max() + 1)[images] + rng.normal(size=n) - hardness
    right = rng.random(n) < 1 / (1 + np.exp(-2.2 * ease - 1.8))
    quality = np.where(right, rng.choice([0.6, 0.9, 1.0], p=[0.03, 0.07, 0.9], size=n), 0.0)
    return images, quality, 1 / (1 + np.exp(-ease - 0.3 * rng.normal(size=n)))


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(1)
    parts = []
    for dataset, split, n, hardness in (
        ("id", "val", 900, 0),
        ("id", "test", 2400, 0),
        ("shift", "test", 900, 1.0),
    ):
        images, quality, confidence = population(n, rng, hardness=hardness)
        # Surer on the shift than in distribution, though it is harder there.
        confidence = confidence if dataset == "id" else np.minimum(1.0, confidence + 0.35)
        parts.append(
            pl.DataFrame(
                {
                    "dataset": [dataset] * n,
                    "split": [split] * n,
                    "question_id": [f"{split}-{index}" for index in range(n)],
                    "image_id": [f"{split}-{image}" for image in images],
                    "quality": quality,
                    "maxprob": confidence,
                }
            )
        )
    return pl.concat(parts)


@pytest.fixture(scope="module")
def mixtures(scores):
    id_rows, shift = scores.filter(pl.col("dataset") == "id"), scores.filter(pl.col("dataset") == "shift")
    return {"shift": mixture_table(id_rows, shift, [0.5, 0.0], seed=0)}


SETTINGS = {
    "model": "m",
    "scheme": "bf16",
    "id_dataset": "id",
    "estimators": ["maxprob"],
    "risks": [0.01, 0.1, 0.2],
    "delta": 0.1,
    "splits": 100,
    "seed": 0,
}


@pytest.fixture(scope="module")
def table(scores, mixtures):
    return evaluate_certification(scores, mixtures, **given(CertificationSettings, **SETTINGS))


def test_there_is_a_row_for_each_setting_and_limit(table):
    assert table.schema == SCHEMA
    assert table.select("dataset", "id_share", "risk_limit").rows() == [
        (dataset, share, risk)
        for risk in SETTINGS["risks"]
        for dataset, share in (("id", 1.0), ("shift", 0.5), ("shift", 0.0))
    ]


def test_only_in_distribution_is_there_a_guarantee(table):
    assert table.filter(pl.col("guarantee"))["dataset"].unique().to_list() == ["id"]
    assert table.filter(~pl.col("guarantee"))["dataset"].unique().to_list() == ["shift"]
    assert table.filter(~pl.col("guarantee"))["population_violation_rate"].null_count() == 6


def test_the_promise_is_kept_in_distribution_and_broken_under_the_shift(table):
    id_rows = table.filter(pl.col("guarantee"))
    assert (id_rows["population_violation_rate"] <= 0.1).all()
    usable = table.filter((pl.col("risk_limit") == 0.1) & ~pl.col("guarantee"))
    assert (usable["violation_rate"] > 0.5).all()
    assert (id_rows.filter(pl.col("risk_limit") >= 0.1)["certified_share"] > 0.5).all()


def test_certifying_images_are_left_out_of_what_is_evaluated():
    population = Population(
        setting=None,
        quality=np.array([1.0, 0.6, 0.0, 0.0]),
        confidence=np.array([0.9, 0.8, 0.7, 0.2]),
        image=np.array([0, 1, 1, 2]),
    )
    nothing, first = np.zeros(3, dtype=bool), np.array([True, False, False])
    thresholds = [0.7, None, 0.95, 0.8]
    expected = [(3 / 4, 1.4 / 3), (0.0, math.nan), (0.0, math.nan), (2 / 4, 0.4 / 2)]
    assert population.operate(thresholds, nothing) == pytest.approx(np.array(expected), nan_ok=True)
    expected = [(2 / 3, 1.4 / 2), (0.0, math.nan), (0.0, math.nan), (1 / 3, 0.4)]
    assert population.operate(thresholds, first) == pytest.approx(np.array(expected), nan_ok=True)
    everything = np.ones(3, dtype=bool)
    assert population.operate([0.7], everything) == pytest.approx(np.array([(0.0, math.nan)]), nan_ok=True)


def test_figures_over_many_halves_are_those_of_one_half_after_another(scores, table):
    """One limit, one half and one question at a time, with the draws that the seed gives."""
    test = scores.filter((pl.col("dataset") == "id") & (pl.col("split") == "test")).sort("question_id")
    val = scores.filter(pl.col("split") == "val")
    shift = scores.filter(pl.col("dataset") == "shift").sort("question_id")
    # Images are numbered over all settings, those of the shift among them.
    names = pl.concat([test["image_id"], shift["image_id"]]).unique().sort().to_list()
    image = np.array([names.index(name) for name in test["image_id"]])
    quality, confidence = test["quality"].to_numpy(), test["maxprob"].to_numpy()
    images = sorted(set(image.tolist()))
    for risk in (0.1, 0.2):
        candidates = candidate_thresholds(rank(val["quality"], val["maxprob"]), len(images) // 2, risk, 0.1)
        found = []
        for split in range(SETTINGS["splits"]):
            rng = np.random.default_rng([SETTINGS["seed"], split])
            certifying = set(rng.permutation(images)[: len(images) // 2].tolist())
            one: dict[int, int] = {}
            for row in rng.permutation(len(image)):
                one.setdefault(int(image[row]), int(row))
            rows = [one[name] for name in sorted(certifying)]
            threshold = certify(quality[rows], confidence[rows], candidates, risk, 0.1)
            others = [row for row in range(len(image)) if image[row] not in certifying]
            kept = [row for row in others if threshold is not None and confidence[row] >= threshold]
            found.append((threshold, len(kept) / len(others), 1 - quality[kept].mean() if kept else math.nan))
        thresholds, coverages, risks = zip(*found, strict=True)
        row = table.row(by_predicate=(pl.col("dataset") == "id") & (pl.col("risk_limit") == risk), named=True)
        assert row["threshold"] == thresholds[0]
        assert row["certified_share"] == np.mean([threshold is not None for threshold in thresholds])
        assert row["median_coverage"] == pytest.approx(np.median(coverages))
        assert row["mean_coverage"] == pytest.approx(np.mean(coverages))
        assert row["median_risk"] == pytest.approx(np.nanmedian(risks))
        assert row["violation_rate"] == pytest.approx(np.mean(np.array(risks) > risk))


def test_every_split_draws_other_images(scores):
    # With one question an image there is nothing else to draw.
    single = scores.with_columns(image_id="question_id")
    settings = {**SETTINGS, "risks": [0.1], "splits": 1}
    found = {
        evaluate_certification(single, {}, **given(CertificationSettings, **{**settings, "seed": seed}))["coverage"][0]
        for seed in range(5)
    }
    assert len(found) > 3


def test_too_few_images_certify_nothing(scores, mixtures):
    # 150 certifying images, of which even without a fault 230 would be needed.
    few = scores.filter(
        (pl.col("split") == "val") | pl.col("image_id").is_in([f"test-{index}" for index in range(300)])
    )
    table = evaluate_certification(
        few, {}, **given(CertificationSettings, **{**SETTINGS, "risks": [0.01], "splits": 5})
    )
    columns = ["threshold", "coverage", "risk", "certified_share", "median_coverage", "median_risk", "violation_rate"]
    assert table.select(columns).rows() == [(None, 0.0, None, 0.0, 0.0, None, 0.0)]


def test_the_same_seed_gives_the_same_table(scores, mixtures, table):
    settings = {**SETTINGS, "splits": 3}
    shuffled = scores.sample(fraction=1, shuffle=True, seed=4)
    one, two = (
        evaluate_certification(rows, mixtures, **given(CertificationSettings, **settings))
        for rows in (scores, shuffled)
    )
    assert one.equals(two)
    assert one["threshold"].to_list() == table["threshold"].to_list()


def test_the_file_holds_the_table(tmp_path, scores, mixtures, table):
    write_table(scores, tmp_path / "scores.parquet")
    write_table(mixtures["shift"], tmp_path / "shift.parquet")
    paths = tmp_path / "scores.parquet", {"shift": tmp_path / "shift.parquet"}, [tmp_path / "out.parquet"]
    write_from_scores(evaluate_certification, *paths, **given(CertificationSettings, **SETTINGS))
    assert pl.read_parquet(tmp_path / "out.parquet").equals(table)


def test_missing_val_answers_are_named(scores, mixtures):
    with pytest.raises(QuantrustError, match="m/bf16: no answers of id in split val"):
        evaluate_certification(
            scores.filter(pl.col("split") == "test"), mixtures, **given(CertificationSettings, **SETTINGS)
        )


@pytest.mark.parametrize("impossible", [{"risks": [0.0]}, {"risks": [1.0]}, {"delta": 0.0}])
def test_impossible_limits_are_refused(scores, mixtures, impossible):
    with pytest.raises(QuantrustError, match=r"outside \(0, 1\)"):
        evaluate_certification(scores, mixtures, **given(CertificationSettings, **{**SETTINGS, **impossible}))


@pytest.mark.slow
@pytest.mark.parametrize("risk", [0.05, 0.1, 0.2])
def test_the_promise_holds_for_fresh_draws_from_a_known_population(risk):
    rng = np.random.default_rng(5)
    _, all_quality, all_confidence = population(600_000, rng, questions_an_image=1)
    val_rows = rng.integers(600_000, size=1000)
    val = rank(all_quality[val_rows], all_confidence[val_rows])
    candidates = candidate_thresholds(val, 800, risk, 0.1)
    broken = certified = 0
    for _ in range(1000):
        rows = rng.integers(600_000, size=800)
        threshold = certify(all_quality[rows], all_confidence[rows], candidates, risk, 0.1)
        if threshold is not None:
            certified += 1
            broken += (1 - all_quality[all_confidence >= threshold]).mean() > risk
    assert certified > 100
    assert broken <= 100
