"""The one thread that owns the model: it answers the requests that wait together in one batch."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from quantrust.errors import QuantrustError, out_of_memory
from quantrust.serving.chat import too_long
from quantrust.serving.metrics import Metrics
from quantrust.serving.refusal import Refusal, invalid

FORGETTING = 0.2
"""Weight of the newest batch in the mean time that a question takes."""


@dataclass(frozen=True)
class Reply:
    """What the model makes of a question.

    Attributes
    ----------
    content : str or None
        The answer; None where the model abstains.
    extra : dict
        What the reply to the client says beside it.
    prompt_tokens, completion_tokens : int
        The picture's tokens are among those of the prompt, the end token among those of the answer.
    whole : bool
        Whether the answer ended by itself; otherwise it reached the limit on its tokens.
    """

    content: str | None
    extra: dict[str, object]
    prompt_tokens: int
    completion_tokens: int
    whole: bool


class Model(Protocol):
    """What answers; all of it is called in the worker's thread."""

    def question_tokens(self, question: str) -> int:
        """Return how many tokens a question has."""

    def answer(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], risk: float
    ) -> Sequence[Reply | Exception]:
        """Answer a batch; in the place of a reply may be the error of that question alone."""


# Two jobs are never the same, and comparing their pictures would take a while.
@dataclass(frozen=True, eq=False)
class Job:
    """A question that waits."""

    picture: Image.Image
    question: str
    risk: float
    reply: Future[Reply] = field(default_factory=Future)


class Worker:
    """Answers jobs in the order in which they come, those of one risk limit together.

    A job whose future was cancelled before its batch began is left out.

    Parameters
    ----------
    load : callable
        Returns the model; it is called in the thread that uses it.
    batch_size : int
        Jobs in a batch at most.
    question_tokens : int
        Tokens of a question at most.
    """

    def __init__(self, load: Callable[[], Model], batch_size: int, question_tokens: int) -> None:
        self._load, self._batch_size, self._question_tokens = load, batch_size, question_tokens
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self.metrics: Metrics | None = None
        self.seconds_a_question = 0.0
        self.loaded: Future[Model] = Future()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> Model:
        """Start the thread and return the model once it is loaded, or raise what loading raises."""
        self._thread.start()
        return self.loaded.result()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def stop(self, seconds: float) -> bool:
        """End the thread once nothing waits any more; return whether it did within so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether jobs are answered."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            model = self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            return
        self.loaded.set_result(model)
        while (batch := self._next_batch()) is not None:
            begun = [job for job in batch if job.reply.set_running_or_notify_cancel()]
            if begun:
                self._answer(model, begun)

    def _next_batch(self) -> list[Job] | None:
        """Wait for jobs and take those that are answered together; None when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return None
            risk = self._waiting[0].risk
            batch = [job for job in self._waiting if job.risk == risk][: self._batch_size]
            for job in batch:
                self._waiting.remove(job)
            return batch

    def _answer(self, model: Model, jobs: list[Job]) -> None:
        start = time.monotonic()
        short = [job for job in jobs if self._is_short(model, job)]
        if short:
            self._answer_together(model, short)
            self._note(time.monotonic() - start, len(short))

    def _is_short(self, model: Model, job: Job) -> bool:
        try:
            tokens = model.question_tokens(job.question)
        except Exception as error:
            job.reply.set_exception(refusal_of(error))
            return False
        if tokens > self._question_tokens:
            fault = f"the question has {tokens:,} tokens, more than the {self._question_tokens:,} allowed"
            job.reply.set_exception(too_long(fault))
            return False
        return True

    def _answer_together(self, model: Model, jobs: list[Job]) -> None:
        try:
            replies = model.answer([job.picture for job in jobs], [job.question for job in jobs], jobs[0].risk)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].reply.set_exception(refusal_of(error))
                return
            # One of them is at fault, or they are too many for the memory: the others need not suffer for it.
            for job in jobs:
                self._answer_together(model, [job])
            return
        for job, reply in zip(jobs, replies, strict=True):
            if isinstance(reply, Exception):
                job.reply.set_exception(refusal_of(reply))
            else:
                job.reply.set_result(reply)

    def _note(self, seconds: float, size: int) -> None:
        newest = seconds / size
        before = self.seconds_a_question or newest
        self.seconds_a_question = before + FORGETTING * (newest - before)
        if self.metrics is not None:
            self.metrics.model_seconds.observe(seconds)
            self.metrics.batch_size.observe(size)


def refusal_of(error: Exception) -> Exception:
    """Return what a client is told of an error of the model; an error that nobody expected as it is."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, QuantrustError):
        return invalid(f"the model cannot answer this: {error}", "messages", "invalid_question")
    if out_of_memory(error) is not None:
        return Refusal(
            503,
            "the question takes more memory than there is; send a smaller image, or try again",
            "out_of_memory",
            headers={"Retry-After": "5"},
        )
    return error
