"""Captions of five people: they differ, and every fact in them can be read again."""

from collections import Counter

import numpy as np
import pytest

from quantrust.embedded.datasets import generate
from quantrust.embedded.scene_captions import CAPTIONERS, people_s_caption
from quantrust.embedded.scenes import COLOURS, SIZE, Percept
from quantrust.embedded.scenes import SYMBOLS as DRAWN
from quantrust.tasks import scene_facts
from quantrust.tasks.scene_facts import facts_of


@pytest.fixture(scope="module")
def scenes():
    return list(generate("test", 40, 1, 3))


def stated(percept: Percept) -> Counter:
    place = f"{'top' if percept.y < SIZE / 2 else 'bottom'} {'left' if percept.x < SIZE / 2 else 'right'}"
    return Counter([(percept.symbol,), (percept.symbol, percept.colour), (percept.symbol, place)])


def test_every_word_of_a_scene_is_one_that_facts_are_read_from():
    assert set(DRAWN) == scene_facts.SYMBOLS and set(COLOURS) == scene_facts.COLOURS


def test_a_caption_states_facts_of_items_that_its_writer_sees_and_no_others(scenes):
    for scene in scenes:
        for number, text in enumerate(scene.captions()):
            facts = facts_of(text)
            seen = sum((stated(percept) for percept in scene.annotator(number) if percept.visible), Counter())
            assert facts and facts <= seen
            # three of each item that is mentioned
            symbols = sum(count for fact, count in facts.items() if len(fact) == 1)
            assert facts.total() == 3 * symbols


def test_people_differ_in_words_in_order_and_in_what_they_mention(scenes):
    captions = [scene.captions() for scene in scenes]
    assert all(len(texts) == CAPTIONERS for texts in captions)
    assert sum(len(set(texts)) == CAPTIONERS for texts in captions) >= 0.9 * len(scenes)
    assert sum(len({facts_of(text).total() for text in texts}) > 1 for texts in captions) >= 0.8 * len(scenes)
    beginnings = Counter(text.split()[0] for texts in captions for text in texts)
    assert {"a", "an", "there", "i", "the", "at", "in", "top", "bottom"} <= beginnings.keys()


def test_captions_are_the_same_on_every_call(scenes):
    assert scenes[0].captions() == scenes[0].captions() == next(iter(generate("test", 1, 4, 3))).captions()


def test_who_sees_nothing_says_so():
    nothing = [Percept("3", "red", False, 0, 0, 8.0, 8.0)]
    assert people_s_caption(nothing, np.random.default_rng(0)) == "an empty picture."
