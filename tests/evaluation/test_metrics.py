import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, brier_score_loss, roc_auc_score

from quantrust.evaluation import metrics
from quantrust.evaluation.metrics import OperatingPoint, rank
from quantrust.evaluation.summary import deploy, summarise

# Five answers; confidences descend, so that the running sums below can be read off.
DISTINCT = ([1.0, 1.0, 0.0, 0.6, 0.3], [0.9, 0.8, 0.7, 0.6, 0.5])
TIED_AT_THE_TOP = ([1.0, 0.0, 1.0, 1.0, 0.0], [0.9, 0.9, 0.8, 0.7, 0.6])
TIED_AT_THE_LIMIT = ([1.0, 1.0, 0.0, 1.0, 0.0], [0.9, 0.8, 0.7, 0.7, 0.6])
ALL_TIED = ([1.0, 0.0, 1.0, 0.6, 0.3], [0.5] * 5)


def curve(answers):
    return metrics.risk_coverage_curve(rank(*answers))[1]


def test_curve_of_distinct_confidences():
    coverage, risk = metrics.risk_coverage_curve(rank(*DISTINCT))
    np.testing.assert_allclose(coverage, [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 0.35, 0.42])


def test_within_a_block_every_risk_counts_as_the_blocks_mean():
    np.testing.assert_allclose(curve(TIED_AT_THE_TOP), [0.5, 0.5, 1 / 3, 1 / 4, 2 / 5])
    np.testing.assert_allclose(curve(TIED_AT_THE_LIMIT), [0, 0, 0.5 / 3, 1 / 4, 2 / 5])
    np.testing.assert_allclose(curve(ALL_TIED), [0.42] * 5)


def trapezoid(risks):
    return sum((one + other) / 2 for one, other in itertools.pairwise(risks)) / len(risks)


@pytest.mark.parametrize("answers", [DISTINCT, TIED_AT_THE_TOP, TIED_AT_THE_LIMIT, ALL_TIED])
def test_aurc_is_the_trapezoid_over_the_n_points(answers):
    risks = curve(answers).tolist()
    assert metrics.aurc(rank(*answers)) == pytest.approx(trapezoid(risks))
    assert metrics.aurc(rank(*answers)) == pytest.approx(auc(np.arange(1, 6) / 5, risks))


# Of five references: multiples of 1/15, whose sums floating-point numbers do not hold exactly.
FIFTEENTHS = ([1.0, 4 / 15, 0.0, 8 / 15, 0.8], [0.9, 0.8, 0.7, 0.7, 0.5])


def test_any_quality_between_0_and_1_is_ranked():
    ranking = rank(*FIFTEENTHS)
    # Risks in fifteenths 0 11 15 7 3, of which the third and fourth, 22 together, are tied.
    assert metrics.mean_accuracy(ranking) == pytest.approx(39 / 75)
    np.testing.assert_allclose(curve(FIFTEENTHS), [0, 11 / 30, 22 / 45, 33 / 60, 36 / 75])
    at = metrics.coverage_at_risk(ranking, 0.5)
    assert (at.coverage, at.threshold, at.risk) == (1.0, 0.5, pytest.approx(36 / 75))
    # Phi at cost 1: 15 + 4 - 15 + 8 + 12 fifteenths.
    assert metrics.effective_reliability_no_abstention(ranking, 1) == pytest.approx(24 / 75)
    assert metrics.augrc(ranking) == pytest.approx((0 + 0.5 * 11 + (11 + 33) + 33 + 1.5) / 15 / 25)


def test_aurc_by_hand():
    assert metrics.aurc(rank(*DISTINCT)) == pytest.approx((0 + 1 / 3 + 0.35 + 0.21) / 5)
    assert metrics.aurc(rank(*ALL_TIED)) == pytest.approx(0.42 * 4 / 5)


def test_e_aurc_takes_the_ideal_order_away():
    # Ideal order 1 1 .6 .3 0: risks 0 0 .4 .7 1, running means 0 0 .4/3 .275 .42.
    ideal = (0 + 0.4 / 3 + 0.275 + 0.21) / 5
    assert metrics.e_aurc(rank(*DISTINCT)) == pytest.approx(metrics.aurc(rank(*DISTINCT)) - ideal)
    assert metrics.e_aurc(rank([1.0, 0.6, 0.0], [3, 2, 1])) == 0.0


