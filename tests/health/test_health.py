"""``store.health()``: its checks, its limits and what it costs."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from eventcore import EventStore, Telemetry, open_store
from eventcore.errors import AccessDenied, IncompatibleStore, StoreError, StoreUnavailable
from eventcore.exporting import Exporter, SpanData, hookimpl
from eventcore.health import Health, HealthSettings
from tests.health.conftest import QUICK, check, deposit, until, when
from tests.store.backends import SteeredBackend


async def test_a_store_with_nothing_wrong_is_healthy_live_and_ready(store: EventStore) -> None:
    await deposit(store, 3)
    health = await store.health()
    assert (health.status, health.live, health.ready, health.draining, health.store) == (
        "healthy",
        True,
        True,
        False,
        "default",
    )
    assert health.problems() == {}
    assert health.checks["store"].figures["head_position"] == 3
    assert list(health.checks) == ["append", "event_loop", "store"]
    assert (await store.health(timeout=float("inf"))).ready


async def test_health_can_be_asked_before_a_store_is_opened_and_after_it_is_closed() -> None:
    store = open_store("memory:", exporters="none")
    before = await store.health()
    async with store:
        assert (await store.health()).ready
    after = await store.health()
    assert [each.ready for each in (before, after)] == [False, False]
    assert [each.checks["store"].reason for each in (before, after)] == [
        "the store has not been opened yet",
        "the store is closed",
    ]
    assert before.live
    assert after.live


async def test_a_store_that_does_not_answer_is_not_ready_and_still_live(store: EventStore) -> None:
    backend = SteeredBackend()

    async def unreachable() -> int:
        raise StoreUnavailable("no server can be reached at 127.0.0.1:1")

    backend.head_position = unreachable  # type: ignore[method-assign]
    async with open_store(backend, telemetry=store.telemetry, name="away", health=QUICK) as away:
        health = await away.health()
        assert (health.status, health.live, health.ready) == ("unhealthy", True, False)
        assert health.checks["store"].reason == "StoreUnavailable: no server can be reached at 127.0.0.1:1"


async def test_a_call_that_hangs_is_answered_for_within_the_timeout_and_not_repeated(store: EventStore) -> None:
    backend, calls = SteeredBackend(), 0

    async def hang() -> int:
        nonlocal calls
        calls += 1
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await future

    backend.head_position = hang  # type: ignore[method-assign]
    async with open_store(backend, telemetry=store.telemetry, name="hanging", health=QUICK) as hanging:
        # Opening was a call that was answered. That is forgotten after the limit of an evaluation.
        found = await until(lambda: when(hanging, lambda health: not health.ready))
        assert found.checks["store"].reason.startswith("no answer within")
        begun = time.monotonic()
        for _ in range(3):
            assert not (await hanging.health(timeout=0.1)).ready
        assert time.monotonic() - begun < 2
        assert calls == 1


async def test_a_probe_that_cannot_wait_is_told_what_is_known_of_every_check(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    asked = asyncio.Event()
    settings = msgspec.structs.replace(QUICK, limit=30.0, interval=30.0)

    async def slow() -> None:
        asked.set()
        await asyncio.sleep(30)

    async def refused() -> int:
        raise StoreUnavailable("no server can be reached; start it")

    async with open_store(backend, telemetry=telemetry, health=settings) as store:
        store.add_health_check("slow", slow, timeout=30.0)
        monitor = store._monitor
        monitor._store._backend.log.head_position = refused  # type: ignore[method-assign]
        # As after a minute in which nobody asked.
        monitor._evaluated_at = time.monotonic() - 100
        health = await store.health(timeout=0.3)
        assert asked.is_set()
        # The store has answered, though another check has not: a process without a database is not ready.
        assert (health.ready, health.status) == (False, "unhealthy")
        assert health.checks["store"].reason == "StoreUnavailable: no server can be reached; start it"
        assert health.checks["slow"].reason == "no answer within 0.3 s"
        # Nobody has to be asked for these.
        assert {health.checks[name].status for name in ("append", "event_loop")} == {"healthy"}


async def test_probes_at_the_same_time_share_one_call_and_later_ones_take_its_result(telemetry: Telemetry) -> None:
    backend, calls = SteeredBackend(), 0

    async def count() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return 0

    backend.head_position = count  # type: ignore[method-assign]
    async with open_store(backend, telemetry=telemetry, health=HealthSettings(keep=60.0, interval=60.0)) as store:
        await asyncio.gather(*(store.health() for _ in range(100)))
        await asyncio.gather(*(store.health() for _ in range(100)))
        assert calls == 1


async def test_since_is_when_the_status_changed_and_not_when_it_was_asked(store: EventStore) -> None:
    state = SimpleNamespace(ok=True)
    store.add_health_check("switch", lambda: state.ok)
    first = await check(store, "switch")
    await asyncio.sleep(1.1)  # `since` counts in seconds
    assert (await check(store, "switch")).since == first.since
    state.ok = False
    changed = await check(store, "switch")
    assert first.since is not None
    assert changed.since is not None
    assert first.since < changed.since <= datetime.now(UTC)


# Appends


async def test_an_append_that_waits_degrades_and_one_that_waits_for_long_ends_readiness(telemetry: Telemetry) -> None:
    backend = SteeredBackend()
    async with open_store(backend, telemetry=telemetry, health=QUICK) as store:
        backend.hold()
        running = asyncio.create_task(deposit(store))

        async def append(status: str) -> Health | None:
            health = await store.health()
            return health if health.checks["append"].status == status else None

        degraded = await until(lambda: append("degraded"))
        assert degraded.ready
        unhealthy = await until(lambda: append("unhealthy"))
        assert not unhealthy.ready
        assert "another session may hold the append lock" in unhealthy.checks["append"].reason
        backend.let_all()
        await running
        assert (await store.health()).ready


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("the disk is full"),
        AccessDenied("permission denied for table events"),
        IncompatibleStore("a newer release has migrated the schema"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_append_that_failed_degrades_until_one_succeeds_and_does_not_keep_commands_away(
    telemetry: Telemetry, error: StoreError
) -> None:
    backend = SteeredBackend()

    def fail(_: object) -> None:
        raise error

    async with open_store(backend, telemetry=telemetry, health=QUICK) as store:
        backend.before_append = fail
        with pytest.raises(type(error)):
            await deposit(store)
        health = await store.health()
        # A process that is not ready gets no command, and so could never show that appends succeed again.
        assert (health.status, health.ready) == ("degraded", True)
        assert health.checks["append"].reason == f"the last append failed 0 s ago: {error}"
        backend.before_append = lambda requests: None
        await deposit(store)
        assert (await store.health()).status == "healthy"


# Exporters, disk, event loop


class Refusing(Exporter):
    interval = 0.05

    @hookimpl
    def export_gauges(self, gauges: Sequence[Any], timeout: float) -> None:
        raise ConnectionError("the backend at http://user:hunter2@backend refuses")


async def test_an_exporter_that_fails_degrades_and_its_password_is_not_shown(store: EventStore) -> None:
    store.register_exporter(Refusing(), name="broken")
    found = await until(lambda: when(store, lambda health: "exporter:broken" in health.problems()))
    assert found.ready
    assert "refuses" in found.checks["exporter:broken"].reason
    assert "hunter2" not in msgspec.json.encode(found).decode()
    await store.unregister_exporter("broken", 0.05)


async def test_a_full_disk_below_a_sqlite_file_ends_readiness(
    tmp_path: Path, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'bank.db'}"
    usage = shutil.disk_usage(tmp_path)
    async with open_store(url, telemetry=telemetry, health=QUICK) as store:
        found = await check(store, "disk")
        assert (found.status, found.figures["total_bytes"]) == ("healthy", usage.total)
    wanted = msgspec.structs.replace(QUICK, disk_free=usage.free * 2)
    async with open_store(url, telemetry=telemetry, health=wanted) as store:
        assert (await check(store, "disk")).status == "degraded"
    wanted = msgspec.structs.replace(QUICK, disk_free=usage.total * 100)
    async with open_store(url, telemetry=telemetry, health=wanted) as store:
        health = await store.health()
        assert health.checks["disk"].status == "unhealthy"
        assert not health.ready


async def test_a_sqlite_file_that_was_deleted_ends_readiness_and_the_check_says_what_is_lost(
    tmp_path: Path, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("sqlite:///bank.db", telemetry=telemetry, health=QUICK) as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        assert (await check(store, "disk")).status == "healthy"
        (tmp_path / "bank.db").unlink()
        health = await store.health()
        assert (health.ready, health.checks["disk"].status) == (False, "unhealthy")
        reason = "the file of the store is gone: what is written now is lost when the store is closed"
        assert health.checks["disk"].reason.startswith(reason)


async def test_a_callback_that_blocks_the_event_loop_degrades_for_half_a_minute(store: EventStore) -> None:
    await store.health()
    time.sleep(1.0)  # noqa: ASYNC251  # that is the point
    found = await check(store, "event_loop")
    assert found.status == "degraded"
    assert found.reason.startswith("a callback blocked the event loop for ")
    seconds = found.figures["blocked_seconds"]
    assert isinstance(seconds, float)
    assert seconds >= 0.5


# What it leaves behind: a metric and a span


class Spans(Exporter):
    interval = 3600.0

    def __init__(self) -> None:
        self.seen: list[SpanData] = []

    @hookimpl
    def export_spans(self, spans: Sequence[SpanData], timeout: float) -> None:
        self.seen += spans


async def test_the_metric_shows_exactly_one_status_of_each_check_without_any_probe(telemetry: Telemetry) -> None:
    async with open_store("memory:", telemetry=telemetry, health=QUICK) as store:
        store.add_health_check("off", lambda: False)

        async def statuses() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for data in await asyncio.to_thread(telemetry.collect):
                if data.name == "eventcore.health.status":
                    for point in data.points:
                        labels = dict(point.labels)
                        if point.value:  # type: ignore[union-attr]  # a gauge's points have it
                            found.setdefault(labels["check"], []).append(labels["status"])
            return found if found.keys() >= {"off", "append"} else {}

        assert await until(statuses) == {
            "append": ["healthy"],
            "event_loop": ["healthy"],
            "off": ["unhealthy"],
            "store": ["healthy"],
        }
    left = await asyncio.to_thread(telemetry.collect)
    assert not [data for data in left if data.name == "eventcore.health.status" and data.points]


async def test_a_span_is_recorded_when_a_check_begins_to_fail_and_not_again_while_it_does(telemetry: Telemetry) -> None:
    spans, state = Spans(), SimpleNamespace(ok=True)
    telemetry.register_exporter(spans)
    async with open_store("memory:", telemetry=telemetry, health=QUICK) as store:
        store.add_health_check("switch", lambda: state.ok)
        for ok in (True, False, False, False, True, False):
            state.ok = ok
            await store.health()
        assert await telemetry.flush(5.0)
    found = [dict(span.attributes) for span in spans.seen if span.name == "health check"]
    assert len(found) == 2
    assert found[0] == {
        "eventcore.health.check": "switch",
        "eventcore.health.status": "unhealthy",
        "eventcore.store": "default",
    }
    assert [span.status for span in spans.seen if span.name == "health check"] == ["error", "error"]
