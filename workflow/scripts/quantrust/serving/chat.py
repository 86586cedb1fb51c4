"""Requests for a chat completion, read strictly, and the replies to them.

A field of the protocol that would change the answer is refused, unless it has the value that changes nothing. One that
changes nothing is ignored (`IGNORED`). Any other is refused by its name, so that no misspelt field goes unnoticed.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantrust.data.texts import shown, text
from quantrust.errors import QuantrustError
from quantrust.serving.refusal import Refusal, invalid

MOST_MARKS = 10_000
"""Brackets and commas in a body at most, those in texts included: each may stand for an object of hundreds of bytes."""

GREEDY = "answers are decoded greedily, as they were measured"
ONE_ANSWER = "a question has one answer"
PLAIN = "the answer is plain text"
NO_TOOLS = "the model calls no tools"
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "stream": ((False,), "an answer is given or withheld as a whole, because its confidence is known at its end alone"),
    "stream_options": ((), "nothing is streamed"),
    "n": ((1,), ONE_ANSWER),
    "temperature": ((0,), GREEDY),
    "top_p": ((1,), GREEDY),
    "presence_penalty": ((0,), GREEDY),
    "frequency_penalty": ((0,), GREEDY),
    "logit_bias": (({},), GREEDY),
    "stop": (([],), "answers end where they ended when they were measured"),
    "logprobs": ((False,), "the confidence of the whole answer is in the field quantrust of the reply"),
    "top_logprobs": ((0,), "the confidence of the whole answer is in the field quantrust of the reply"),
    "tools": (([],), NO_TOOLS),
    "tool_choice": (("none", "auto"), NO_TOOLS),
    "parallel_tool_calls": ((True, False), NO_TOOLS),
    "functions": (([],), NO_TOOLS),
    "function_call": (("none", "auto"), NO_TOOLS),
    "web_search_options": ((), NO_TOOLS),
    "response_format": (({"type": "text"},), PLAIN),
    "modalities": ((["text"],), PLAIN),
    "audio": ((), PLAIN),
    "prediction": ((), GREEDY),
    "reasoning_effort": (("none",), "the model gives its answer alone"),
    "verbosity": ((), "answers are as long as they were measured"),
    "store": ((False,), "nothing is stored"),
}
"""By the field: the values beside null that change nothing, and the reason why no other is taken."""
IGNORED = frozenset(
    {"metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "seed", "service_tier", "user"}
)
LENGTHS = ("max_tokens", "max_completion_tokens")
READ = frozenset({"messages", "model", "risk", *LENGTHS})


@dataclass(frozen=True)
class Question:
    """What a request asks.

    Attributes
    ----------
    text : str
    image_url : str
        A data URL, or the address of an image.
    risk : float
        The risk limit.
    """

    text: str
    image_url: str
    risk: float


@dataclass(frozen=True)
class Offer:
    """What a server answers.

    Attributes
    ----------
    model : str
    risk : float
        The limit of requests that name none.
    risks : tuple of float
        All limits with an operating point.
    max_new_tokens : int
        Of an answer, its end included.
    question_characters : int
        In a question at most.
    asked : str or None
        What is asked about every image, so that a request need not say it; None where each has a question of its own.
    """

    model: str
    risk: float
    risks: tuple[float, ...]
    max_new_tokens: int
    question_characters: int
    asked: str | None = None


def read_request(body: bytes, offer: Offer) -> Question:
    """Read the body of a request.

    Parameters
    ----------
    body : bytes
        Not trusted in any way.
    offer : Offer

    Raises
    ------
    Refusal
        If it is not JSON, asks for what is not offered, or asks for something else than one answer to one question
        about one image.
    """
    content = _parse(body)
    if not isinstance(content, dict):
        raise invalid("the body is no JSON object; expected one with model and messages")
    for name in ("model", "messages"):
        if content.get(name) is None:
            raise invalid(f"{name} is missing", name, "missing_required_parameter")
    if content["model"] != offer.model:
        raise Refusal(404, f"this server has one model, {offer.model!r}; ask for it", "model_not_found", "model")
    _refuse_what_is_not_offered(content)
    _check_lengths(content, offer)
    question, image_url = _read_messages(content["messages"], offer.asked)
    if len(question) > offer.question_characters:
        raise too_long(f"the question has more than {offer.question_characters:,} characters")
    return Question(question, image_url, _read_risk(content.get("risk"), offer))


def too_long(fault: str) -> Refusal:
    """Return the refusal of a question with too many characters or tokens."""
    return invalid(f"{fault}; shorten it", "messages", "context_length_exceeded")


def _parse(body: bytes) -> Any:
    if sum(map(body.count, (b"[", b"{", b","))) > MOST_MARKS:
        raise invalid(f"the body has more than {MOST_MARKS:,} brackets and commas", code="invalid_json")
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise invalid("the body is not UTF-8 text", code="invalid_json") from None
    except (ValueError, RecursionError):
        # also an integer of thousands of digits, a key that an object has twice, and NaN
        raise invalid(
            "the body is not valid JSON, holds a key twice, or a number that JSON does not have", code="invalid_json"
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _same(value: Any, neutral: Any) -> bool:
    # True equals 1 in Python
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _refuse_what_is_not_offered(content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if name in READ or name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise invalid(
                f"unknown field {shown(name)}; this server knows those of a chat completion, and risk",
                name if name.isascii() and name.isprintable() else None,
                "unknown_parameter",
            )
        allowed, reason = NEUTRAL[name]
        if value is not None and not any(_same(value, neutral) for neutral in allowed):
            values = " or ".join([json.dumps(neutral) for neutral in allowed] + ["null"])
            raise invalid(
                f"{name} is not offered: {reason}; leave it out, or give {values}", name, "unsupported_parameter"
            )


def _check_lengths(content: Mapping[str, Any], offer: Offer) -> None:
    for name in LENGTHS:
        value = content.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(f"{name} is no whole number", name)
        if value < offer.max_new_tokens:
            raise invalid(
                f"{name} is below {offer.max_new_tokens}, the length that answers were measured with; leave it out, or "
                f"give {offer.max_new_tokens} or more",
                name,
                "unsupported_parameter",
            )


def _read_risk(value: Any, offer: Offer) -> float:
    if value is None:
        return offer.risk
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in offer.risks:
        listed = ", ".join(map(repr, offer.risks))
        raise invalid(
            f"there is no operating point for this risk limit; there are some for {listed}", "risk", "unknown_risk"
        )
    return next(risk for risk in offer.risks if risk == value)


def _read_messages(messages: Any, asked: str | None) -> tuple[str, str]:
    """Return the question and the URL of the image; without a question, what is asked about every image."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise invalid("messages is no list of objects", "messages")
    roles = [message.get("role") for message in messages]
    if any(role in ("system", "developer") for role in roles):
        raise invalid(
            "a system message is not offered: the prompt is the bundle's, as it was measured; send the question alone",
            "messages",
            "unsupported_value",
        )
    if roles != ["user"]:
        raise invalid(
            "expected one message, of the role user: a question is answered by itself, without earlier turns",
            "messages",
            "unsupported_value",
        )
    (message,) = messages
    _refuse_unknown(message, ("role", "content", "name"), "messages[0]")
    parts = message.get("content")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise invalid(
            "messages[0].content is no list of parts; expected one part of the type text, with the question, and one "
            "of the type image_url",
            "messages",
        )
    kinds = [part.get("type") for part in parts]
    if kinds == ["image_url"] and asked is not None:
        return asked, _read_image(parts[0])
    if sorted(map(str, kinds)) != ["image_url", "text"]:
        raise invalid(
            "messages[0].content has other parts than one of the type text, with the question, and one of the type "
            "image_url: a question is about one image",
            "messages",
            "unsupported_value",
        )
    return _read_question(parts[kinds.index("text")]), _read_image(parts[kinds.index("image_url")])


