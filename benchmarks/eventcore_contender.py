"""eventcore as an application uses it: one store in one process, with telemetry."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, final

from benchmarks.contenders import Streams, Turn
from benchmarks.observing import Observers
from benchmarks.postgres_server import Database, MeasuredServer
from benchmarks.workload import Load, add_item, keep_busy, move_item, order_streams
from eventcore import Command, StreamId, open_store
from eventcore.telemetry import Telemetry

__all__ = ["EventcoreContender", "timed"]

_COMMANDS: Final[dict[Streams, Callable[[StreamId], Command[Any]]]] = {1: add_item, 2: move_item}


@final
class EventcoreContender:
    """Many commands at once in one process, with both exporters. A stream gets ``lines`` commands."""

    name = "eventcore"
    concurrency = (1, 16, 64, 256)

    def __init__(self, server: MeasuredServer, observers: Observers, warm_up: float, lines: int = 10) -> None:
        self._lines = lines
        self._server = server
        self._observers = observers
        self._warm_up = warm_up
        self._databases: dict[Streams, Database] = {1: server.database(), 2: server.database()}
        self._turns = itertools.count()

    def turn(self, streams: Streams, concurrency: int, seconds: float) -> Turn:
        """See ``Contender``."""
        database = self._databases[streams]
        with self._observers.attached() as telemetry:
            before, server_cpu = database.settle(), self._server.cpu_seconds()
            stream = order_streams(self._lines, f"order-{next(self._turns)}")
            load, warm = asyncio.run(
                timed(database.url, telemetry, concurrency, stream, _COMMANDS[streams], seconds, self._warm_up)
            )
            commands = load.commands + warm.commands
            server_cpu = self._server.cpu_seconds() - server_cpu
        database.verify(before, streams * commands)
        return Turn.of(load.latencies, load.seconds, commands, load.cpu_seconds + warm.cpu_seconds, server_cpu)

    def example(self, streams: Streams) -> tuple[bytes, bytes]:
        """Data and metadata of a stored event."""
        row = self._databases[streams].sql(
            "SELECT encode(data, 'hex'), encode(metadata, 'hex') FROM eventcore.events ORDER BY position LIMIT 1"
        )
        data, metadata = (bytes.fromhex(column) for column in row.split("|"))
        return data, metadata


async def timed(
    url: str,
    telemetry: Telemetry,
    concurrency: int,
    stream: Callable[[], StreamId],
    command: Callable[[StreamId], Command[Any]],
    seconds: float,
    warm_up: float,
) -> tuple[Load, Load]:
    """Open a store and execute commands for a warm-up and for some seconds; returns the loads of both."""
    async with open_store(url, telemetry=telemetry) as store:
        end = perf_counter() + warm_up
        warm = await keep_busy(store, concurrency, stream, lambda _: perf_counter() < end, command)
        end = perf_counter() + seconds
        return await keep_busy(store, concurrency, stream, lambda _: perf_counter() < end, command), warm
