import numpy as np
import pytest

from quantrust.evaluation import resampling
from quantrust.evaluation.metrics import rank, risk_coverage_curve
from quantrust.evaluation.resampling import ImageDraws, Resampler, draw_images
from quantrust.evaluation.summary import deploy, summarise

RISKS, COSTS = [0.05, 0.2, 0.35], [0.5, 1.0, 10.0]


TENTHS, HALF_TENTHS = [0, 0.3, 0.6, 0.9, 1.0], [0, 0.25, 0.35, 0.95, 1.0]


def answers(n, decimals, seed=0, qualities=TENTHS):
    rng = np.random.default_rng(seed)
    quality = rng.choice(qualities, p=[0.2, 0.1, 0.1, 0.1, 0.5], size=n)
    confidence = np.round(np.clip(0.4 * quality + 0.6 * rng.random(n), 0, 1), decimals)
    return quality, confidence, rng.integers(n // 3, size=n)


def test_every_resample_draws_as_many_images_as_there_are():
    draws = draw_images(["b", "a", "b", "c"], 50, 0)
    assert draws.image.tolist() == [1, 0, 1, 2]
    assert draws.counts.shape == (50, 3)
    assert (draws.counts.sum(axis=1) == 3).all()
    assert draws.counts.mean() == 1


def test_counts_take_two_bytes_unless_there_are_more_images_than_these_can_count():
    few, many = (draw_images(range(images), 1, 0).counts for images in ((1 << 16) - 1, 1 << 16))
    assert (few.dtype, many.dtype) == (np.uint16, np.int32)
    assert [int(counts.sum()) for counts in (few, many)] == [(1 << 16) - 1, 1 << 16]


@pytest.mark.parametrize("chunk", [1, 20, 1 << 16])
def test_draws_are_those_of_one_resample_after_another(chunk, monkeypatch):
    monkeypatch.setattr(resampling, "CHUNK", chunk)
    rng = np.random.default_rng(4)
    expected = [np.bincount(rng.integers(7, size=7), minlength=7) for _ in range(25)]
    assert (draw_images(range(7), 25, 4).counts == expected).all()


@pytest.mark.parametrize("largest", [10, 1 << 21])
@pytest.mark.parametrize("whole", [True, False])
def test_sums_over_images_are_those_of_float64(largest, whole):
    rng = np.random.default_rng(0)
    values = rng.uniform(0, largest, size=(40, 3))
    values = np.rint(values) if whole else values
    draws = draw_images(range(40), 9, 1)
    expected = (draws.counts[:, :, None] * values).sum(axis=1)
    assert np.allclose(draws.sums(values), expected, rtol=1e-14)
    assert not whole or (draws.sums(values) == expected).all()


def test_draws_depend_on_the_images_and_the_seed_not_on_the_rows():
    one, two = draw_images(["a", "b", "c"], 9, 5), draw_images(["c", "b", "a", "a"], 9, 5)
    assert (one.counts == two.counts).all()
    assert (one.counts != draw_images(["a", "b", "c"], 9, 6).counts).any()


@pytest.mark.parametrize("decimals", [0, 1, 2, 12])
@pytest.mark.parametrize("chunk", [100, 1 << 18])
@pytest.mark.parametrize("qualities", [TENTHS, HALF_TENTHS])
def test_every_metric_equals_itself_on_the_repeated_rows(decimals, chunk, qualities, monkeypatch):
    monkeypatch.setattr(resampling, "CHUNK", chunk)
    quality, confidence, images = answers(150, decimals, qualities=qualities)
    deployment = deploy(rank(*answers(80, decimals, seed=1)[:2]), RISKS, COSTS)
    draws = draw_images(images, 12, 2)
    ranking = rank(quality, confidence)
    found = Resampler(quality, draws).evaluate(ranking, RISKS, COSTS, deployment, True)
    compared = set()
    for resample, counts in enumerate(draws.counts):
        rows = np.repeat(np.arange(150), counts[draws.image])
        expected = summarise(rank(quality[rows], confidence[rows]), RISKS, COSTS, deployment, True)
        for key, value in expected.items():
            if "threshold" not in key[0]:
                compared.add(key)
                assert found[key][resample] == pytest.approx(value, abs=1e-11, nan_ok=True), key
    assert compared == set(found)


def test_metrics_that_need_a_threshold_or_a_probability_are_left_out_or_undefined():
    quality, confidence, images = answers(60, 3)
    resampler = Resampler(quality, draw_images(images, 5, 0))
    found = resampler.evaluate(rank(quality, confidence), RISKS, COSTS, None, False)
    assert ("deployed_risk", 0.2) not in found
    assert ("effective_reliability", 1.0) not in found
    assert all(np.isnan(found[name, None]).all() for name in ("ece", "ece_mass", "brier"))


def test_what_is_wanted_is_what_it_is_among_all():
    quality, confidence, images = answers(60, 3)
    ranking, resampler = rank(quality, confidence), Resampler(quality, draw_images(images, 5, 0))
    everything = resampler.evaluate(ranking, RISKS, COSTS, None, True)
    found = resampler.evaluate(ranking, RISKS, COSTS, None, True, wanted=[("e_aurc", None), ("coverage_at_risk", 0.2)])
    assert {"augrc", "auroc", "ece_mass"}.isdisjoint(name for name, _ in found)
    assert ("coverage_at_risk", 0.05) not in found
    for key in (("e_aurc", None), ("coverage_at_risk", 0.2), ("accuracy", None)):
        assert found[key].tolist() == everything[key].tolist()


@pytest.mark.parametrize("decimals", [1, 12])
def test_curves_equal_those_of_the_repeated_rows(decimals):
    quality, confidence, images = answers(90, decimals)
    draws = draw_images(images, 6, 1)
    ranking = rank(quality, confidence)
    counts = draws.counts[:, draws.image].sum(axis=1)
    for resample in range(6):
        rows = np.repeat(np.arange(90), draws.counts[resample][draws.image])
        coverage, risk = risk_coverage_curve(rank(quality[rows], confidence[rows]))
        assert len(coverage) == counts[resample]
        np.testing.assert_allclose(Resampler(quality, draws).risks_at(ranking, coverage)[resample], risk, atol=1e-12)


def test_a_resample_of_one_answer_has_no_area():
    draws = ImageDraws(image=np.array([0, 1]), counts=np.array([[1, 0], [1, 1]], dtype=np.int32))
    found = Resampler(np.array([1.0, 0.0]), draws).evaluate(rank([1.0, 0.0], [0.9, 0.1]), [], [], None, True)
    assert np.isnan(found["aurc", None]).tolist() == [True, False]
    assert np.isnan(found["e_aurc", None]).tolist() == [True, False]
    assert found["aurc", None][1] == pytest.approx(0.125)


def test_the_first_answer_of_a_resample_need_not_be_the_most_confident():
    # Drawn: the answers of .8 and .7, risks 1 and 0, so running means 1 and 1/2.
    draws = ImageDraws(image=np.array([0, 1, 2]), counts=np.array([[0, 1, 1]], dtype=np.int32))
    ranking = rank([1.0, 0.0, 1.0], [0.9, 0.8, 0.7])
    found = Resampler(np.array([1.0, 0.0, 1.0]), draws).evaluate(ranking, [], [], None, True)
    assert found["aurc", None].tolist() == pytest.approx([(1 + 1 / 2) / 2 / 2])


def test_progress_counts_every_resample_once():
    quality, confidence, images = answers(60, 3)
    done = []
    resampler = Resampler(quality, draw_images(images, 7, 0))
    resampler.evaluate(rank(quality, confidence), RISKS, COSTS, None, True, progress=done.append)
    assert sum(done) == 7
