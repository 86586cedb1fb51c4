"""Captions are judged as shares of what people reach, and those of the scenes by their facts."""

import pytest

from quantrust.data.format import format_names, load_format
from quantrust.errors import QuantrustError
from quantrust.tasks.cider import CiderD, ceiling
from quantrust.tasks.scene_captioning import best_fact_f1
from quantrust.tasks.task import how_asked, load_task, task_of_format

PEOPLE = [["a red bus on a road", "the red bus drives"], ["a black cat sits", "one black cat sits still"]]


def test_the_quality_of_a_caption_is_its_share_of_what_people_reach():
    quality, answer = load_task("captioning").judge(PEOPLE), "a black bird"
    expected = CiderD(PEOPLE).score(answer, PEOPLE[1]) / ceiling(PEOPLE)
    assert 0 < expected < 1 and quality(answer, PEOPLE[1]) == pytest.approx(expected)


def test_a_caption_better_than_people_s_own_is_worth_one():
    assert load_task("captioning").judge(PEOPLE)(PEOPLE[1][0], PEOPLE[1]) == 1.0
    assert load_task("captioning").judge(PEOPLE)("", PEOPLE[1]) == 0.0


def test_where_people_agree_in_no_rare_word_no_caption_is_worth_anything():
    nothing = [["red", "blue"], ["cat", "dog"]]
    assert load_task("captioning").judge(nothing)("red", nothing[0]) == 0.0


@pytest.mark.parametrize("task", ["captioning", "scene_captioning"])
@pytest.mark.parametrize(
    ("references", "message"),
    [
        (["a red 3 at the top left"], "i: expected two reference captions or more, got 1"),
        ([], "two reference captions or more, got 0"),
        (["a red 3", "..."], "i: reference caption 2 holds no word"),
    ],
)
def test_references_by_which_a_caption_cannot_be_judged_are_refused(task, references, message):
    with pytest.raises(QuantrustError, match=message):
        load_task(task).check_references(references, "i")


def test_captions_of_other_pictures_are_not_judged_by_facts():
    with pytest.raises(QuantrustError, match="no reference caption states a fact"):
        load_task("scene_captioning").check_references(PEOPLE[0], "i")
    load_task("captioning").check_references(PEOPLE[0], "i")


def test_the_facts_of_a_caption_are_held_against_the_reference_it_agrees_with_most():
    references = ["a red 3 at the top left, a blue star at the top right.", "a red 8 at the top left."]
    assert best_fact_f1("top left a red 8.", references) == 1.0
    assert best_fact_f1("top left a red 3.", references) == pytest.approx(2 * 3 / 9)
    assert best_fact_f1("a cat.", references) == 0.0


def test_a_caption_has_room_for_many_tokens():
    assert (
        how_asked(load_task("captioning"))["max_new_tokens"]
        == how_asked(load_task("scene_captioning"))["max_new_tokens"]
        == 96
    )


def test_items_without_text_are_read_only_for_tasks_that_ask_models_about_them():
    mute = [name for name in format_names() if load_format(name).may_be_mute]
    assert mute == ["coco_captions", "flickr30k"]
    assert all(task_of_format(name).may_be_mute for name in mute)
