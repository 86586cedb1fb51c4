"""A client of a server of the rule, both in this process."""

import asyncio
from collections.abc import Callable, Iterator

import httpx2
import pytest
from starlette.testclient import TestClient

from quantrust.serving.app import Desk, build_app
from quantrust.serving.gate import LOCAL_NAMES, Gate
from quantrust.serving.metrics import Metrics
from quantrust.serving.settings import Limits, ServingSettings
from quantrust.serving.worker import Worker
from serving.served import POINTS, SERVED, RuleModel

BASE = "http://localhost:8000"


@pytest.fixture
def open_client() -> Iterator[Callable[..., TestClient]]:
    """Return a function that serves a model, under settings and limits, and returns a client."""
    workers, clients = [], []

    def open_one(model: RuleModel | None = None, limits: Limits | None = None, **settings: object) -> TestClient:
        given = ServingSettings(limits=limits or Limits(), **settings)
        worker = Worker(lambda: model or RuleModel(), given.batch_size, given.limits.question_tokens)
        worker.start()
        workers.append(worker)
        worker.metrics = Metrics(tuple(POINTS))
        desk = Desk(given, SERVED, worker, worker.metrics)
        app = Gate(build_app(desk), given.api_key, None if given.api_key else LOCAL_NAMES, worker.metrics)
        client = TestClient(app, base_url=BASE, raise_server_exceptions=True)
        clients.append(client.__enter__())
        client.desk = desk
        return client

    yield open_one
    for client in clients:
        client.__exit__(None, None, None)
    for worker in workers:
        assert worker.stop(10)


@pytest.fixture
def client(open_client: Callable[..., TestClient]) -> TestClient:
    """A client of a server under the default settings."""
    return open_client()


def ask_together(client: TestClient, bodies: list[dict]) -> list[httpx2.Response]:
    """Ask all at the same time and return the replies in order."""

    async def ask_all() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as asking:
            return await asyncio.gather(*(asking.post("/v1/chat/completions", json=body) for body in bodies))

    return asyncio.run(ask_all())
