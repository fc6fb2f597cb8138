"""One run: start a collector, open a store with both exporters, replay, and collect what each part has counted."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final, final
from urllib.parse import urlsplit

import msgspec
from rich.console import Console

from eventcore import EventStore, open_store
from examples.flights.collector import Collector, CollectorUnavailable, Received, free_ports
from examples.flights.dashboard import watch
from examples.flights.data import Schedule, find_data
from examples.flights.readings import Readings
from examples.flights.replay import Replay
from examples.flights.scrape import Page, ScrapeFailed, scrape
from examples.flights.summary import Evidence, Summary, summarize
from examples.flights.timetable import timetable
from examples.flights.whereabouts import Picture, Whereabouts, whereabouts

__all__ = ["Options", "run"]

_DELIVERY_LIMIT: Final = 20.0
_LOG_LIMIT: Final = 5.0
_CATCH_UP_LIMIT: Final = 60.0


@final
class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the command line.

    Attributes:
        seconds: how long to replay; ``None`` for the whole year.
        rate: commands per second; ``None`` for as fast as possible.
        store: the URL of the store; ``None`` for an SQLite file that is removed afterwards.
        metrics_port: the port of ``/metrics``; ``None`` for a free one.
        collector: the path of ``rotel-agent``; ``None`` for that of the installed package.
        with_collector: whether to start a collector.
    """

    seconds: float | None = 20.0
    rate: float | None = None
    store: str | None = None
    metrics_port: int | None = None
    collector: Path | None = None
    with_collector: bool = True


async def run(options: Options, console: Console) -> Summary:
    """Replay, and compare what was stored, measured and exported."""
    with _stop_on_signal() as stop, TemporaryDirectory(prefix="eventcore-flights-") as folder:
        schedule = await asyncio.to_thread(lambda: Schedule(find_data()))
        collector = await _start_collector(options, Path(folder))
        try:
            return await _replay(options, console, schedule, collector, Path(folder), stop)
        finally:
            if isinstance(collector, Collector):
                await asyncio.to_thread(collector.stop)


async def _start_collector(options: Options, folder: Path) -> Collector | str:
    if not options.with_collector:
        return "switched off by --no-collector"
    try:
        return await asyncio.to_thread(Collector, folder, options.collector)
    except CollectorUnavailable as error:
        return str(error)


async def _replay(
    options: Options, console: Console, schedule: Schedule, collector: Collector | str, folder: Path, stop: asyncio.Event
) -> Summary:
    url = options.store or f"sqlite:///{folder / 'flights.db'}"
    port = options.metrics_port or free_ports(1)[0]
    metrics = f"http://127.0.0.1:{port}/metrics"
    receiver = collector.endpoint if isinstance(collector, Collector) else f"none, and so no exporter for it: {collector}"
    for name, address in {
        "store": _without_password(url) if options.store else f"{url} (removed at the end)",
        "metrics": metrics,
        "collector": receiver,
    }.items():
        console.print(f"{name:<10} {address}", markup=False, highlight=False, soft_wrap=True)

    async with open_store(url, config=_configuration(port, collector)) as store:
        before = await store.head_position()
        projection = await whereabouts(url)
        projecting = asyncio.create_task(store.run(projection), name="flights-projection")
        replay = Replay(store, rate=options.rate)
        begun = time.monotonic()
        done = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watch(store.telemetry, replay, console, done))
                try:
                    await replay.run(timetable(schedule), stop, options.seconds)
                finally:
                    done.set()
            seconds = time.monotonic() - begun
            projected = await _caught_up(store, projection, projecting)
            evidence = await _gather_evidence(store, replay, before, metrics, collector, seconds, projected)
            return summarize(evidence, interrupted=stop.is_set())
        finally:
            projecting.cancel()
            await asyncio.wait([projecting])


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return (
        url if parts.password is None else parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()
    )


def _configuration(port: int, collector: Collector | str) -> dict[str, Any]:
    """The configuration, as ``eventcore.toml`` could have it. The store finds installed exporters by their names."""
    exporters: dict[str, Any] = {"enabled": ["prometheus"], "prometheus": {"port": port}}
    if isinstance(collector, Collector):
        exporters["enabled"].append("otel")
        exporters["otel"] = {"endpoint": collector.endpoint, "pipeline": {"interval": 2.0}}
    return {"telemetry": {"service_name": "flights"}, "exporters": exporters}


async def _caught_up(store: EventStore, projection: Whereabouts, projecting: asyncio.Task[None]) -> Picture | str:
    """The read model after all events are applied, or the reason why they are not."""
    waiting = asyncio.create_task(store.wait_for(projection, await store.head_position(), _CATCH_UP_LIMIT))
    await asyncio.wait([waiting, projecting], return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await asyncio.wait([waiting])
        return str(projecting.exception() or "it has ended")
    if (error := waiting.exception()) is not None:
        return str(error)
    return await projection.read()


async def _gather_evidence(
    store: EventStore,
    replay: Replay,
    before: int,
    metrics: str,
    collector: Collector | str,
    seconds: float,
    projected: Picture | str,
) -> Evidence:
    events: Counter[str] = Counter()
    picture = Picture()
    async for event in store.read_all():
        picture.apply(event)
        if event.position > before:
            events[event.event_type] += 1
    head = await store.head_position() - before
    # No command runs any more, so the scraped page, the collection and the exporters must agree.
    page = await asyncio.to_thread(_scrape, metrics)
    readings = Readings(await asyncio.to_thread(store.telemetry.collect))
    failed = {failed.name: failed.reason for failed in store.telemetry.failed_exporters}
    report = await store.telemetry.shutdown(_DELIVERY_LIMIT)
    received: Received | str = "none"
    if isinstance(collector, Collector):
        exported = sum(exporter.spans_exported for exporter in report.exporters if exporter.name == "otel")
        received = await asyncio.to_thread(collector.wait_for, exported, _LOG_LIMIT)
    else:
        received = collector
    return Evidence(
        seconds=seconds,
        issued=replay.issued,
        failure=str(replay.failure or ""),
        events=events,
        head=head,
        readings=readings,
        page=page,
        projected=projected,
        picture=picture,
        exporters=report.exporters,
        failed_exporters=failed,
        received=received,
        unsampled=store.telemetry.unsampled_traces,
    )


def _scrape(url: str) -> Page | str:
    try:
        return scrape(url)
    except ScrapeFailed as error:
        return str(error)


@contextmanager
def _stop_on_signal() -> Generator[asyncio.Event, None, None]:
    """An event that is set by Ctrl-C, SIGTERM or SIGHUP, so that the run ends in order. A second Ctrl-C ends it at once."""
    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        restore()
        loop.call_soon_threadsafe(stop.set)

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, interrupted) for number in signals}
    try:
        yield stop
    finally:
        restore()
