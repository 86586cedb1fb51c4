"""The places of a server: what the openai client and others are told, and what every reply carries."""

import asyncio
import base64
import json
import logging
import re

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from hunting import HUNTING
from quantrust.serving.settings import ABSTENTION, Limits
from quantrust.serving.worker import Job
from serving.conftest import BASE, ask_together
from serving.served import (
    BAD,
    BROKEN,
    CHAT,
    MEMORY,
    MODEL,
    POINTS,
    SLOW,
    RuleModel,
    body,
    data_url,
    picture,
    rule,
    wait_until,
)

KEY = "a-key-of-sixteen-letters"


def openai_client(client: TestClient, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{BASE}/v1", api_key=key, http_client=client, max_retries=0)


def error(reply: object, status: int) -> dict:
    """Return a refusal's content, which has the shape that every client of the protocol knows."""
    assert reply.status_code == status, reply.text
    content = reply.json()["error"]
    assert set(content) == {"message", "type", "param", "code"}
    assert content["message"] and "Traceback" not in content["message"]
    return content


def test_the_openai_client_gets_the_answer_with_its_confidence(client: TestClient) -> None:
    asked = body("what is it?", data_url(picture(3)))
    answer, confidence = rule(picture(3), "what is it?")
    for risk, point in POINTS.items():
        completion = openai_client(client).chat.completions.create(**asked, extra_body={"risk": risk})
        abstained = confidence < point["threshold"]
        assert completion.choices[0].message.content == (ABSTENTION if abstained else answer)
        assert completion.quantrust == {"confidence": confidence, "abstained": abstained, "operating_point": point}
        assert (completion.model, completion.choices[0].finish_reason) == (MODEL, "stop")
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (13, 3)
        assert completion.usage.total_tokens == 16
        assert completion._request_id == completion.id


def test_both_limits_are_met_by_some_answer_and_not_by_another(client: TestClient) -> None:
    """The rule's confidences lie on both sides of the threshold, or the test above would show little."""
    contents = [client.post(CHAT, json=body(f"q{number}")).json() for number in range(12)]
    said = [content["choices"][0]["message"]["content"] for content in contents]
    assert [words == ABSTENTION for words in said] == [content["quantrust"]["abstained"] for content in contents]
    assert 0 < said.count(ABSTENTION) < 12
    withheld = [rule(picture(), f"q{number}")[0] for number in range(12) if said[number] == ABSTENTION]
    assert not any(answer in json.dumps(contents) for answer in withheld)


def test_the_openai_client_is_told_why_nothing_is_streamed(client: TestClient) -> None:
    with pytest.raises(openai.BadRequestError, match="an answer is given or withheld as a whole"):
        openai_client(client).chat.completions.create(**body(), stream=True)


def test_the_sentence_of_an_abstention_can_be_chosen(open_client) -> None:
    client = open_client(abstention="Ask somebody else.")
    said = {client.post(CHAT, json=body(f"q{n}")).json()["choices"][0]["message"]["content"] for n in range(12)}
    assert "Ask somebody else." in said and ABSTENTION not in said


def test_models_are_listed_with_their_operating_points(client: TestClient) -> None:
    (model,) = openai_client(client).models.list().data
    assert model.id == MODEL
    assert model.quantrust["operating_points"] == list(POINTS.values())
    assert model.quantrust["risk"] == 0.05
    assert openai_client(client).models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        openai_client(client).models.retrieve("gpt")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"url": "data:image/png;base64,AAAA"}, 400, "invalid_image"),
        ({"url": "https://example.org/x.png"}, 400, "remote_image_refused"),
        ({"question": "one two three four five"}, 400, "context_length_exceeded"),
        ({"question": "x" * 65}, 400, "context_length_exceeded"),
        ({"question": BAD}, 400, "invalid_question"),
        ({"question": MEMORY}, 503, "out_of_memory"),
        ({"question": BROKEN}, 500, "internal"),
        ({"risk": 0.1}, 400, "unknown_risk"),
        ({"url": data_url(picture(size=(101, 100)))}, 400, "invalid_image"),
        ({"url": data_url(picture(size=(100, 100)))}, 413, "body_too_large"),
    ],
)
def test_each_fault_has_its_status_and_its_code(open_client, fields: dict, status: int, code: str) -> None:
    big = code == "invalid_image"
    limits = Limits(body_bytes=60_000 if big else 20_000, pixels=10_000, question_tokens=4)
    client = open_client(limits=limits)
    found = error(client.post(CHAT, json=body(**fields)), status)
    assert found["code"] == code
    assert client.post(CHAT, json=body("is it?")).status_code == 200


