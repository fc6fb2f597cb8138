"""The example service, as it runs: two workers of uvicorn on PostgreSQL."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.real_parts.postgres import PASSWORD, PostgresServer
from tests.real_parts.waiting import wait_until
from tests.service.running import DELAY, Service

pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(90)]


@pytest.fixture
def service(newest_postgres: PostgresServer, tmp_path: Path) -> Iterator[Service]:
    started = Service(newest_postgres, tmp_path / "log.txt")
    try:
        wait_until(started.ready, timeout=60, message=started.log())
        yield started
    finally:
        started.close()


def test_the_service_executes_answers_and_drains(service: Service, newest_postgres: PostgresServer) -> None:
    with httpx.Client(base_url=service.url, timeout=10) as client:
        # Commands, and the read model as it is after a command.
        key = {"Idempotency-Key": "order-1"}
        first, again = (client.post("/accounts/ada/deposits", json={"amount": 10}, headers=key) for _ in range(2))
        assert (first.status_code, again.json()) == (201, first.json())
        moved = client.post("/transfers", json={"source": "ada", "target": "bob", "amount": 4})
        assert moved.status_code == 201
        after = {"after": moved.json()["position"]}
        assert client.get("/accounts/ada", params=after).json() == {"account": "ada", "balance": 6}

        # Errors, each with the status that tells a client what to do.
        refused = client.post("/transfers", json={"source": "bob", "target": "ada", "amount": 100})
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
        assert refused.json()["detail"] == "the account has 4, which is less than 100"
        assert client.post("/accounts/ada/deposits", json={"amount": 1}, headers=key).status_code == 422
        assert client.post(f"/accounts/{'x' * 1000}/deposits", json={"amount": 1}).status_code == 422
        assert client.get("/accounts/nobody").status_code == 404
        late = client.get("/accounts/ada", params={"after": 10**6})
        assert (late.status_code, late.json()["title"]) == (504, "not-yet-visible")

        # Health.
        health = client.get("/health/healthz").json()
        assert (health["status"], health["store"]) == ("healthy", "bank")
        assert health["checks"].keys() >= {"store", "pool", "append", "event_loop", "projection:balances", "read_model"}
        assert client.get("/health/livez").status_code == 200
        assert "<!doctype html>" in client.get("/health/").text

    # SIGTERM under load: ready says no first, and every deposit that was acknowledged is stored.
    answers: Counter[int | str] = Counter()
    seen: list[tuple[float, int | str]] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=service.url, timeout=10) as client:
            while not stop.is_set():
                try:
                    answer: int | str = client.post("/accounts/load/deposits", json={"amount": 1}).status_code
                except httpx.TransportError as error:
                    answer = type(error).__name__
                answers[answer] += 1
                seen.append((time.monotonic(), answer))

    clients = [threading.Thread(target=load) for _ in range(4)]
    for each in clients:
        each.start()
    wait_until(lambda: answers[201] > 20, timeout=20)
    service.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    wait_until(lambda: not service.ready(), timeout=DELAY)
    unready = time.monotonic()
    assert service.process.wait(timeout=30) == 0
    stop.set()
    for each in clients:
        each.join()
    accepted_after = [at for at, answer in seen if answer == 201 and at > unready]
    assert accepted_after, "no command was accepted between the failing probe and the refusal"
    assert unready - sent < DELAY
    stored = newest_postgres.sql(
        "SELECT count(*) FROM eventcore.events WHERE stream_id = 'account-load'",
        service.database,
    )
    # A connection that was closed before its answer came leaves it open whether its deposit was stored.
    cut = sum(count for answer, count in answers.items() if isinstance(answer, str) and answer != "ConnectError")
    assert answers[201] <= int(stored) <= answers[201] + cut
    assert set(answers) <= {201, 503, "ConnectError", "ReadError", "RemoteProtocolError"}
    # The lease was given back, so another process would go on at once.
    owners = newest_postgres.sql("SELECT string_agg(owner, ',') FROM eventcore.projections", service.database)
    assert owners == ""
    records = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    assert [record["message"] for record in records if record["logger"].endswith("draining")] == [
        "drained; everything ended: True",
        "drained; everything ended: True",
    ]
    assert PASSWORD not in service.log()
