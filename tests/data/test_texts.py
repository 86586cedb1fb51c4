"""The check of texts and identifiers that files hold."""

import pytest

from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["", " ", "\n", "\u200b", "\u0301", "two words", "\U0001f600", "\0"])
def test_every_unicode_text_passes_as_it_is(value):
    assert text(value, "question", "f.json") == value


@pytest.mark.parametrize("value", [None, 3, True, ["a"], {"a": 1}, b"a", 1.5])
def test_what_is_no_string_is_no_text(value):
    with pytest.raises(QuantrustError, match=r'^f\.json: expected a string in "question", got '):
        text(value, "question", "f.json")


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\udc80"])
def test_a_lone_surrogate_is_refused_in_texts_and_identifiers(value):
    for check in (text, identifier):
        with pytest.raises(QuantrustError, match=r'^f\.json: "id" is .*lone surrogate; expected Unicode') as caught:
            check(value, "id", "f.json")
        str(caught.value).encode()


def test_identifiers_are_integers_or_texts():
    assert [identifier(value, "id", "f") for value in (7, 0, -1, "7", "a b", 10**30)] == [
        "7", "0", "-1", "7", "a b", "1" + "0" * 30,
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["", "a\nb", "\0", "\x1b[2J", "\u2028", "x" * 1001, 10**1000])
def test_what_cannot_stand_in_a_line_is_no_identifier(value):
    with pytest.raises(QuantrustError, match=r'^f\.json: "id" is .*; expected an identifier of 1 to 1,000 characters'):
        identifier(value, "id", "f.json")


@pytest.mark.parametrize("value", [None, True, 1.0, float("nan"), [], {}])
def test_what_names_nothing_is_no_identifier(value):
    with pytest.raises(QuantrustError, match=r'^f\.json: expected an integer or a string in "id", got '):
        identifier(value, "id", "f.json")


@pytest.mark.parametrize("value", ["x" * 10**6, list(range(10**5)), nested(900), {"a": "x" * 10**6}, "a\nb\r\x1b[2J"])
def test_what_a_message_shows_of_a_value_is_one_short_line(value):
    assert len(shown(value)) < 200 and shown(value).isprintable()
