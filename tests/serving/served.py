"""A model that answers by rule, and a server of it as a process of its own."""

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image

from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError
from quantrust.serving.app import Served
from quantrust.serving.worker import Reply

MODEL = "toy/rule"
CHAT = "/v1/chat/completions"
POINTS = {
    0.05: {"risk_limit": 0.05, "threshold": 0.75, "certified": True, "delta": 0.05},
    0.2: {"risk_limit": 0.2, "threshold": 0.25, "certified": False, "delta": None},
}
TOKENS = 8
SERVED = Served(MODEL, 0.05, POINTS, TOKENS)
# Words in a question, as the rule knows them.
BAD, BROKEN, MEMORY, SLOW = "forbidden", "broken", "memory", "slowly"
SLOW_SECONDS = 0.6


def rule(picture: Image.Image, question: str) -> tuple[str, float]:
    """Return what the model answers, and its confidence."""
    number = zlib.crc32(picture.tobytes() + question.encode())
    return f"answer {number % 1000}", (number >> 8) / 2**24


@dataclass
class RuleModel:
    """Answers by the rule once it may, and remembers its batches."""

    pause: float = 0.0
    may_answer: Callable[[], bool] = lambda: True
    batches: list[list[str]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def question_tokens(self, question: str) -> int:
        return len(question.split())

    def answer(self, pictures: Sequence[Image.Image], questions: Sequence[str], risk: float) -> list[Reply]:
        self.batches.append(list(questions))
        self.threads.add(threading.current_thread().name)
        wait_until(self.may_answer)
        words = " ".join(questions)
        if BAD in words:
            raise QuantrustError("the question holds a token of the model's prompts; reword it")
        if BROKEN in words:
            raise ZeroDivisionError(words)
        if MEMORY in words:
            raise MemoryError
        time.sleep(self.pause + (SLOW_SECONDS if SLOW in words else 0))
        return [self._reply(*asked, POINTS[risk]) for asked in zip(pictures, questions, strict=True)]

    def _reply(self, picture: Image.Image, question: str, point: dict) -> Reply:
        answer, confidence = rule(picture, question)
        abstained = confidence < point["threshold"]
        extra = {"confidence": confidence, "abstained": abstained, "operating_point": point}
        tokens = 10 + self.question_tokens(question)
        return Reply(None if abstained else answer, extra, tokens, len(answer.split()) + 1, True)


def wait_until(there: Callable[[], bool], patience: float = 120.0) -> None:
    """Wait until something is so; it is an error if that takes too long."""
    end = time.monotonic() + patience
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def picture(seed: int = 0, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """Return a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def data_url(image: Image.Image | None = None, kind: str = "PNG") -> str:
    """Return a picture as a data URL."""
    buffer = io.BytesIO()
    (image or picture()).save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def body(question: str = "what is it?", url: str | None = None, **fields: object) -> dict:
    """Return the body of a request for an answer."""
    image = {"type": "image_url", "image_url": {"url": data_url() if url is None else url}}
    content = [{"type": "text", "text": question}, image]
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


def request_bytes(content: bytes) -> bytes:
    """Return a request for an answer as it goes over a connection."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    return head.encode() + b"\r\n\r\n" + content


@dataclass
class Process:
    """A server as a process, and where it answers."""

    process: subprocess.Popen
    url: str
    log: Path

    def client(self, **options: object) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def stop(self, sent: int = signal.SIGTERM, patience: float = 120) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(sent)
        return self.process.wait(patience)


@contextlib.contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Process]:
    """Run a server whose first line ends in its address; it is killed at the end if it still runs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(Path(__file__).parents[1])])}
    log = folder / "log"
    with log.open("wb") as lines:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=lines, text=True)
    try:
        url = process.stdout.readline().split()[-1:]
        assert url, log.read_text()
        yield Process(process, url[0], log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Process]:
    """Serve the rule in a process of its own."""
    with running([sys.executable, __file__, json.dumps(settings)], folder) as process:
        yield process


@contextlib.contextmanager
def serving_bundle(folder: Path, bundle: Path, *options: str) -> Iterator[Process]:
    """Serve a bundle by the command."""
    command = [sys.executable, "-m", "quantrust.cli", "serve", str(bundle), "--port", "0", *options]
    with running(command, folder) as process:
        yield process


def _main(given: dict) -> int:
    from quantrust.serving import protocol
    from quantrust.serving.server import bind, serve
    from quantrust.serving.settings import Limits, ServingSettings

    protocol.HEAD_SECONDS = given.pop("head_seconds", protocol.HEAD_SECONDS)
    model = RuleModel(given.pop("pause", 0.0))
    if (gate := given.pop("gate", None)) is not None:
        model.may_answer = Path(gate).exists
    limits = Limits(**given.pop("limits", {}))
    settings = ServingSettings(limits=limits, **given)
    return serve(bind("127.0.0.1", 0), settings, lambda: (model, SERVED), lambda url: print(url, flush=True))


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