def test_augrc_by_hand():
    # Sums of risks 0 0 0 1 1.4 2.1 over five questions, trapezoid from coverage 0.
    assert metrics.augrc(rank(*DISTINCT)) == pytest.approx((1 / 2 + (1 + 1.4) / 2 + (1.4 + 2.1) / 2) / 25)
    # One block: a straight line from 0 to .42.
    assert metrics.augrc(rank(*ALL_TIED)) == pytest.approx(0.21)


def test_augrc_of_binary_risks_follows_from_auroc_and_accuracy():
    rng = np.random.default_rng(0)
    quality = rng.integers(2, size=400).astype(float)
    ranking = rank(quality, np.round(quality * 0.3 + rng.random(400), 1))
    right = quality.mean()
    expected = (1 - metrics.auroc(ranking)) * right * (1 - right) + (1 - right) ** 2 / 2
    assert metrics.augrc(ranking) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answers", "limit", "coverage", "threshold"),
    [
        (DISTINCT, 0.0, 0.4, 0.8),
        (DISTINCT, 0.34, 0.6, 0.7),
        (DISTINCT, 0.35, 0.8, 0.6),
        (DISTINCT, 0.42, 1.0, 0.5),
        # The top block has risk .5: nothing below that limit until the answers after it bring the risk down.
        (TIED_AT_THE_TOP, 0.25, 0.8, 0.7),
        (TIED_AT_THE_TOP, 0.2, 0.0, None),
        (TIED_AT_THE_TOP, 0.4, 1.0, 0.6),
        # The limit falls inside the block of .7, whose first row in some orders would still keep it.
        (TIED_AT_THE_LIMIT, 0.2, 0.4, 0.8),
        (TIED_AT_THE_LIMIT, 0.25, 0.8, 0.7),
        (ALL_TIED, 0.41, 0.0, None),
        (ALL_TIED, 0.42, 1.0, 0.5),
    ],
)
def test_coverage_at_risk_by_hand(answers, limit, coverage, threshold):
    point = metrics.coverage_at_risk(rank(*answers), limit)
    assert (point.coverage, point.threshold) == (pytest.approx(coverage), threshold)
    assert not point.risk > limit


def test_going_back_from_inside_a_block_needs_a_change_of_confidence_and_a_risk_within_the_limit():
    # Blocks end at risks 1/2 and 1/3: leaving the block of .7 lands on one that breaks the limit as well.
    assert metrics.coverage_at_risk(rank([0.0, 1.0, 1.0, 0.0], [0.9, 0.8, 0.7, 0.7]), 0.4).coverage == 0.0


def test_a_later_threshold_within_the_limit_beats_an_earlier_one():
    assert metrics.coverage_at_risk(rank([1.0, 0.0, 1.0, 1.0, 1.0], [5, 4, 3, 2, 1]), 0.2).coverage == 1.0


@pytest.mark.parametrize("limit", [0.1, 0.2, 0.3, 0.05])
def test_a_risk_that_equals_its_limit_is_within_it(limit):
    # Float sums of .4, .7 and .1 exceed the exact ones by a hair.
    pool = {0.1: [0.6] * 10 + [1.0] * 30, 0.2: [0.3] * 20 + [1.0] * 50, 0.3: [0.6] * 30 + [1.0] * 10}
    quality = pool.get(limit, [0.9] * 50 + [1.0] * 50)
    for order in (1, -1):
        point = metrics.coverage_at_risk(rank(quality[::order], np.arange(len(quality))), limit)
        assert (point.coverage, point.risk) == (1.0, limit)


def test_deployed_threshold_answers_at_or_above():
    ranking = rank(*TIED_AT_THE_LIMIT)
    assert metrics.at_threshold(ranking, 0.7) == OperatingPoint(0.7, 0.8, 0.25)
    assert metrics.at_threshold(ranking, 0.75) == OperatingPoint(0.75, 0.4, 0.0)
    assert metrics.at_threshold(ranking, 0.1).coverage == 1.0


