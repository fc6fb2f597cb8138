"""What the endpoints answer, as an ASGI application and on core's listener."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from eventcore import EventStore, open_store
from eventcore.health import HealthListener, asgi_app
from eventcore.serving import Access
from tests.health.conftest import QUICK, get


async def test_healthy_degraded_and_unhealthy_have_their_statuses(store: EventStore) -> None:
    assert [(await get(store, path)).status for path in ("/livez", "/readyz", "/healthz")] == [200, 200, 200]
    store.add_health_check("mail", lambda: False)
    degraded = await get(store, "/healthz")
    assert (degraded.status, degraded.json["status"]) == (200, "degraded")
    assert degraded.json["checks"]["mail"]["reason"] == "the check returned False"
    assert (await get(store, "/readyz")).status == 200
    store.add_health_check("ledger", lambda: False, essential=True)
    assert [(await get(store, path)).status for path in ("/livez", "/readyz", "/healthz")] == [200, 503, 503]


async def test_an_answer_is_never_cached_and_a_probe_may_use_head(store: EventStore) -> None:
    answer = await get(store, "/readyz", method="HEAD")
    assert (answer.status, answer.text) == (200, "")
    assert int(answer.headers["content-length"]) > 0
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "method", "status", "expected"),
    [
        ("/metrics", "GET", 404, "/livez, /readyz, /healthz"),
        ("/readyz/", "GET", 404, "nothing is at '/readyz/'"),
        ("/readyz", "POST", 405, "GET or HEAD"),
    ],
)
async def test_what_is_not_there_says_what_is(store: EventStore, path: str, method: str, status: int, expected: str) -> None:
    answer = await get(store, path, method=method)
    assert answer.status == status
    assert expected in answer.json["error"]


async def test_a_mounted_application_finds_its_paths_with_and_without_the_root(store: EventStore) -> None:
    # Since ASGI 2.4 the path includes the root; older servers leave it out.
    assert (await get(store, "/health/readyz", root_path="/health")).status == 200
    assert (await get(store, "/readyz", root_path="/health")).status == 200


async def test_it_can_be_mounted_in_fastapi_and_answers_without_a_redirect(store: EventStore) -> None:
    app = FastAPI()
    app.mount("/health", asgi_app(store))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        answers = {path: await client.get(path) for path in ("/health/livez", "/health/readyz", "/health/healthz", "/health/")}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert answers["/health/healthz"].json()["checks"]["store"]["status"] == "healthy"


async def test_it_can_be_served_alone_with_a_lifespan(store: EventStore) -> None:
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await asgi_app(store)({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_listener_answers_before_the_store_is_opened_while_it_is_open_and_after_it_is_closed() -> None:
    store = open_store("memory:", exporters="none", health=QUICK)
    with HealthListener(store, port=0) as listener:
        async with httpx.AsyncClient(base_url=listener.url) as client:

            async def statuses() -> list[int]:
                return [(await client.get(path)).status_code for path in ("/livez", "/readyz", "/healthz", "/")]

            assert await statuses() == [200, 503, 503, 200]
            async with store:
                assert await statuses() == [200, 200, 200, 200]
                data = (await client.get("/data.json")).json()
                assert data["health"]["ready"]
            assert await statuses() == [200, 503, 503, 200]


async def test_the_listener_asks_for_a_token_where_one_is_set() -> None:
    store = open_store("memory:", exporters="none", health=QUICK)
    with HealthListener(store, port=0, access=Access(tokens=["0123456789abcdef"])) as listener:
        async with httpx.AsyncClient(base_url=listener.url) as client:
            assert (await client.get("/livez")).status_code == 401
            authorized = await client.get("/livez", headers={"Authorization": "Bearer 0123456789abcdef"})
            assert authorized.status_code == 200


async def test_a_store_can_be_asked_from_another_event_loop(store: EventStore) -> None:
    health = await asyncio.to_thread(lambda: asyncio.run(store.health()))
    assert health.ready
    assert health.checks["store"].figures["head_position"] == 0


def test_a_store_whose_event_loop_has_ended_is_not_ready() -> None:
    async def open_and_leave() -> EventStore:
        return await open_store("memory:", exporters="none").__aenter__()

    store = asyncio.run(open_and_leave())
    with HealthListener(store, port=0) as listener, pytest.raises(urllib.request.HTTPError) as answer:
        urllib.request.urlopen(f"{listener.url}/readyz", timeout=5)
    body = json.loads(answer.value.read())
    answer.value.close()
    assert not body["ready"]


def test_what_clients_cause_is_logged_with_a_limit() -> None:
    store = open_store("memory:", exporters="none")
    with HealthListener(store, port=0) as listener:
        logger = listener._listener._service.logger
        record = logging.LogRecord(logger.name, logging.WARNING, __file__, 1, "a request failed", (), None)
        assert sum(bool(logger.filter(record)) for _ in range(200)) <= 20
