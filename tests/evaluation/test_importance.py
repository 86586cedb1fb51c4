"""Shares of a grid by hand, by slow and plain references, and on answers in which effects are planted."""

import math
from itertools import permutations, product

import numpy as np
import pytest

from quantrust.errors import QuantrustError
from quantrust.evaluation.consensus import consensus, shapley_values
from quantrust.evaluation.functional_anova import effects, products, shapley
from quantrust.evaluation.importance import Answered, full_grid, halved_images, importance, on_halves
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.summary import deploy, summarise

BITS = (2.0, 3.0, 16.0)
PARTS = ("vision", "connector", "language")


def grid_of(value, levels=(BITS, BITS, BITS)):
    """The grid of a function of the bits."""
    return full_grid(PARTS[: len(levels)], {cell: value(*cell) for cell in product(*levels)}, "grid")


def test_effects_add_up_to_the_values_and_have_no_mean_of_their_own():
    values = np.random.default_rng(0).normal(size=(2, 3, 4))
    found = effects(values, 3)
    np.testing.assert_allclose(values.mean() + sum(found.values()), values, atol=1e-12)
    for term, effect in found.items():
        for factor in term:
            np.testing.assert_allclose(effect.mean(axis=factor), 0, atol=1e-12)
    variances = products(values, values, 3)
    assert sum(variances.values()) == pytest.approx(values.var())
    assert shapley(variances, 3).sum() == pytest.approx(values.var())


def test_shares_are_those_worked_out_by_hand():
    # Levels count as -1 and 1: 3a + 2b + 2ab + abc has the variances 9, 4, 4 and 1, and no other effect.
    sign = {3.0: -1.0, 16.0: 1.0}
    levels = [(3.0, 16.0)] * 3
    [stratum] = importance(
        grid_of(lambda a, b, c: 3 * sign[a] + 2 * sign[b] + 2 * sign[a] * sign[b] + sign[a] * sign[b] * sign[c], levels)
    )
    assert stratum.sd == pytest.approx(math.sqrt(18))
    assert stratum.main == pytest.approx({"vision": 9 / 18, "connector": 4 / 18, "language": 0})
    third = 1 / 3
    assert stratum.shapley == pytest.approx(
        {"vision": (9 + 2 + third) / 18, "connector": (4 + 2 + third) / 18, "language": third / 18}
    )
    assert stratum.interaction == pytest.approx(5 / 18)
    assert stratum.terms[("vision", "connector")] == pytest.approx(4 / 18)
    assert stratum.terms[("vision", "connector", "language")] == pytest.approx(1 / 18)
    assert (stratum.low, stratum.high, stratum.determined) == (None, None, None)


def test_strata_keep_the_schemes_with_enough_bits_in_every_part():
    strata = importance(grid_of(lambda vision, connector, language: (vision == 2) + 0.1 * (language == 3)))
    assert [(stratum.least_bits, stratum.schemes) for stratum in strata] == [(2, 27), (3, 8)]
    # One level that destroys a part decides the share of all, and has no part in that of the next stratum.
    assert strata[0].shapley["vision"] > 0.98
    assert strata[1].shapley == pytest.approx({"vision": 0, "connector": 0, "language": 1})
    assert all(stratum.equal_levels for stratum in strata)
    unequal = importance(grid_of(lambda vision, language: vision + language, [(2.0, 3.0, 16.0), (3.0, 16.0)]))
    assert [stratum.equal_levels for stratum in unequal] == [False, True]


def test_of_values_that_are_all_the_same_no_share_is_told():
    [first, *_] = importance(grid_of(lambda *bits: 0.5))
    assert first.sd == 0
    assert all(math.isnan(share) for share in first.shapley.values())


def test_grids_that_cannot_be_compared_are_refused():
    cells = {cell: 0.0 for cell in product(BITS, BITS)}
    del cells[(2.0, 16.0)], cells[(3.0, 3.0)]
    with pytest.raises(QuantrustError, match=r"2 of the 9 cells .* missing, the first with vision=2, connector=16"):
        full_grid(PARTS[:2], cells, "t.csv")
    with pytest.raises(QuantrustError, match=r"no level in common \(vision: 2, 3; connector: 4, 8\)"):
        full_grid(PARTS[:2], {cell: 0.0 for cell in product((2.0, 3.0), (4.0, 8.0))}, "t.csv")
    with pytest.raises(QuantrustError, match="connector has the level 4 alone"):
        full_grid(PARTS[:2], {cell: 0.0 for cell in product((4.0, 8.0), (4.0,))}, "t.csv")
    with pytest.raises(QuantrustError, match="one factor, vision; expected at least two"):
        full_grid(PARTS[:1], {(2.0,): 0.0, (3.0,): 0.0}, "t.csv")


def test_shapley_values_are_the_mean_over_all_orders():
    values = np.random.default_rng(1).normal(size=(3, 2, 4))
    found = shapley_values(values).reshape(3, *values.shape)
    for cell in product(*map(range, values.shape)):
        for factor in range(3):
            gains = []
            for order in permutations(range(3)):
                before = order[: order.index(factor)]
                worth = [
                    values[tuple(cell[axis] if axis in group else slice(None) for axis in range(3))].mean()
                    for group in (before, (*before, factor))
                ]
                gains.append(worth[1] - worth[0])
            assert found[factor][cell] == pytest.approx(np.mean(gains))