def test_an_error_of_the_model_says_nothing_of_the_question_in_reply_and_log(open_client, caplog) -> None:
    caplog.set_level(logging.INFO, "quantrust.serving")
    client = open_client()
    client.post(CHAT, json=body(f"secret {BROKEN} words"))
    client.post(CHAT, json=body("secret words"))
    assert "ZeroDivisionError in " in caplog.text
    assert "secret" not in caplog.text and "Traceback" not in caplog.text
    lines = [record.getMessage() for record in caplog.records if " chat " in record.getMessage()]
    assert [re.sub(r"chatcmpl-\w{24} chat (\d+) [\d.]+ s.*", r"\1", line) for line in lines] == ["500", "200"]


def test_a_body_without_a_stated_length_is_cut_off_at_the_limit(open_client) -> None:
    client = open_client(limits=Limits(body_bytes=1000))
    reply = client.post(CHAT, content=(b"x" * 100 for _ in range(20)), headers={"Content-Type": "application/json"})
    assert error(reply, 413)["code"] == "body_too_large"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_forms_of_other_pages_are_refused(client: TestClient, kind: str) -> None:
    """A browser sends these to any server, whatever page it shows; JSON only to one that agrees, and this does not."""
    reply = client.post(CHAT, content=json.dumps(body()), headers={"Content-Type": kind})
    assert error(reply, 415)
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = client.options(CHAT, headers=asked)
    assert reply.status_code == 405
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", ""])
def test_a_local_server_answers_under_local_names_alone(client: TestClient, host: str) -> None:
    for path in ("/", "/v1/models", "/metrics"):
        assert error(client.get(path, headers={"Host": host}), 421)["code"] == "wrong_host"
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get("/health", headers={"Host": name}).status_code == 200


def test_with_a_key_only_the_page_and_the_health_are_open(open_client) -> None:
    client = open_client(api_key=KEY)
    for headers in ({}, {"Authorization": KEY}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": "Bearer "}):
        for path in ("/v1/models", "/metrics", f"/v1/models/{MODEL}", "/nothing"):
            reply = client.get(path, headers=headers)
            assert error(reply, 401)["type"] == "authentication_error"
            assert reply.headers["www-authenticate"] == "Bearer"
        assert error(client.post(CHAT, json=body(), headers=headers), 401)
        assert client.get("/", headers=headers).status_code == 200
        assert client.get("/health", headers=headers).json() == {"status": "ok"}
    assert openai_client(client, KEY).chat.completions.create(**body()).model == MODEL
    with pytest.raises(openai.AuthenticationError):
        openai_client(client, "another-key-of-letters").models.list()


def test_every_reply_forbids_what_browsers_might_do_with_it(client: TestClient) -> None:
    for reply in (client.get("/"), client.get("/nothing"), client.get("/metrics"), client.post(CHAT, json=body())):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert "unsafe" not in client.get("/").headers["content-security-policy"]


def test_places_and_methods_that_are_not_there_have_the_shape_of_all_errors(client: TestClient) -> None:
    assert error(client.get("/v1/completions"), 404)["code"] == "not_found"
    assert error(client.get("/docs"), 404) and error(client.get("/openapi.json"), 404)
    reply = client.get(CHAT)
    assert error(reply, 405) and reply.headers["allow"] == "POST"


def test_requests_that_wait_together_are_answered_in_one_batch_each_with_its_own_reply(open_client) -> None:
    model = RuleModel()
    client = open_client(model, batch_size=4)
    model.may_answer = lambda: len(model.batches) > 1 or len(client.desk.worker._waiting) >= 4
    questions = [f"q{number}" for number in range(9)]
    asked = [body(question, data_url(picture(number)), risk=0.2) for number, question in enumerate(questions)]
    replies = ask_together(client, asked)
    for number, reply in enumerate(replies):
        assert reply.json()["quantrust"]["confidence"] == rule(picture(number), f"q{number}")[1]
    sizes = [len(batch) for batch in model.batches]
    assert sum(sizes) == 9 and max(sizes) == 4
    assert model.threads == {"model"}


def test_a_bad_question_does_not_spoil_the_batch_that_it_is_in(open_client) -> None:
    client = open_client(RuleModel(pause=0.2))
    replies = ask_together(client, [body(question) for question in ("a", "b", BAD, "c", BROKEN, "d")])
    assert [reply.status_code for reply in replies] == [200, 200, 400, 200, 500, 200]


def test_risk_limits_are_not_mixed_in_a_batch(open_client) -> None:
    client = open_client(RuleModel(pause=0.2))
    replies = ask_together(client, [body(f"q{n}", risk=risk) for n in range(3) for risk in POINTS])
    assert [reply.json()["quantrust"]["operating_point"]["risk_limit"] for reply in replies] == [0.05, 0.2] * 3


def test_a_full_queue_is_said_at_once_with_a_time_to_come_back(open_client) -> None:
    model = RuleModel()
    client = open_client(model, limits=Limits(requests=3), batch_size=1)
    model.may_answer = lambda: 'place="chat",status="429"} 5.0' in client.desk.metrics.page().decode()
    replies = ask_together(client, [body(f"q{n}") for n in range(8)])
    full = [reply for reply in replies if reply.status_code == 429]
    assert len(full) == 5 and [reply.status_code for reply in replies].count(200) == 3
    for reply in full:
        assert error(reply, 429)["type"] == "rate_limit_error"
        assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert client.post(CHAT, json=body()).status_code == 200


def test_a_question_whose_time_is_over_is_given_up(open_client) -> None:
    model = RuleModel()
    client = open_client(model, limits=Limits(seconds=0.3), batch_size=1)
    client.desk.worker.submit(Job(picture(), SLOW, 0.05))
    wait_until(lambda: bool(model.batches))
    reply = client.post(CHAT, json=body("waits behind it"))
    assert error(reply, 504)["code"] == "timeout"
    assert "retry-after" in reply.headers
    later = Job(picture(), "later", 0.05)
    client.desk.worker.submit(later)
    later.reply.result(60)
    # what was given up before its turn is never answered
    assert model.batches == [[SLOW], ["later"]]


def test_a_body_that_does_not_arrive_is_given_up_in_time(open_client) -> None:
    client, sent = open_client(limits=Limits(seconds=0.2)), []
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "query_string": b"", "headers": headers}

    async def receive() -> dict:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "slow_body"


