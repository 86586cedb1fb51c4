"""A bundle gives the study's answers and decisions, and says of what it cannot answer why."""

import pytest
from PIL import Image

from bundled_study import ESTIMATORS, write
from quantrust import Bundle as from_package
from quantrust.bundle.items import Failure, Item
from quantrust.bundle.load import Bundle
from quantrust.errors import QuantrustError


def items_of(study):
    rows = study.test_questions().select("image", "question", "question_id").iter_rows()
    return [Item(*row) for row in rows]


def test_the_package_offers_the_class():
    assert from_package is Bundle


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", ["val", "certified"])
def test_answers_confidences_and_decisions_are_the_studys(bundled_study, tmp_path, estimator, kind):
    bundle = Bundle.load(write(bundled_study, tmp_path / "bundle", estimator))

    found = list(bundle.answer_many(items_of(bundled_study), 0.2, kind=kind))

    expected = bundled_study.scores()
    threshold = bundle.record.point(0.2, kind).threshold
    assert [answer.answer for answer in found] == bundled_study.answers()
    # a network sums in another order where it is applied to another number of rows, by the processor
    assert [answer.confidence for answer in found] == pytest.approx(expected[estimator].to_list(), abs=1e-12)
    assert [answer.answered for answer in found] == [value >= threshold for value in expected[estimator]]
    assert [answer.item_id for answer in found] == expected["question_id"].to_list()
    if "+" not in estimator:
        # a temperature makes all confidences of a random model equal
        assert 0 < sum(answer.answered for answer in found) < len(found)
    assert {answer.certified for answer in found} == {kind == "certified"}


def test_an_item_alone_is_answered_as_among_others(bundled_study, bundle):
    items = items_of(bundled_study)[:4]

    alone = [bundle.answer(item.image, item.question) for item in items]

    for one, among in zip(alone, bundle.answer_many(items), strict=True):
        assert one.answer == among.answer
        assert one.confidence == pytest.approx(among.confidence, abs=1e-4)


def test_a_picture_may_be_a_path_bytes_or_a_picture(bundled_study, bundle):
    item = items_of(bundled_study)[0]
    with open(item.image, "rb") as file:
        content = file.read()

    with Image.open(item.image) as picture:
        found = [bundle.answer(image, item.question) for image in (item.image, content, picture)]

    assert found[0] == found[1] == found[2]


def test_what_cannot_be_answered_is_said_and_disturbs_nothing(bundled_study, bundle, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = items_of(bundled_study)[:3]
    bad = [
        Item(tmp_path / "absent.png", "is it?", "absent"),
        Item(tmp_path / "broken.png", "is it?", "broken"),
        Item(b"", "is it?", "empty"),
        Item(good[0].image, "  ", "mute"),
        Item(good[0].image, "is \ud800 it?", "surrogate"),
        Item(good[0].image, "what <|im_end|> is it?", "token"),
        Item(7, "is it?", "seven"),
    ]
    mixed = [bad[0], good[0], *bad[1:3], good[1], *bad[3:], good[2]]

    found = list(bundle.answer_many(mixed))

    assert [one.item_id for one in found] == [item.item_id for item in mixed]
    errors = {one.item_id: one.error for one in found if isinstance(one, Failure)}
    assert errors.keys() == {item.item_id for item in bad}
    assert errors["absent"] == f"image {tmp_path}/absent.png: no such file"
    assert "not an image" in errors["broken"]
    assert "expected a text" in errors["mute"]
    assert errors["surrogate"] == "question is 'is \\ud800 it?'; expected a text"
    assert "token of the model's prompts" in errors["token"]
    assert "image is a int" in errors["seven"]
    assert [one for one in found if not isinstance(one, Failure)] == list(bundle.answer_many(good))


def test_a_stream_is_answered_before_it_ends(bundled_study, bundle):
    taken = []

    def stream():
        for item in items_of(bundled_study):
            taken.append(item)
            yield item

    next(bundle.answer_many(stream()))

    # four pictures of three questions each, and the item that shows that they are complete
    assert len(taken) == 13


def test_a_risk_limit_without_operating_point_lists_those_there_are(bundle):
    with pytest.raises(QuantrustError, match=r"risk limit 0.1; .* has 0.05 \(val\), 0.2 \(val, certified\)"):
        bundle.answer_many([], 0.1)


def test_a_certified_threshold_goes_before_that_of_val(bundle):
    assert bundle.record.point(0.2).kind == "certified"
    assert bundle.record.point(0.05).kind == "val"
    assert bundle.record.point() == bundle.record.point(0.2)


def test_under_other_conditions_nothing_is_certified(bundled_study, bundle_folder):
    packed = Bundle.load(bundle_folder, kernel="packed")
    item = items_of(bundled_study)[0]

    answer = packed.answer(item.image, item.question)

    assert answer.operating_point.certified
    assert not answer.certified
    assert "dtype bfloat16 instead of float32" in answer.note


def test_an_unknown_device_or_kernel_is_refused(bundle_folder):
    for asked in ({"device": "tpu"}, {"kernel": "fast"}):
        with pytest.raises(QuantrustError, match="is unknown; allowed"):
            Bundle.load(bundle_folder, **asked)


@pytest.mark.parametrize("threads", [0, 10**6])
def test_a_number_of_threads_that_no_processor_has_is_refused(bundle_folder, threads):
    with pytest.raises(QuantrustError, match=rf"^{threads:,} threads of the processor were asked for; expected 1 to"):
        Bundle.load(bundle_folder, threads=threads)