@pytest.mark.parametrize("threshold", [None, 0.95])
def test_nothing_answered_has_no_risk(threshold):
    point = metrics.at_threshold(rank(*DISTINCT), threshold)
    assert point.coverage == 0.0
    assert math.isnan(point.risk)
    assert metrics.effective_reliability(rank(*DISTINCT), 10, threshold) == 0.0


def test_effective_reliability_by_hand():
    ranking = rank(*DISTINCT)
    assert metrics.effective_reliability(ranking, 1, 0.8) == pytest.approx(2 / 5)
    assert metrics.effective_reliability(ranking, 1, 0.7) == pytest.approx(1 / 5)
    assert metrics.effective_reliability(ranking, 1, 0.5) == pytest.approx(1.9 / 5)
    assert metrics.effective_reliability(ranking, 100, 0.7) == pytest.approx(-98 / 5)
    assert metrics.effective_reliability_no_abstention(ranking, 10) == pytest.approx((2.9 - 10) / 5)
    assert metrics.effective_reliability_best(ranking) == pytest.approx(2.9 / 5)


@pytest.mark.parametrize(
    ("answers", "cost", "threshold"),
    [
        (DISTINCT, 1, 0.8),  # running sums 1 2 1 1.6 1.9
        (DISTINCT, 0.5, 0.5),  # 1 2 1.5 2.1 2.4
        (DISTINCT, 0.9, 0.5),  # 1 2 1.1 1.7 2.0: among equals the lowest
        (TIED_AT_THE_TOP, 1, 0.7),  # 0 1 2 1
        (TIED_AT_THE_TOP, 2, 0.7),  # -1 0 1 -1
        (TIED_AT_THE_TOP, 3, 0.7),  # -2 -1 0 -3: as good as abstaining, with more coverage
        (TIED_AT_THE_TOP, 4, None),  # -3 -2 -1 -5
        (TIED_AT_THE_LIMIT, 0.5, 0.7),  # block ends 1 2 2.5 2
        (TIED_AT_THE_LIMIT, 1, 0.7),  # 1 2 2 1
        (TIED_AT_THE_LIMIT, 10, 0.8),  # inside the block of .7 the sum may reach 3, but no threshold ends there
        (ALL_TIED, 1, 0.5),
        (ALL_TIED, 10, None),
        (([0.0, 0.0], [0.9, 0.8]), 0, 0.8),
        (([0.0, 0.0], [0.9, 0.8]), 1, None),
    ],
)
def test_the_threshold_that_maximises_effective_reliability(answers, cost, threshold):
    assert metrics.effective_reliability_threshold(rank(*answers), cost) == threshold


def test_equal_worth_is_recognised_in_spite_of_rounding():
    # Running sums 1 1.3 1.9 1 1.3 1.9 1; added up in floats the first 1.9 is the larger by a hair.
    ranking = rank([1.0, 0.3, 0.6, 0.0, 0.3, 0.6, 0.0], [7, 6, 5, 4, 3, 2, 1])
    assert metrics.effective_reliability_threshold(ranking, 0.9) == 2


def test_both_calibration_errors_by_hand():
    quality, confidence = DISTINCT
    gaps = np.array(confidence) - quality
    assert metrics.ece(rank(quality, confidence)) == pytest.approx(np.abs(gaps).sum() / 5)
    assert metrics.ece_mass(rank(quality, confidence)) == pytest.approx(np.abs(gaps).sum() / 5)
    # In one bin gaps cancel: .1 - .2 + .3 and so on.
    close = rank([1.0, 0.0, 1.0, 0.0], [0.62, 0.63, 0.64, 0.65])
    assert metrics.ece(close) == pytest.approx(abs(0.62 + 0.63 + 0.64 + 0.65 - 2) / 4)


def test_equal_width_bins_are_closed_to_the_right():
    # .6 = 9/15 ends bin nine; .61 is in the next, so that their gaps do not cancel.
    assert metrics.ece(rank([1.0, 0.0], [0.6, 0.61])) == pytest.approx((0.4 + 0.61) / 2)
    assert metrics.ece(rank([1.0, 0.0], [0.6, 0.59])) == pytest.approx(abs(0.4 - 0.59) / 2)
    assert metrics.width_bins(np.array([0.0, 1 / 15, 0.2, 0.4, 0.6, 0.8, 1.0])).tolist() == [0, 0, 2, 5, 8, 11, 14]


