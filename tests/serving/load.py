"""A load on a server: many clients at once, some that talk nonsense, one that hangs up, and a signal in the middle."""

import json
import math
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2
import psutil

from quantrust.bundle.load import Bundle
from serving.served import CHAT, Process, body, data_url, picture, request_bytes

CLIENTS = 16
MALFORMED = 20
"""One request in so many is malformed."""
TOLERANCE = 1e-5
"""Between a confidence from a batch and one of the question alone, about pictures of noise: 1e-6 was measured."""
FAULTS = (
    lambda body: json.dumps(body)[:-20],
    lambda body: json.dumps(body | {"n": 2}),
    lambda body: json.dumps(body | {"temprature": 0}),
    lambda body: json.dumps(body).replace("base64,", "base64,!"),
    lambda body: json.dumps(body | {"risk": 0.123}),
    lambda body: json.dumps(body).replace("image_url", "image_uri"),
)


@dataclass(frozen=True)
class Asked:
    """A question, and what the model says to it alone."""

    body: dict
    answer: str
    confidence: float
    threshold: float


@dataclass
class Load:
    """What came of a load."""

    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    identifiers: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    near: int = 0
    furthest: float = 0.0
    unanswered: int = 0

    @property
    def replies(self) -> int:
        return sum(self.statuses.values())


def run_load(server: Process, questions: Sequence[Asked], count: int, stop_after: int | None = None) -> Load:
    """Send so many requests from `CLIENTS` clients; after so many replies, tell the server to stop.

    A client whose connection is refused or closed before a reply ends there.
    """
    load, lock, numbers = Load(), threading.Lock(), iter(range(count))
    stopped = threading.Event()

    def ask_on() -> None:
        with server.client() as client:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    _ask(client, load, lock, questions[number % len(questions)], number)
                except httpx2.TransportError:
                    with lock:
                        load.unanswered += 1
                    return
                if stop_after is not None and load.replies >= stop_after and not stopped.is_set():
                    # a second signal would end the server at once
                    with lock:
                        if not stopped.is_set():
                            stopped.set()
                            server.process.send_signal(signal.SIGTERM)

    threads = [threading.Thread(target=ask_on) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def _ask(client: httpx2.Client, load: Load, lock: threading.Lock, asked: Asked, number: int) -> None:
    malformed = number % MALFORMED == MALFORMED // 2
    content = FAULTS[number // MALFORMED % len(FAULTS)](asked.body) if malformed else json.dumps(asked.body)
    reply = client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    with lock:
        load.statuses[reply.status_code] += 1
        load.identifiers.append(reply.headers["x-request-id"])
        load.seconds.append(reply.elapsed.total_seconds())
        if reply.status_code == 503:
            return
        if malformed:
            if reply.status_code != 400:
                load.wrong.append(f"request {number} is malformed, and was answered with {reply.status_code}")
            return
        if reply.status_code != 200:
            load.wrong.append(f"request {number}: status {reply.status_code}, {reply.text}")
            return
        _compare(load, asked, reply.json(), number)


def _compare(load: Load, asked: Asked, reply: dict, number: int) -> None:
    """Hold a reply against what the model says to the question alone."""
    found = reply["quantrust"]
    distance = abs(found["confidence"] - asked.confidence)
    load.furthest = max(load.furthest, distance)
    if math.isclose(asked.confidence, asked.threshold, rel_tol=0, abs_tol=TOLERANCE):
        load.near += 1
    elif found["abstained"] != (asked.confidence < asked.threshold):
        load.wrong.append(f"request {number}: decided otherwise than alone")
    content = reply["choices"][0]["message"]["content"]
    if distance > TOLERANCE or (not found["abstained"] and content != asked.answer):
        load.wrong.append(f"request {number}: {content!r} with {found['confidence']!r}")


def hang_up(server: Process, asked: Asked) -> None:
    """Send a question and close the connection without waiting for the reply."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request_bytes(json.dumps(asked.body).encode()))


def resident(server: Process) -> int:
    """Return the resident memory of the server in bytes."""
    return psutil.Process(server.process.pid).memory_info().rss


def said_at_the_end(server: Process) -> tuple[int, int]:
    """Return how many questions the server says that it accepted, and how many it replied to."""
    found = re.search(r"stopped: (\d+) questions accepted, (\d+) replied to", server.log.read_text())
    assert found is not None, server.log.read_text()[-2000:]
    return int(found[1]), int(found[2])


def questions_to_a_bundle(bundle: Bundle, count: int, risk: float) -> list[Asked]:
    """Return questions about pictures of noise, and what a bundle says to each alone."""
    asked = []
    for number in range(count):
        image = picture(number, (64, 64))
        question = f"is there a {number % 10} {'below' if number % 3 else 'left of the red circle or above'} it?"
        answer = bundle.answer(image, question, risk)
        content = body(question, data_url(image), risk=risk, model=bundle.record.name)
        asked.append(Asked(content, answer.answer, answer.confidence, answer.operating_point.threshold))
    return asked


@dataclass(frozen=True)
class Outcome:
    """What came of the three parts of a load: to warm up, all answered, and one that a signal ends.

    Attributes
    ----------
    first, whole, last : Load
    warm_bytes, end_bytes : int
        Resident memory of the server after the first part and after the second.
    seconds : float
        Of the second part.
    exit_code, accepted, replied : int
        What the server says at its end.
    hung_up : int
        Questions whose client did not wait.
    """

    first: Load
    whole: Load
    last: Load
    warm_bytes: int
    end_bytes: int
    seconds: float
    exit_code: int
    accepted: int
    replied: int
    hung_up: int

    @property
    def came_back(self) -> int:
        """Replies that clients got to questions that the server accepted, each counted once."""
        parts = (self.first, self.whole, self.last)
        return len({name for part in parts for name in part.identifiers}) - sum(part.statuses[503] for part in parts)


def put_under_load(server: Process, questions: Sequence[Asked], warm: int, count: int) -> Outcome:
    """Send requests in three parts, let some clients hang up, and stop the server in the middle of the last part."""
    first = run_load(server, questions, warm)
    before, start = resident(server), time.monotonic()
    whole = run_load(server, questions, count)
    seconds, after = time.monotonic() - start, resident(server)
    for asked in questions[:5]:
        hang_up(server, asked)
    last = run_load(server, questions, count, stop_after=count // 2)
    code = server.process.wait(90)
    hung_up = server.log.read_text().count(" chat 499 ")
    return Outcome(first, whole, last, before, after, seconds, code, *said_at_the_end(server), hung_up)
