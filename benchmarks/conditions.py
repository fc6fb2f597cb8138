"""eventcore on PostgreSQL under difficult conditions: many processes, a fresh database, an open snapshot."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any, Final

import asyncpg

from benchmarks.contenders import share
from benchmarks.measuring import Effort
from benchmarks.observing import OBSERVED, Observers, observers
from benchmarks.postgres_server import Database, MeasuredServer, measured_server
from benchmarks.results import Row, Table
from benchmarks.workload import Load, keep_busy, order_streams
from eventcore import open_store
from eventcore.telemetry import Telemetry

__all__ = ["conditions"]

_PROCESSES: Final = (1, 2, 4, 8)
_AT_ONCE: Final = 64
_WINDOWS: Final = 6
# The name, and whether a snapshot is open.
_MINUTES: Final = {"a fresh database": False, "beside an open snapshot": True, "without, once more": False}


def conditions(effort: Effort) -> tuple[Table, Table]:
    """Processes with one command at a time; a minute with a fresh database, and a minute with an open snapshot."""
    seconds, minute = (2.0, 6.0) if effort.quick else (5.0, 60.0)
    with measured_server() as server, observers() as watching:
        return _processes(server, seconds), _minutes(server, watching, minute)


def _processes(server: MeasuredServer, seconds: float) -> Table:
    database = server.database()
    rows = []
    for number in _PROCESSES:
        before = database.settle()
        accounts = _write(database, number, seconds)
        database.verify(before, sum(account["all"] for account in accounts))
        rate = sum(account["rate"] for account in accounts)
        latencies = [latency for account in accounts for latency in account["latencies"]]
        p50, p99 = share(latencies, 0.5), share(latencies, 0.99)
        rows.append(
            Row(
                f"{number} processes" if number > 1 else "1 process",
                (f"{rate:,.0f}", f"{p50 * 1e3:.2f} ms", f"{p99 * 1e3:.2f} ms"),
                {"commands/s": rate, "p50": p50, "p99": p99},
            )
        )
    return Table(
        "PostgreSQL: processes that execute one command at a time",
        ("commands/s", "p50", "p99"),
        tuple(rows),
        notes=(
            server.about,
            "Appends of different processes run one after the other, so all processes together reach (commands in a batch, "
            "here 1) ÷ (time of a commit). Telemetry on, no exporter.",
        ),
    )


def _write(database: Database, number: int, seconds: float) -> list[dict[str, Any]]:
    before = database.events() if database.sql("SELECT to_regclass('eventcore.events')") else 0
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(number)
    ]
    try:
        for index, writer in enumerate(writers):
            assert writer.stdin is not None
            writer.stdin.write(f"{database.url} {before}-{index} {seconds}\n")
        for writer in writers:
            assert writer.stdout is not None
            if (line := writer.stdout.readline()) != "ready\n":
                raise RuntimeError(f"a writer is not ready: {line}")
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
        return [json.loads(writer.communicate(timeout=60 + seconds)[0]) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def _minutes(server: MeasuredServer, watching: Observers, seconds: float) -> Table:
    database = server.database()
    rows = []
    for number, (name, with_snapshot) in enumerate(_MINUTES.items()):
        # The first row measures a fresh database, so nothing may be done to it before.
        before = database.settle() if number else 0
        with watching.attached() as telemetry:
            loads = asyncio.run(_minute(database, telemetry, seconds / _WINDOWS, f"order-{number}", with_snapshot))
        database.verify(before, sum(load.commands for load in loads))
        rates = [load.rate for load in loads]
        rows.append(Row(name, tuple(f"{rate:,.0f}" for rate in rates), {f"{n}": rate for n, rate in enumerate(rates, 1)}))
    return Table(
        f"PostgreSQL: commands per second in {seconds:.0f} seconds, {_AT_ONCE} at once",
        tuple(f"{seconds * window / _WINDOWS:.0f} s" for window in range(1, _WINDOWS + 1)),
        tuple(rows),
        notes=(
            server.about,
            "Each sender has its own streams. All three rows use one database; the first begins at its creation. Only the "
            "server itself runs ANALYZE.",
            "open snapshot: a repeatable-read transaction that has read the table and stays open, as during a backup.",
            f"Telemetry on. {OBSERVED}",
        ),
    )


async def _minute(database: Database, telemetry: Telemetry, window: float, name: str, with_snapshot: bool) -> list[Load]:
    async with open_store(database.url, telemetry=telemetry) as store, AsyncExitStack() as stack:
        if with_snapshot:
            await stack.enter_async_context(_snapshot(database))
        stream, begun = order_streams(name=name), perf_counter()
        loads = []
        for number in range(1, _WINDOWS + 1):
            end = begun + number * window
            loads.append(await keep_busy(store, _AT_ONCE, stream, lambda _: perf_counter() < end))  # noqa: B023  # called in this iteration only
        return loads


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[None]:
    connection: Any = await asyncpg.connect(database.url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            count = await connection.fetchval("SELECT count(*) FROM eventcore.events")
            yield
            if (now := await connection.fetchval("SELECT count(*) FROM eventcore.events")) != count:
                raise RuntimeError(f"the snapshot saw {count} events, and then {now}")
    finally:
        await connection.close()