def test_equal_mass_bins_differ_by_one_answer_at_most_and_the_lower_are_larger():
    assert np.diff(metrics.mass_edges(32)).tolist() == [-3, -3] + [-2] * 13
    # 16 answers: the two least confident share a bin.
    quality = np.zeros(16)
    quality[0] = 1.0
    confidence = np.linspace(0.1, 0.85, 16)
    expected = (abs(confidence[0] - 1 + confidence[1]) + confidence[2:].sum()) / 16
    assert metrics.ece_mass(rank(quality, confidence)) == pytest.approx(expected)


def test_equal_mass_bins_agree_with_the_plain_definition():
    rng = np.random.default_rng(1)
    for n in (15, 100, 149, 150):
        confidence = rng.random(n)
        quality = rng.choice([0, 0.3, 0.6, 0.9, 1.0], size=n)
        order = np.argsort(confidence)
        bins = np.array_split(order, 15)
        expected = sum(abs(confidence[b].mean() - quality[b].mean()) * len(b) for b in bins) / n
        assert metrics.ece_mass(rank(quality, confidence)) == pytest.approx(expected)


def test_brier_by_hand():
    assert metrics.brier(rank([1.0, 0.6, 0.0], [0.9, 0.5, 0.2])) == pytest.approx((0.01 + 0.01 + 0.04) / 3)


@pytest.mark.parametrize("confidence", [[0.5, -0.1], [0.5, 1.1]])
def test_what_is_no_probability_has_no_calibration_error(confidence):
    ranking = rank([1.0, 0.0], confidence)
    assert [math.isnan(f(ranking)) for f in (metrics.ece, metrics.ece_mass, metrics.brier)] == [True] * 3


def test_auroc_by_hand():
    # Right from .5 on: 1, 1, 0, .6 right, .3 wrong.
    assert metrics.auroc(rank(*DISTINCT)) == pytest.approx(5 / 6)
    assert metrics.auroc(rank(*ALL_TIED)) == 0.5


def test_auroc_and_brier_agree_with_scikit_learn():
    rng = np.random.default_rng(2)
    for decimals in (1, 2, 8):
        confidence = np.round(rng.random(500), decimals)
        soft = rng.choice([0, 0.3, 0.6, 0.9, 1.0], size=500)
        right = soft >= 0.5
        assert metrics.auroc(rank(soft, confidence)) == pytest.approx(roc_auc_score(right, confidence))
        assert metrics.brier(rank(right, confidence)) == pytest.approx(brier_score_loss(right, confidence))


def test_one_class_has_no_auroc():
    assert math.isnan(metrics.auroc(rank([1.0, 0.6], [0.5, 0.4])))
    assert math.isnan(metrics.auroc(rank([0.0, 0.3], [0.5, 0.4])))


def test_columns_of_a_table_will_do():
    table = pl.DataFrame({"quality": [1.0, 0.0], "confidence": [0.9, 0.1]})
    assert metrics.aurc(rank(table["quality"], table["confidence"])) == 0.125


@pytest.mark.parametrize(
    ("quality", "confidence", "message"),
    [
        ([], [], "no answers"),
        ([1.0], [0.5, 0.6], "shapes"),
        ([[1.0]], [[0.5]], "vectors"),
        ([1.1], [0.5], r"\[0, 1\]"),
        ([-0.1], [0.5], r"\[0, 1\]"),
        ([math.nan], [0.5], r"\[0, 1\]"),
        ([1.0], [math.nan], "finite"),
        ([1.0], [math.inf], "finite"),
        ([1.0, 1.0], [math.inf, -math.inf], "finite"),
    ],
)
def test_bad_input_is_refused(quality, confidence, message):
    with pytest.raises(ValueError, match=message):
        rank(quality, confidence)


@pytest.mark.parametrize("risk", [-0.01, 1.01, math.inf, math.nan])
def test_an_impossible_risk_limit_is_refused(risk):
    with pytest.raises(ValueError, match=f"a risk limit must lie in \\[0, 1\\], got {risk}"):
        metrics.coverage_at_risk(rank(*DISTINCT), risk)


