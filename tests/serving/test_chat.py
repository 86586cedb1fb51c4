"""Requests for a chat completion: what is asked is read, and all that is not offered is refused with its reason."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.serving.chat import GREEDY, IGNORED, MOST_MARKS, NEUTRAL, Offer, Question, read_request
from quantrust.serving.refusal import Refusal
from serving.served import MODEL, body, data_url

OFFER = Offer(MODEL, 0.05, (0.05, 0.2), max_new_tokens=8, question_characters=100)


def read(content: object) -> Question:
    return read_request(json.dumps(content).encode(), OFFER)


def refusal(content: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_request(content if isinstance(content, bytes) else json.dumps(content).encode(), OFFER)
    assert "\n" not in caught.value.message
    return caught.value


def message(*parts: object, role: str = "user") -> dict:
    return {"model": MODEL, "messages": [{"role": role, "content": list(parts)}]}


TEXT = {"type": "text", "text": "what is it?"}
IMAGE = {"type": "image_url", "image_url": {"url": data_url()}}


def test_a_question_is_read_with_its_image_and_risk_limit() -> None:
    assert read(body("is it red?", "data:x")) == Question("is it red?", "data:x", 0.05)
    assert read(body("is it red?", "data:x", risk=0.2)).risk == 0.2
    assert read(message(IMAGE, TEXT)) == Question("what is it?", IMAGE["image_url"]["url"], 0.05)


def test_an_image_alone_is_a_request_where_the_same_is_asked_about_every_image() -> None:
    alone = json.dumps(message(IMAGE)).encode()
    for asked in ("describe it.", ""):
        read_alone = read_request(alone, replace(OFFER, asked=asked))
        assert read_alone == Question(asked, IMAGE["image_url"]["url"], 0.05)
    with pytest.raises(Refusal, match="a question is about one image"):
        read_request(alone, OFFER)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("stream", True, "an answer is given or withheld as a whole"),
        ("temperature", 0.7, GREEDY),
        ("temperature", "0", GREEDY),
        ("temperature", False, GREEDY),
        ("n", 2, "a question has one answer"),
        ("n", True, "a question has one answer"),
        ("top_p", 0.9, GREEDY),
        ("seed_", 1, "unknown field 'seed_'"),
        ("tools", [{"type": "function"}], "the model calls no tools"),
        ("tool_choice", "required", "the model calls no tools"),
        ("functions", [{}], "the model calls no tools"),
        ("logprobs", True, "the confidence of the whole answer"),
        ("top_logprobs", 5, "the confidence of the whole answer"),
        ("response_format", {"type": "json_object"}, "the answer is plain text"),
        ("stop", ["."], "answers end where they ended"),
        ("logit_bias", {"5": 1}, GREEDY),
        ("presence_penalty", 1, GREEDY),
        ("modalities", ["text", "audio"], "the answer is plain text"),
        ("store", True, "nothing is stored"),
        ("max_tokens", 7, "max_tokens is below 8"),
        ("max_completion_tokens", 0, "max_completion_tokens is below 8"),
        ("max_tokens", 8.5, "max_tokens is no whole number"),
        ("risk", 0.1, "there are some for 0.05, 0.2"),
        ("risk", "0.05", "there are some for 0.05, 0.2"),
        ("risk", True, "there are some for 0.05, 0.2"),
    ],
)
def test_what_is_not_offered_is_refused_with_its_reason(field: str, value: object, reason: str) -> None:
    found = refusal(body(**{field: value}))
    assert (found.status, found.param) == (400, field)
    assert reason in found.message


def test_values_that_change_nothing_are_taken() -> None:
    plain = read(body())
    for field, (values, _) in NEUTRAL.items():
        for value in (*values, None):
            assert read(body(**{field: value})) == plain
    for field in IGNORED:
        assert read(body(**{field: 5})) == plain
    assert read(body(max_tokens=8, max_completion_tokens=10**9)) == plain


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (message(TEXT, IMAGE, role="system"), "a system message is not offered"),
        (message(TEXT, IMAGE, role="assistant"), "expected one message, of the role user"),
        ({**body(), "messages": body()["messages"] * 2}, "without earlier turns"),
        ({**body(), "messages": []}, "expected one message"),
        ({**body(), "messages": {}}, "messages is no list"),
        ({**body(), "messages": ["x"]}, "messages is no list of objects"),
        ({**body(), "messages": [{"role": "user", "content": "what?"}]}, "content is no list of parts"),
        ({**body(), "messages": [{"role": "user", "content": [TEXT, IMAGE], "x": 1}]}, "has the unknown field 'x'"),
        (message(TEXT), "a question is about one image"),
        (message(IMAGE), "a question is about one image"),
        (message(TEXT, IMAGE, IMAGE), "a question is about one image"),
        (message(TEXT, {"type": "input_audio"}), "a question is about one image"),
        (message(TEXT, IMAGE | {"cache": 1}), "has the unknown field 'cache'"),
        (message({"type": "text", "text": "  "}, IMAGE), "is empty"),
        (message({"type": "text", "text": None}, IMAGE), "is no Unicode text"),
        (message({"type": "text", "text": "\ud800"}, IMAGE), "is no Unicode text"),
        (message(TEXT, {"type": "image_url", "image_url": "data:x"}), 'no object with a text "url"'),
        (message(TEXT, {"type": "image_url", "image_url": {"url": "x", "detail": "low"}}), "image_url.detail is not"),
        (body("x" * 101), "the question has more than 100 characters"),
        ({"messages": []}, "model is missing"),
        ({"model": MODEL}, "messages is missing"),
        ([body()], "the body is no JSON object"),
        (b'{"model": "a", "model": "b"}', "holds a key twice"),
        (b'{"n": NaN}', "not valid JSON"),
        (b'{"n": 1' + b"0" * 5000 + b"}", "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"", "not valid JSON"),
        (b"[" + b"{}," * MOST_MARKS + b"{}]", "more than 10,000 brackets and commas"),
    ],
)
def test_what_is_not_one_question_about_one_image_is_refused(content: object, reason: str) -> None:
    found = refusal(content)
    assert found.status == 400
    assert reason in found.message


def test_another_model_is_not_found() -> None:
    found = refusal(body() | {"model": "gpt"})
    assert (found.status, found.code) == (404, "model_not_found")
    assert MODEL in found.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(sorted({*NEUTRAL, *IGNORED, "messages", "model", "risk", "max_tokens", "role"}))


@pytest.mark.hunt
@given(st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=4), JSON, st.integers(0, 5))
def test_whatever_is_asked_is_a_question_or_a_refusal(fields: dict, part: object, place: int) -> None:
    """One field, one part, or one value in a part is anything."""
    content = body() | (fields if place < 3 else {})
    parts: list = [dict(TEXT), {"type": "image_url", "image_url": {"url": "data:x"}}]
    if place == 3:
        parts.append(part)
    if place == 4:
        parts[0]["text"] = part
    if place == 5:
        parts[1]["image_url"] = part
    if "messages" not in fields:
        content["messages"] = [{"role": "user", "content": parts}]
    try:
        read_request(json.dumps(content).encode(), OFFER)
    except Refusal as found:
        assert found.status in (400, 404)
        json.dumps(found.body(), ensure_ascii=False).encode()


@pytest.mark.hunt
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 30))
def test_a_damaged_body_is_a_question_or_a_refusal(noise: bytes, place: int, cut: int) -> None:
    whole = json.dumps(body(url="data:x")).encode()
    damaged = whole[:place] + noise + whole[place + cut :]
    try:
        read_request(damaged, OFFER)
    except Refusal as found:
        assert found.status in (400, 404)
