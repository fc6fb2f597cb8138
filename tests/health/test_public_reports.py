"""Reports about health checks of other systems, each as a test: what they had, this one must not have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from eventcore import EventStore, Projection, RecordedEvent, Telemetry, open_store
from eventcore.errors import StoreUnavailable
from eventcore.health import Health, HealthListener
from eventcore.stores import MemoryBackend
from tests.health.conftest import QUICK, get, until
from tests.projections.models import Seen
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposit, account


class Stuck(Projection):
    name = "stuck"

    async def handle(self, event: RecordedEvent) -> None:
        await asyncio.get_running_loop().create_future()


class Slow(Projection):
    name = "slow"
    # Smaller than what is behind, and longer than `stalled_after` all together.
    batch_size = 5

    async def handle(self, event: RecordedEvent) -> None:
        await asyncio.sleep(0.02)


async def deposit(store: EventStore, times: int = 1) -> None:
    for _ in range(times):
        await store.execute(Deposit(account=account("a")))


async def _when(store: EventStore, condition: Callable[[Health], bool]) -> Health | None:
    health = await store.health()
    return health if condition(health) else None


async def test_marten_3462_a_standstill_is_found_also_when_every_request_makes_a_new_check(store: EventStore) -> None:
    """JasperFx/marten#3462: each request made a new object, which knew no earlier position, so the check was always healthy."""
    running = asyncio.create_task(store.run(Stuck()))
    await deposit(store)

    async def degraded() -> bool:
        # A new application for each request.
        return bool((await get(store, "/healthz")).json["status"] == "degraded")

    await until(degraded)
    running.cancel()
    await asyncio.wait([running])


async def test_marten_2945_a_rebuild_that_is_far_behind_and_moves_is_healthy(store: EventStore) -> None:
    """JasperFx/marten#2945: a limit on the lag alone made a probe fail during a rebuild, and the restart began it anew."""
    await deposit(store, 60)
    running = asyncio.create_task(store.run(Slow()))
    lags: list[int] = []
    async with asyncio.timeout(20):
        while not lags or lags[-1]:
            health = await store.health()
            if (check := health.checks.get("projection:slow")) is not None:
                assert health.status == "healthy", check.reason
                lag = check.figures["lag"]
                lags.append(lag if isinstance(lag, int) else 1)
            await asyncio.sleep(0.05)
    assert max(lags) > 20
    running.cancel()
    await asyncio.wait([running])


async def test_marten_4961_a_reader_that_no_longer_sees_the_head_is_not_healthy(telemetry: Telemetry) -> None:
    """JasperFx/marten#4961: the reader of the head died in an outage; the lag behind the frozen head was 0, and healthy."""
    backend, away = SteeredBackend(), False
    ask = backend.head_position

    async def head_position() -> int:
        if away:
            raise StoreUnavailable("away")
        return await ask()

    backend.head_position = head_position  # type: ignore[method-assign]
    async with open_store(backend, telemetry=telemetry, health=QUICK) as store:
        running = asyncio.create_task(store.run(Seen()))
        await deposit(store)
        await store.wait_for("seen", 1)
        assert (await store.health()).checks["projection:seen"].figures["lag"] == 0
        away = True
        found = await until(lambda: _when(store, lambda health: not health.ready))
        assert found.checks["projection:seen"].status == "unhealthy"
        assert found.checks["projection:seen"].figures["lag"] is None
        running.cancel()
        await asyncio.wait([running])


async def test_marten_4991_probes_of_many_processes_do_not_add_up_to_a_load(telemetry: Telemetry) -> None:
    """JasperFx/marten#4991: each probe asked every database."""
    backend, calls = SteeredBackend(), 0

    async def head_position() -> int:
        nonlocal calls
        calls += 1
        return 0

    backend.head_position = head_position  # type: ignore[method-assign]
    async with open_store(backend, telemetry=telemetry) as store:
        for _ in range(50):
            assert (await get(store, "/readyz")).status == 200
        assert calls <= 5


async def test_axon_2138_a_processor_that_has_failed_is_unhealthy_in_the_endpoint(store: EventStore) -> None:
    """AxonIQ/AxonFramework#2138: nothing showed that an event processor had ended by an error."""
    failing = Seen()
    failing.poison.add(1)
    running = asyncio.create_task(store.run(failing))
    await deposit(store)
    await until(lambda: _when(store, lambda health: health.status == "degraded"))
    body = (await get(store, "/healthz")).json
    assert body["checks"]["projection:seen"]["status"] == "unhealthy"
    assert "poison at 1" in body["checks"]["projection:seen"]["reason"]
    await asyncio.wait([running])
    assert running.exception() is not None


async def test_axon_server_409_a_projection_that_nobody_claims_is_seen_by_every_process(telemetry: Telemetry) -> None:
    """AxonIQ/axon-server-se#409: no figure showed that no process had claimed a segment."""
    backend = MemoryBackend()
    async with open_store(backend, telemetry=telemetry, name="worker", health=QUICK) as worker:
        running = asyncio.create_task(worker.run(Seen(), lease=0.2))
        await deposit(worker)
        await worker.wait_for("seen", 1)
        running.cancel()
        await asyncio.wait([running])
    async with open_store(backend.another(), telemetry=telemetry, name="web", health=QUICK) as web:
        found = await until(lambda: _when(web, lambda health: health.status == "degraded"))
        assert found.checks["projection:seen"].reason == "no process runs it"


async def test_axon_server_571_the_status_is_a_metric_too(telemetry: Telemetry) -> None:
    """AxonIQ/axon-server-se#571: the status of the health endpoint could not be alerted on without a prober."""
    async with open_store("memory:", telemetry=telemetry, health=QUICK) as store:

        async def shown() -> bool:
            collected = await asyncio.to_thread(telemetry.collect)
            return any(data.name == "eventcore.health.status" and data.points for data in collected)

        await until(shown)
        assert store.name == "default"


async def test_protean_1287_a_projection_that_lags_does_not_take_the_process_out_of_service(store: EventStore) -> None:
    """proteanhq/protean#1287: a backlog is when a process is least wanted away: it informs, and never decides."""
    running = asyncio.create_task(store.run(Stuck()))
    await deposit(store, 5)
    found = await until(lambda: _when(store, lambda health: health.status == "degraded"))
    assert found.ready
    assert (await get(store, "/readyz")).status == 200
    running.cancel()
    await asyncio.wait([running])


async def test_openviking_1793_liveness_answers_while_the_service_still_opens_its_store() -> None:
    """volcengine/OpenViking#1793: the health endpoint answered nothing until the start was over, and the process was killed."""
    backend, may_open = SteeredBackend(), asyncio.Event()

    async def open_slowly() -> None:
        await may_open.wait()

    backend.open = open_slowly  # type: ignore[method-assign]
    store = open_store(backend, exporters="none", health=QUICK)
    with HealthListener(store, port=0) as listener:
        opening = asyncio.create_task(store.__aenter__())
        async with httpx.AsyncClient(base_url=listener.url) as client:
            await asyncio.sleep(0)
            assert (await client.get("/livez")).status_code == 200
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]["store"]["reason"]) == (503, "the store is being opened")
            may_open.set()
            await opening
            assert (await client.get("/readyz")).status_code == 200
        await store.close()