@pytest.mark.parametrize("cost", [-1.0, math.inf, math.nan])
@pytest.mark.parametrize(
    "metric",
    [
        lambda ranking, cost: metrics.effective_reliability(ranking, cost, 0.5),
        lambda ranking, cost: metrics.effective_reliability(ranking, cost, None),
        metrics.effective_reliability_threshold,
        metrics.effective_reliability_no_abstention,
    ],
)
def test_an_impossible_cost_is_refused(metric, cost):
    with pytest.raises(ValueError, match=f"a cost must be finite and at least 0, got {cost}"):
        metric(rank(*DISTINCT), cost)


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="a threshold must be a number or None, got nan"):
        metrics.at_threshold(rank(*DISTINCT), math.nan)
    with pytest.raises(ValueError, match="a threshold must be a number or None, got nan"):
        metrics.effective_reliability(rank(*DISTINCT), 1.0, math.nan)


@pytest.mark.parametrize(("threshold", "coverage"), [(-math.inf, 1.0), (math.inf, 0.0)])
def test_an_infinite_threshold_answers_all_or_nothing(threshold, coverage):
    assert metrics.at_threshold(rank(*DISTINCT), threshold).coverage == coverage


# What holds for every metric.

RISKS, COSTS = [0.05, 0.2, 0.4], [0.5, 1.0, 10.0]


def everything(quality, confidence):
    """All metrics of the tables, with thresholds chosen on the answers themselves."""
    ranking = rank(quality, confidence)
    return summarise(ranking, RISKS, COSTS, deploy(ranking, RISKS, COSTS), ranking.is_probability)


soft = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])
some_answers = st.lists(st.tuples(soft, st.sampled_from([k / 16 for k in range(17)])), min_size=1, max_size=40)