def test_the_consensus_of_forests_sees_what_it_is_published_to_see():
    grid = grid_of(lambda vision, connector, language: 5 * (vision > 2) + (language > 3))
    found = consensus(grid)
    assert sum(found.values()) == pytest.approx(1)
    assert found["vision"] > 0.75 > 0.1 > found["language"] > 0.05 > found["connector"]


IMAGES, EACH = 400, 3


def answers_of(chance, seed):
    """Right and wrong answers to the same questions under every scheme of a grid, and their images."""
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(IMAGES), EACH)
    # A question is easy or hard for all schemes, and one of a hard image is harder.
    ease = 0.5 * rng.uniform(size=images.size) + 0.5 * rng.uniform(size=IMAGES)[images]
    levels = product((3.0, 16.0), (3.0, 16.0), (3.0, 16.0))
    return images, {
        cell: (ease < chance(*cell) + rng.normal(scale=0.1, size=ease.size)).astype(float) for cell in levels
    }


def measured(images, answers, halvings=40, resamples=5):
    draws = halved_images(images, 7, halvings, resamples)
    cells = {}
    for cell, right in answers.items():
        answered = Answered(right, rank(right, np.zeros(right.size)), None, False)
        cells[cell] = on_halves(answered, draws, [("accuracy", None)], [], [], halvings)[("accuracy", None)]
    [stratum] = importance(full_grid(PARTS, cells, "answers"))
    return stratum


def test_planted_effects_are_found_and_what_has_none_is_not_determined():
    # Vision loses 20 points at 3 bits, language 10, both together 8 more; the connector nothing.
    def chance(vision, connector, language):
        lost = 0.2 * (vision == 3) + 0.1 * (language == 3) + 0.08 * (vision == 3) * (language == 3)
        return 0.75 - lost

    found = measured(*answers_of(chance, 3))
    truth = importance(grid_of(chance, [(3.0, 16.0)] * 3))[0]
    for part in PARTS:
        assert found.low[part] <= truth.shapley[part] + 1e-3
        assert found.high[part] >= truth.shapley[part] - 1e-3
        assert found.shapley[part] == pytest.approx(truth.shapley[part], abs=0.12)
    assert found.determined == {"vision": True, "connector": False, "language": True}


def test_halves_are_unbiased_where_squares_and_halves_of_resamples_are_not():
    # No scheme differs from another but by noise: the variance of their true accuracies is 0.
    halves, squares = [], []
    for seed in range(30):
        images, answers = answers_of(lambda *bits: 0.5, seed)
        means = np.array([right.mean() for right in answers.values()])
        squares.append(means.var())
        rows = np.stack([right.reshape(IMAGES, EACH).mean(axis=1) for right in answers.values()])
        draws = halved_images(images, seed, 20, 1)
        values = (draws.counts @ rows.T / draws.counts.sum(axis=1, keepdims=True)).reshape(20, -1, 2, 2, 2, 2)
        halves.append(sum(products(values[:, 0, 0], values[:, 0, 1], 3).values()).mean())
    # Both in squared points; the standard error of the mean of the halves is about a tenth of the bias of squares.
    assert np.mean(squares) > 5 * abs(np.mean(halves))
    assert abs(np.mean(halves)) < 3 * np.std(halves) / math.sqrt(len(halves))


def test_no_image_lies_in_both_halves():
    draws = halved_images(np.repeat(np.arange(11), 2), 0, 6, 3)
    counts = draws.counts.reshape(6, 4, 2, 11)
    assert not np.any((counts[:, :, 0] > 0) & (counts[:, :, 1] > 0))
    assert counts.sum(axis=-1).tolist() == [[[5, 6]] * 4] * 6
    np.testing.assert_array_equal(counts[:, 0].sum(axis=1), 1)
    with pytest.raises(QuantrustError, match="3 images"):
        halved_images([1, 2, 3], 0)


def test_metrics_on_halves_are_those_of_their_answers_alone():
    rng = np.random.default_rng(5)
    images = np.repeat(np.arange(60), 3)
    quality, confidence = rng.integers(11, size=180) / 10, rng.uniform(size=180)
    val = rank(rng.integers(2, size=90).astype(float), rng.uniform(size=90))
    deployment = deploy(val, [0.4], [1.0])
    keys = [("accuracy", None), ("aurc", None), ("coverage_at_risk", 0.4), ("deployed_risk", 0.4), ("ece", None)]
    draws = halved_images(images, 2, 4, 1)
    found = on_halves(
        Answered(quality, rank(quality, confidence), deployment, True), draws, keys, [0.4], [1.0], halvings=4
    )
    for place, counts in enumerate(draws.counts.reshape(4, 2, 2, -1)):
        for half in (0, 1):
            kept = counts[0, half][images] == 1
            expected = summarise(rank(quality[kept], confidence[kept]), [0.4], [1.0], deployment, True)
            for key in keys:
                assert found[key][place, 0, half] == pytest.approx(expected[key], nan_ok=True), key
