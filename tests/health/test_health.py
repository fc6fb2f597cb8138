"""``store.health()``: its checks, its limits and what it costs."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from eventcore import EventStore, OnError, Projection, RecordedEvent, Telemetry, open_store
from eventcore.errors import StoreUnavailable
from eventcore.exporting import Exporter, SpanData, hookimpl
from eventcore.health import CheckResult, Health, HealthSettings
from eventcore.stores import MemoryBackend
from tests.health.conftest import QUICK, until
from tests.projections.models import Seen
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, account

Run = Callable[[Projection], "asyncio.Task[None]"]


@pytest.fixture
async def run(store: EventStore) -> AsyncIterator[Run]:
    """Run a projection until the end of the test."""
    tasks: list[asyncio.Task[None]] = []

    def run(projection: Projection, on: EventStore = store) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(on.run(projection)))
        return tasks[-1]

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def deposit(store: EventStore, times: int = 1) -> None:
    for _ in range(times):
        await store.execute(Deposit(account=account("a")))


async def check(store: EventStore, name: str) -> CheckResult:
    return (await store.health()).checks[name]


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
        found = await until(lambda: _when(hanging, lambda health: not health.ready))
        assert found.checks["store"].reason.startswith("no answer within")
        begun = time.monotonic()
        for _ in range(3):
            assert not (await hanging.health(timeout=0.1)).ready
        assert time.monotonic() - begun < 2
        assert calls == 1


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


async def test_an_append_that_failed_degrades_until_one_succeeds_and_does_not_keep_commands_away(telemetry: Telemetry) -> None:
    backend = SteeredBackend()

    def fail(_: object) -> None:
        raise StoreUnavailable("the disk is full")

    async with open_store(backend, telemetry=telemetry, health=QUICK) as store:
        backend.before_append = fail
        with pytest.raises(StoreUnavailable):
            await deposit(store)
        health = await store.health()
        # A process that is not ready gets no command, and so could never show that appends succeed again.
        assert (health.status, health.ready) == ("degraded", True)
        assert health.checks["append"].reason == "the last append failed 0 s ago: the disk is full"
        backend.before_append = lambda requests: None
        await deposit(store)
        assert (await store.health()).status == "healthy"


# Projections


async def test_a_projection_that_runs_is_healthy_with_its_figures(store: EventStore, run: Run) -> None:
    await deposit(store, 3)
    run(Seen())
    await store.wait_for("seen", 3)
    found = await check(store, "projection:seen")
    assert (found.status, found.figures["position"], found.figures["lag"]) == ("healthy", 3, 0)
    assert found.figures["heartbeat_age"] is not None


async def test_a_projection_that_has_stopped_at_an_event_is_unhealthy_and_says_why(store: EventStore, run: Run) -> None:
    projection = Seen()
    projection.poison.add(1)
    await deposit(store)
    run(projection)

    async def failed() -> CheckResult | None:
        found = (await store.health()).checks.get("projection:seen")
        return found if found is not None and found.status == "unhealthy" else None

    found = await until(failed)
    assert "ProjectionFailed" in found.reason
    assert "poison at 1" in found.reason
    health = await store.health()
    assert (health.status, health.ready) == ("degraded", True)


async def test_a_projection_ends_readiness_when_it_is_configured_as_essential(telemetry: Telemetry) -> None:
    settings = msgspec.structs.replace(QUICK, essential=("projection:*",), projections=("balances",))
    async with open_store("memory:", telemetry=telemetry, health=settings) as store:
        health = await until(lambda: _when(store, lambda health: "projection:balances" in health.checks))
        assert health.checks["projection:balances"].reason == "it has never run on this store, and no process runs it"
        assert not health.ready


async def test_an_essential_name_that_no_check_has_is_reported_and_ends_readiness(telemetry: Telemetry) -> None:
    essential = ("projection:typo", "nonsense:*", "projection:*", "exporter:*", "dead_letters", "queue")
    settings = msgspec.structs.replace(QUICK, essential=essential)
    async with open_store("memory:", telemetry=telemetry, health=settings) as store:
        store.add_health_check("queues", lambda: True)
        health = await store.health()
        wrong = {name: (check.status, check.reason) for name, check in health.checks.items() if check.status != "healthy"}
        missing = "'essential' names it, but there is no such check"
        assert wrong == {
            "projection:typo": ("unhealthy", missing),
            "nonsense:*": ("degraded", missing),
            "queue": ("unhealthy", f"{missing}; did you mean 'queues'?"),
        }
        assert not health.ready
        store.add_health_check("queue", lambda: True)
        assert (await store.health()).checks["queue"].status == "healthy"


async def test_essential_names_are_several() -> None:
    with pytest.raises(ValueError, match="essential='exporter:\\*'; expected several names"):
        HealthSettings(essential="exporter:*")  # type: ignore[arg-type]  # what is tested


async def test_a_projection_that_nobody_runs_any_more_is_unhealthy_in_every_process(telemetry: Telemetry) -> None:
    backend = MemoryBackend()
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(open_store(each, telemetry=telemetry, name=name, health=QUICK))
            for name, each in (("web", backend), ("worker", backend.another()))
        ]
        web, worker = workers
        running = asyncio.create_task(worker.run(Seen(), lease=0.3))
        await deposit(web)
        await web.wait_for("seen", 1)
        assert (await check(web, "projection:seen")).status == "healthy"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        found = await until(lambda: _when(web, lambda health: health.checks["projection:seen"].status == "unhealthy"))
        assert found.checks["projection:seen"].reason.startswith("no process has run it for")
        assert found.checks["projection:seen"].figures["lag"] == 0


async def test_a_projection_with_a_newer_version_need_not_run_any_more(store: EventStore, run: Run) -> None:
    class SeenAnew(Seen):
        version = 2

    await deposit(store)
    task = run(Seen())
    await store.wait_for("seen", 1)
    task.cancel()
    await asyncio.wait([task])
    other = run(SeenAnew())
    await store.wait_for("seen@2", 1)
    assert not other.done()
    names = [name for name in (await store.health()).checks if name.startswith("projection:")]
    # The runner of this process has stopped on purpose, so its last state is shown until the process ends.
    assert "projection:seen@2" in names
    async with open_store("memory:", telemetry=store.telemetry, name="other", health=QUICK) as elsewhere:
        assert not [name for name in (await elsewhere.health()).checks if name.startswith("projection:")]


class Stuck(Projection):
    name = "stuck"

    def __init__(self) -> None:
        self.free = asyncio.Event()

    async def handle(self, event: RecordedEvent) -> None:
        await self.free.wait()


async def test_a_handler_that_hangs_is_unhealthy_by_its_heartbeat(store: EventStore, run: Run) -> None:
    projection = Stuck()
    run(projection)
    await deposit(store)
    found = await until(lambda: _when(store, lambda health: health.status == "degraded"))
    assert "no sign of life" in found.checks["projection:stuck"].reason
    projection.free.set()
    await until(lambda: _when(store, lambda health: health.status == "healthy"))


class Retrying(Seen):
    name = "retrying"
    on_error = OnError(retries=1000, base_delay=0.01, max_delay=0.05)


async def test_a_handler_that_is_retried_without_end_shows_life_and_makes_no_progress(store: EventStore, run: Run) -> None:
    projection = Retrying()
    projection.poison.add(1)
    run(projection)
    await deposit(store, 2)
    found = await until(lambda: _when(store, lambda health: health.checks["projection:retrying"].status == "unhealthy"))
    reason = found.checks["projection:retrying"].reason
    assert "no progress" in reason
    assert "2 events waiting: ValueError: poison at 1" in reason


async def test_what_the_store_does_not_say_of_a_projection_is_unhealthy_and_not_zero(store: EventStore, run: Run) -> None:
    run(Seen())
    await deposit(store)
    await store.wait_for("seen", 1)
    await store.health()

    async def unavailable() -> Any:
        raise StoreUnavailable("away")

    store._monitor._projections._ledger.projections = unavailable  # type: ignore[method-assign]
    found = await check(store, "projection:seen")
    assert (found.status, found.figures["lag"]) == ("unhealthy", None)
    assert found.reason == "unknown, since the store does not answer"


async def test_dead_letters_that_wait_degrade(store: EventStore, run: Run) -> None:
    class Poisoned(Seen):
        name = "poisoned"
        on_error = OnError(retries=0, then="dead_letter")

    projection = Poisoned()
    projection.poison |= {1, 3}
    run(projection)
    await deposit(store, 3)
    await store.wait_for("poisoned", 3)
    found = await check(store, "dead_letters")
    assert (found.status, found.figures) == ("degraded", {"waiting": 2})
    assert "2 of poisoned" in found.reason
    assert "see 'eventcore projections dead-letters poisoned STORE_URL'" in found.reason
    assert (await store.health()).ready


# Exporters, disk, event loop


class Refusing(Exporter):
    interval = 0.05

    @hookimpl
    def export_gauges(self, gauges: Sequence[Any], timeout: float) -> None:
        raise ConnectionError("the backend at http://user:hunter2@backend refuses")


async def test_an_exporter_that_fails_degrades_and_its_password_is_not_shown(store: EventStore) -> None:
    store.register_exporter(Refusing(), name="broken")
    found = await until(lambda: _when(store, lambda health: "exporter:broken" in health.problems()))
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


async def test_a_callback_that_blocks_the_event_loop_degrades_for_half_a_minute(store: EventStore) -> None:
    await store.health()
    time.sleep(0.8)  # noqa: ASYNC251  # that is the point
    found = await check(store, "event_loop")
    assert found.status == "degraded"
    assert found.reason.startswith("a callback blocked the event loop for 0.")
    seconds = found.figures["blocked_seconds"]
    assert isinstance(seconds, float)
    assert seconds >= 0.5


# Checks of the application


async def test_a_check_of_the_application_may_return_or_raise_anything(store: EventStore) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def slow() -> None:
        await asyncio.sleep(60)

    def raise_it() -> None:
        raise KeyError(Odd())

    async def fine() -> CheckResult:
        return CheckResult(figures={"depth": float("nan"), "password": "abc", "queue": Odd(), "big": 10**400})  # type: ignore[dict-item]

    store.add_health_check("fine", fine)
    store.add_health_check("false", lambda: False)
    store.add_health_check("slow", slow, timeout=0.05)
    store.add_health_check("raises", raise_it, essential=True)
    store.add_health_check("purple", lambda: CheckResult(status="purple"))  # type: ignore[arg-type]
    store.add_health_check("odd", lambda: "yes")  # type: ignore[arg-type, return-value]
    health = await store.health()
    own = ("fine", "false", "slow", "raises", "purple", "odd")
    assert {name: health.checks[name].status for name in own} == {
        "fine": "healthy",
        "false": "unhealthy",
        "slow": "unhealthy",
        "raises": "unhealthy",
        "purple": "unhealthy",
        "odd": "unhealthy",
    }
    assert not health.ready
    assert health.checks["slow"].reason.startswith("no answer within 0.")
    assert dict(health.checks["fine"].figures) == {
        "depth": None,
        "password": "***",
        "queue": "<Odd whose text raises RuntimeError>",
        "big": None,
    }


async def test_a_check_that_blocks_its_thread_runs_once_and_does_not_block_the_loop(store: EventStore) -> None:
    runs: list[float] = []

    def block() -> None:
        runs.append(time.monotonic())
        time.sleep(1.0)

    store.add_health_check("blocking", block, timeout=0.05)
    begun = time.monotonic()
    found = [await check(store, "blocking") for _ in range(5)]
    assert time.monotonic() - begun < 0.8
    assert {each.status for each in found} == {"unhealthy"}
    assert found[-1].reason == "a run that began 0 s ago has not ended"
    assert len(runs) == 1


async def test_a_check_that_wants_to_end_the_process_has_failed_and_nothing_ends(store: EventStore) -> None:
    class Odd(BaseException):
        __qualname__ = "Odd"

    def leave() -> None:
        raise SystemExit(3)

    def stop() -> None:
        raise StopIteration

    async def leave_later() -> None:
        raise SystemExit(3)

    async def odd() -> None:
        raise Odd

    for name, each in (("leave", leave), ("stop", stop), ("leave_later", leave_later), ("odd", odd)):
        store.add_health_check(name, each)
    health = await store.health()
    assert {name: found.reason for name, found in health.problems().items()} == {
        "leave": "SystemExit: 3",
        "stop": "StopIteration",
        "leave_later": "SystemExit: 3",
        "odd": "Odd",
    }


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("store", "there is a health check called 'store' already"),
        ("pool", "there is a health check called 'pool' already"),
        ("exporter:mine", "belong to the store"),
        ("", "expected 1 to 100 printable characters"),
        ("a\nb", "expected 1 to 100 printable characters"),
    ],
)
async def test_a_name_that_a_check_cannot_have_is_refused(store: EventStore, name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        store.add_health_check(name, lambda: True)


async def test_no_password_of_an_error_reaches_the_answer(store: EventStore) -> None:
    def fail() -> None:
        raise ConnectionError('amqp://shop:hunter2@mq/ said {"api_key": "s3cr3t", "Authorization": "Bearer abcdef"}')

    store.add_health_check("queue", fail)
    text = msgspec.json.encode(await store.health()).decode()
    assert "amqp://shop:***@mq/" in text
    assert not [secret for secret in ("hunter2", "s3cr3t", "abcdef") if secret in text]


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


async def _when(store: EventStore, condition: Callable[[Health], bool]) -> Health | None:
    health = await store.health()
    return health if condition(health) else None


@pytest.mark.parametrize("reason", ["token-" * 333, "token " * 333, "a-" * 1000, "://a:" * 400])
async def test_a_long_reason_does_not_stop_the_event_loop(store: EventStore, reason: str) -> None:
    store.add_health_check("queue", lambda: CheckResult(status="unhealthy", reason=reason))
    begun = time.process_time()
    found = await check(store, "queue")
    assert time.process_time() - begun < 1
    assert len(found.reason) == 500