@given(some_answers, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(answers, random):
    before = everything(*zip(*answers, strict=True))
    random.shuffle(answers)
    after = everything(*zip(*answers, strict=True))
    assert after == pytest.approx(before, abs=1e-12, nan_ok=True)


CALIBRATION = ("ece", "ece_mass", "brier")


@given(some_answers)
def test_a_strictly_monotone_transform_moves_only_thresholds_and_calibration(answers):
    quality, confidence = map(np.array, zip(*answers, strict=True))
    before, after = everything(quality, confidence), everything(quality, np.exp(3 * confidence) - 7)
    for (name, parameter), value in before.items():
        if "threshold" in name:
            moved = math.nan if math.isnan(value) else np.exp(3 * value) - 7
            assert after[name, parameter] == pytest.approx(moved, nan_ok=True)
        elif name not in CALIBRATION:
            assert after[name, parameter] == pytest.approx(value, nan_ok=True), name


@given(some_answers)
def test_every_metric_keeps_its_range(answers):
    values = everything(*zip(*answers, strict=True))
    for (name, cost), value in values.items():
        if math.isnan(value) or "threshold" in name:
            continue
        lowest = -cost if name in ("effective_reliability_no_abstention",) else 0.0
        assert lowest - 1e-12 <= value <= (0.5 if name == "augrc" else 1.0), name


@given(some_answers)
def test_the_curve_agrees_with_the_definition_row_by_row(answers):
    quality, confidence = map(np.array, zip(*answers, strict=True))
    risks = np.array([1 - quality[confidence == c].mean() for c in confidence])[np.argsort(-confidence)]
    expected = [risks[: k + 1].mean() for k in range(len(risks))]
    np.testing.assert_allclose(metrics.risk_coverage_curve(rank(quality, confidence))[1], expected, atol=1e-12)


@given(some_answers, st.sampled_from(RISKS))
def test_no_threshold_has_more_coverage_within_the_limit(answers, limit):
    quality, confidence = map(np.array, zip(*answers, strict=True))
    coverages = [0.0]
    for threshold in set(confidence):
        answered = confidence >= threshold
        if (1 - quality[answered]).mean() <= limit + 1e-12:
            coverages.append(answered.mean())
    assert metrics.coverage_at_risk(rank(quality, confidence), limit).coverage == pytest.approx(max(coverages))


@given(some_answers, st.sampled_from(COSTS))
def test_no_threshold_has_more_effective_reliability(answers, cost):
    ranking = rank(*zip(*answers, strict=True))
    best = metrics.effective_reliability_threshold(ranking, cost)
    reached = metrics.effective_reliability(ranking, cost, best)
    for threshold in (None, *ranking.thresholds.tolist()):
        worth = metrics.effective_reliability(ranking, cost, threshold)
        assert worth <= reached + 1e-12
        if threshold is not None and (best is None or threshold < best):
            assert worth < reached - 1e-12


DEGENERATE = {
    "one right row": ([1.0], [0.7]),
    "one wrong row": ([0.0], [0.7]),
    "all right": ([1.0] * 4, [0.1, 0.2, 0.3, 0.4]),
    "all wrong": ([0.0] * 4, [0.1, 0.2, 0.3, 0.4]),
    "all tied": ([1.0, 0.0, 1.0, 0.0], [0.7] * 4),
}
NAN = math.nan
EXPECTED = {
    # one right, one wrong, all right, all wrong, all tied
    ("accuracy", None): (1, 0, 1, 0, 0.5),
    ("aurc", None): (NAN, NAN, 0, 0.75, 0.375),
    ("e_aurc", None): (NAN, NAN, 0, 0, 0.375 - (1 / 3 + 1 / 4) / 4),
    ("augrc", None): (0, 0.5, 0, 0.5, 0.25),
    ("auroc", None): (NAN, NAN, NAN, NAN, 0.5),
    ("ece", None): (0.3, 0.7, 0.75, 0.25, 0.2),
    ("ece_mass", None): (0.3, 0.7, 0.75, 0.25, 0.2),
    ("brier", None): (0.09, 0.49, 0.575, 0.075, 0.29),
    ("coverage_at_risk", 0.2): (1, 0, 1, 0, 0),
    ("threshold_at_risk", 0.2): (0.7, NAN, 0.1, NAN, NAN),
    ("deployed_threshold", 0.2): (0.7, NAN, 0.1, NAN, NAN),
    ("deployed_coverage", 0.2): (1, 0, 1, 0, 0),
    ("deployed_risk", 0.2): (0, NAN, 0, NAN, NAN),
    ("effective_reliability", 10.0): (1, 0, 1, 0, 0),
    ("effective_reliability_threshold", 10.0): (0.7, NAN, 0.1, NAN, NAN),
    ("effective_reliability_coverage", 10.0): (1, 0, 1, 0, 0),
    ("effective_reliability_risk", 10.0): (0, NAN, 0, NAN, NAN),
    ("effective_reliability_no_abstention", 10.0): (1, -10, 1, -10, -4.5),
    ("effective_reliability_best", 10.0): (1, 0, 1, 0, 0.5),
}


@pytest.mark.parametrize("key", EXPECTED, ids=lambda key: key[0])
def test_degenerate_answers(key):
    found = [everything(*answers)[key] for answers in DEGENERATE.values()]
    assert found == pytest.approx(list(EXPECTED[key]), nan_ok=True)


def test_the_degenerate_table_covers_every_metric():
    assert {name for name, _ in everything(*DISTINCT)} == {name for name, _ in EXPECTED}


def test_agreement_with_torch_uncertainty():
    # Numbers of torch-uncertainty 0.13.0 (AURC, AUGRC, CovAtxRisk) and torchmetrics (15 bins) on these binary answers.
    # The library needs torchvision and lightning, so that it was run once and is no dependency.
    confidence = np.array([(37 * i % 101) / 203 + 0.501 for i in range(40)])
    right = np.array([(37 * i % 101) + 2 * (13 * i % 40) > 70 for i in range(40)], dtype=float)
    ranking = rank(right, confidence)
    # It divides areas by the width of the coverages 1/n to 1, and leaves out the triangle of AUGRC before 1/n.
    width = 1 - 1 / 40
    assert ranking.quality[0] == 1.0
    assert metrics.aurc(ranking) == pytest.approx(0.08960126266629628 * width, abs=1e-7)
    assert metrics.augrc(ranking) == pytest.approx(0.07115384557218547 * width, abs=1e-7)
    assert metrics.ece(ranking) == pytest.approx(0.12413793103448276, abs=1e-7)
    for limit, coverage in ((0.05, 0.525), (0.1, 0.6), (0.2, 0.825), (0.25, 0.925), (0.3, 1.0)):
        assert metrics.coverage_at_risk(ranking, limit).coverage == pytest.approx(coverage)
