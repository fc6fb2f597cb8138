"""The example service under gunicorn: SIGTERM to the master, which stops its two workers."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.real_parts.postgres import PASSWORD, PostgresServer
from tests.real_parts.waiting import wait_until
from tests.service.running import GUNICORN, Service

asyncpg = pytest.importorskip("asyncpg")
pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn_worker")
pytestmark = [pytest.mark.once, pytest.mark.timing, pytest.mark.timeout(120)]


@contextmanager
def appends_wait(url: str) -> Iterator[None]:
    """In this block, another session holds the table of events, so that every append waits."""
    held, release = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE eventcore.events IN EXCLUSIVE MODE")
                held.set()
                await asyncio.to_thread(release.wait, 60)
        finally:
            await connection.close()

    thread = threading.Thread(target=asyncio.run, args=(hold(),))
    thread.start()
    try:
        assert held.wait(20)
        yield
    finally:
        release.set()
        thread.join()


@pytest.fixture
def service(newest_postgres: PostgresServer, tmp_path: Path) -> Iterator[Service]:
    started = Service(newest_postgres, tmp_path / "log.txt", GUNICORN)
    try:
        wait_until(lambda: started.log().count("Application startup complete") == 2, timeout=60)
        wait_until(started.ready)
        yield started
    finally:
        started.close()


class Load:
    """Clients that deposit once into each of their accounts, so that each request can be looked for in the database."""

    def __init__(self, url: str, clients: int) -> None:
        self.acknowledged: set[str] = set()
        self.refused: list[httpx.Response] = []
        self.told: set[str] = set()
        self.cut: dict[str, str] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(url, number)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, url: str, number: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            for request in count():
                if self._stop.is_set():
                    return
                account = f"load-{number}-{request}"
                try:
                    answer = client.post(f"/accounts/{account}/deposits", json={"amount": 1})
                except httpx.TransportError as error:
                    self.cut[account] = type(error).__name__
                    self._stop.wait(0.02)
                    continue
                if answer.status_code == 201:
                    self.acknowledged.add(f"account-{account}")
                else:
                    self.refused.append(answer)
                    if answer.json()["may_have_committed"]:
                        self.told.add(f"account-{account}")


def test_gunicorn_ends_at_sigterm_without_losing_what_it_has_accepted(
    service: Service, newest_postgres: PostgresServer
) -> None:
    load = Load(service.url, clients=4)
    wait_until(lambda: len(load.acknowledged) > 20, timeout=30)

    def refusal() -> httpx.Response | None:
        try:
            # One that is still accepted waits, and is given up.
            answer = httpx.post(f"{service.url}/accounts/late/deposits", json={"amount": 1}, timeout=0.5)
        except httpx.TransportError:
            return None
        return answer if answer.status_code == 503 else None

    # Accepted commands wait in the store when SIGTERM comes. A new one is refused with its own error while they run.
    with appends_wait(newest_postgres.url(service.database)):
        service.process.send_signal(signal.SIGTERM)
        refused = wait_until(refusal, timeout=20)
    assert refused is not None
    assert (refused.json()["title"], refused.headers["retry-after"]) == ("draining", "1")
    assert refused.json()["may_have_committed"] is False
    assert service.process.wait(timeout=30) == 0
    load.end()
    stored = newest_postgres.sql(
        "SELECT string_agg(stream_id, ',') FROM eventcore.events WHERE stream_id LIKE 'account-load-%'", service.database
    )
    # Whatever was executed was answered: with success, or, on a machine that is too busy, with a timeout that says that the
    # events may be stored. Connections were cut only before a worker had read their request.
    assert load.acknowledged <= set(stored.split(",")) <= load.acknowledged | load.told
    assert {answer.json()["title"] for answer in load.refused} <= {"draining", "timeout"}
    assert set(load.cut.values()) <= {"ConnectError", "ReadError", "RemoteProtocolError"}
    assert newest_postgres.sql("SELECT string_agg(owner, ',') FROM eventcore.projections", service.database) == ""
    records = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    drained = [record["message"] for record in records if record["logger"].endswith("draining")]
    assert drained == ["drained; everything ended: True"] * 2
    assert PASSWORD not in service.log()
