"""The application: the places that a server answers at."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image
from starlette.exceptions import HTTPException

from quantrust.serving.chat import Offer, Question, completion, read_request
from quantrust.serving.metrics import CONTENT_TYPE, Metrics
from quantrust.serving.page import Page
from quantrust.serving.pictures import data_of, decode
from quantrust.serving.refusal import Refusal, internal
from quantrust.serving.remote import fetch
from quantrust.serving.settings import ServingSettings
from quantrust.serving.worker import Job, Reply, Worker

AHEAD = 2
"""Batches of pictures that are decoded at once: one that is answered, and the next."""
THREADS = 4
"""For reading requests and pictures."""
FETCHING = 8
"""For images of other hosts, which mostly wait."""
LONGEST_PAUSE = 60
"""Seconds after which a client that was refused may try again, at most."""
NO_TELEMETRY: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
PLACES = ("/", "/health", "/metrics", "/v1/models", "/v1/chat/completions")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """What there is to ask.

    Attributes
    ----------
    model : str
        The name under which clients ask for it.
    risk : float
        The risk limit of requests that name none.
    points : mapping of float to mapping
        What replies say of the operating point, by its risk limit.
    max_new_tokens : int
        Of an answer, its end included.
    asked : str or None
        What is asked about every image; None where each has a question of its own.
    """

    model: str
    risk: float
    points: Mapping[float, Mapping[str, Any]]
    max_new_tokens: int
    asked: str | None = None


class Desk:
    """Takes questions in, lets the worker answer them, and hands the replies out.

    Parameters
    ----------
    settings : ServingSettings
    served : Served
    worker : Worker
    metrics : Metrics
    """

    def __init__(self, settings: ServingSettings, served: Served, worker: Worker, metrics: Metrics) -> None:
        self.settings, self.served, self.worker, self.metrics = settings, served, worker, metrics
        self.offer = Offer(
            served.model,
            served.risk,
            tuple(served.points),
            served.max_new_tokens,
            settings.limits.question_characters,
            served.asked,
        )
        self.started = int(time.time())
        self.in_hand = self.accepted = self.replied = 0
        self.stopping = False
        self._threads = ThreadPoolExecutor(THREADS, "reading")
        self._fetching = ThreadPoolExecutor(FETCHING, "fetching")
        self._decoded = asyncio.Semaphore(AHEAD * settings.batch_size)

    async def answer(self, request: Request) -> Response:
        """Answer a request for a chat completion.

        Raises
        ------
        Refusal
            If it is not answered.
        """
        limits, start = self.settings.limits, time.monotonic()
        self._check_head(request)
        self.in_hand += 1
        self.accepted += 1
        self.metrics.in_hand.set(self.in_hand)
        try:
            deadline = asyncio.get_running_loop().time() + limits.seconds
            body = await self._body(request, deadline)
            reply, question = await self._unless_hung_up(request, self._answer(body, deadline), deadline)
        finally:
            self.in_hand -= 1
            self.replied += 1
            self.metrics.in_hand.set(self.in_hand)
        self.metrics.seconds.observe(time.monotonic() - start)
        self._count(request, reply, question)
        return JSONResponse(self._completion(request, reply, question))

    def _check_head(self, request: Request) -> None:
        """Refuse what can be refused before anything of the body is read."""
        if self.stopping or not self.worker.alive:
            raise Refusal(
                503,
                "the server is stopping and takes no more questions; ask another one, or try again later",
                "stopping",
                headers={"Retry-After": "5", "Connection": "close"},
            )
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "expected the header Content-Type: application/json", "unsupported_media_type")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "the body is compressed; send it as it is", "unsupported_media_type")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.settings.limits.body_bytes:
            raise self._too_large()
        if self.in_hand >= self.settings.limits.requests:
            raise Refusal(
                429,
                f"{self.in_hand} questions are in hand, as many as this server takes at once; try again later",
                "queue_full",
                headers={"Retry-After": str(self._pause())},
            )

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"the body has more than {self.settings.limits.body_bytes:,} bytes; send a smaller image",
            "body_too_large",
            headers={"Connection": "close"},
        )

    def _pause(self) -> int:
        """Return after how many seconds half of what is in hand will be done."""
        half = self.worker.seconds_a_question * self.in_hand / 2
        return min(max(1, math.ceil(half)), LONGEST_PAUSE)

    async def _body(self, request: Request, deadline: float) -> bytes:
        content = bytearray()
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in request.stream():
                    content += chunk
                    if len(content) > self.settings.limits.body_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise Refusal(
                408, "the body did not arrive in time", "slow_body", headers={"Connection": "close"}
            ) from None
        return bytes(content)

    async def _unless_hung_up(self, request: Request, answering: Any, deadline: float) -> tuple[Reply, Question]:
        """Return the answer; give it up when the time is over, or the client hangs up."""
        task = asyncio.ensure_future(answering)
        gone = asyncio.ensure_future(_hang_up(request))
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            request.state.hung_up = True
            raise Refusal(499, "the client hung up", "hung_up")
        except TimeoutError:
            raise Refusal(
                504,
                f"there was no answer within {self.settings.limits.seconds:g} seconds; try again later",
                "timeout",
                headers={"Retry-After": str(self._pause())},
            ) from None
        finally:
            task.cancel()
            gone.cancel()
            # takes the errors that nobody waits for any more
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _answer(self, body: bytes, deadline: float) -> tuple[Reply, Question]:
        loop = asyncio.get_running_loop()
        question = await loop.run_in_executor(self._threads, read_request, body, self.offer)
        del body
        content = await self._image(question.image_url, deadline)
        async with self._decoded:
            pixels = self.settings.limits.pixels
            picture: Image.Image = await loop.run_in_executor(self._threads, decode, content, pixels)
            job = Job(picture, question.text, question.risk)
            self.worker.submit(job)
            return await asyncio.wrap_future(job.reply), question

    async def _image(self, url: str, deadline: float) -> bytes:
        loop, limits = asyncio.get_running_loop(), self.settings.limits
        if url[:5].lower() == "data:":
            return await loop.run_in_executor(self._threads, data_of, url)
        seconds = max(0.1, deadline - loop.time())
        hosts = self.settings.image_hosts
        return await loop.run_in_executor(self._fetching, fetch, url, hosts, limits.body_bytes, seconds)

    def _count(self, request: Request, reply: Reply, question: Question) -> None:
        answered = reply.content is not None
        self.metrics.count_answer(question.risk, answered)
        self.metrics.prompt_tokens.inc(reply.prompt_tokens)
        self.metrics.completion_tokens.inc(reply.completion_tokens)
        request.state.note = f"{'answered' if answered else 'abstained'} at risk {question.risk!r}"

    def _completion(self, request: Request, reply: Reply, question: Question) -> dict[str, Any]:
        content = self.settings.abstention if reply.content is None else reply.content
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return completion(request.state.identifier, self.served.model, content, reply.extra, usage, whole=reply.whole)

    def card(self) -> dict[str, Any]:
        """Return what the list of models says."""
        limits = self.settings.limits
        return {
            "id": self.served.model,
            "object": "model",
            "created": self.started,
            "owned_by": "quantrust",
            "quantrust": {
                "risk": self.served.risk,
                "asked": self.served.asked,
                "operating_points": [dict(point) for point in self.served.points.values()],
                "limits": {
                    "body_bytes": limits.body_bytes,
                    "pixels": limits.pixels,
                    "question_tokens": limits.question_tokens,
                    "answer_tokens": self.served.max_new_tokens,
                    "seconds": limits.seconds,
                },
            },
        }


async def _hang_up(request: Request) -> None:
    """Return when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def build_app(desk: Desk) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    desk : Desk
        It takes the questions.
    """
    page = Page()
    # Its pages of documentation load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    app.add_exception_handler(HTTPException, _in_shape)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(Exception, _failed)
    app.add_api_route("/v1/chat/completions", desk.answer, methods=["POST"], response_model=None)

    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [desk.card()]})

    async def model(name: str) -> Response:
        if name != desk.served.model:
            raise Refusal(404, f"this server has one model, {desk.served.model!r}", "model_not_found", "model")
        return JSONResponse(desk.card())

    async def health() -> Response:
        if desk.stopping or not desk.worker.alive:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics() -> Response:
        return Response(desk.metrics.page(), headers={"content-type": CONTENT_TYPE})

    async def show_page() -> Response:
        return HTMLResponse(page.html, headers={"content-security-policy": page.policy})

    app.add_api_route("/v1/models", models, response_model=None)
    app.add_api_route("/v1/models/{name:path}", model, response_model=None)
    app.add_api_route("/health", health, response_model=None)
    app.add_api_route("/metrics", metrics, response_model=None)
    app.add_api_route("/", show_page, response_model=None)
    return app


async def _refused(request: Request, refusal: Any) -> Response:
    return JSONResponse(refusal.body(), refusal.status, refusal.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """Say no more than that the server failed; the error goes on to the gate, which logs where."""
    return await _refused(request, internal())


async def _in_shape(request: Request, error: Any) -> Response:
    """Give a place or a method that is not there the form of every other refusal."""
    if error.status_code == 405:
        refusal = Refusal(405, "this place takes another method", "wrong_method", headers=dict(error.headers or {}))
    else:
        places = ", ".join(PLACES)
        refusal = Refusal(error.status_code, f"nothing is here; this server answers at {places}", "not_found")
    return await _refused(request, refusal)