def _read_question(part: Mapping[str, Any]) -> str:
    _refuse_unknown(part, ("type", "text"), "the part of the type text")
    try:
        question = text(part.get("text"), "text", "messages[0].content")
    except QuantrustError:
        raise invalid("the text of the question is no Unicode text", "messages") from None
    if not question.strip():
        raise invalid("the text of the question is empty", "messages")
    return question


def _read_image(part: Mapping[str, Any]) -> str:
    _refuse_unknown(part, ("type", "image_url"), "the part of the type image_url")
    image = part.get("image_url")
    if not isinstance(image, dict) or not isinstance(image.get("url"), str):
        raise invalid('image_url is no object with a text "url"', "messages")
    _refuse_unknown(image, ("url", "detail"), "image_url")
    if image.get("detail") not in (None, "auto"):
        raise invalid(
            "image_url.detail is not offered: images have the size with which answers were measured; leave it out, or "
            'give "auto"',
            "messages",
            "unsupported_parameter",
        )
    return image["url"]


def _refuse_unknown(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := [key for key in content if key not in known]:
        raise invalid(f"{where} has the unknown field {shown(unknown[0])}", "messages", "unknown_parameter")


def completion(
    identifier: str, model: str, content: str, extra: Mapping[str, Any], usage: Mapping[str, int], *, whole: bool
) -> dict[str, Any]:
    """Return the reply to a question.

    Parameters
    ----------
    identifier : str
    model : str
    content : str
        The answer, or the sentence that stands for an abstention.
    extra : mapping
        What stands in the reply's field `quantrust`.
    usage : mapping of str to int
        `prompt_tokens` and `completion_tokens`.
    whole : bool
        Whether the answer ended by itself; otherwise it reached the limit on its tokens.
    """
    return {
        "id": identifier,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop" if whole else "length",
            }
        ],
        "usage": {**usage, "total_tokens": sum(usage.values())},
        "quantrust": dict(extra),
    }