def test_metrics_count_requests_abstentions_and_coverage(client: TestClient) -> None:
    questions = [f"q{number}" for number in range(10)]
    for question in questions:
        client.post(CHAT, json=body(question))
    client.post(CHAT, json=body(n=2))
    client.get("/nothing?" + "x" * 100)
    answered = sum(rule(picture(), question)[1] >= POINTS[0.05]["threshold"] for question in questions)
    lines = client.get("/metrics").text.splitlines()
    assert 0 < answered < 10
    for line in (
        'quantrust_requests_total{place="chat",status="200"} 10.0',
        'quantrust_requests_total{place="chat",status="400"} 1.0',
        'quantrust_requests_total{place="other",status="404"} 1.0',
        f'quantrust_questions_total{{outcome="answered",risk="0.05"}} {float(answered)}',
        f'quantrust_questions_total{{outcome="abstained",risk="0.05"}} {float(10 - answered)}',
        f'quantrust_coverage{{risk="0.05"}} {answered / 10}',
        'quantrust_coverage{risk="0.2"} NaN',
        "quantrust_request_seconds_count 10.0",
        "quantrust_questions_in_hand 0.0",
        "quantrust_prompt_tokens_total 110.0",
    ):
        assert line in lines, line


def test_a_server_that_stops_takes_no_more(client: TestClient) -> None:
    client.desk.stopping = True
    reply = client.post(CHAT, json=body())
    assert error(reply, 503)["code"] == "stopping" and reply.headers["retry-after"]
    assert client.get("/health").status_code == 503


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def hunted():
    """The files that a damaged data URL begins as."""
    return [base64.b64decode(data_url(kind=kind).partition(",")[2]) for kind in ("PNG", "JPEG", "WEBP", "GIF")]


@pytest.mark.hunt
@settings(max_examples=2000 if HUNTING else 60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_body_makes_the_server_fail(client: TestClient, hunted: list[bytes], data: st.DataObject) -> None:
    kind = data.draw(st.integers(0, 3))
    if kind == 0:
        content = data.draw(st.binary(max_size=200))
    elif kind == 1:
        content = json.dumps(data.draw(JSON)).encode()
    else:
        damaged = bytearray(data.draw(st.sampled_from(hunted)))
        for _ in range(data.draw(st.integers(0, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        url = f"data:image/png;base64,{base64.b64encode(damaged).decode()}"
        asked = body(data.draw(st.text(max_size=20)), data.draw(st.just(url) | st.text(max_size=30)))
        if kind == 3:
            asked[data.draw(st.sampled_from(["messages", "model", "risk", "n", "x"]))] = data.draw(JSON)
        content = json.dumps(asked).encode()
    reply = client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code in (200, 400, 404), reply.text
    assert "Traceback" not in reply.text
    if reply.status_code != 200:
        error(reply, reply.status_code)
