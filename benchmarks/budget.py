"""Where the time of a command on new streams goes: processor time of the client and of the server, and waiting."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import Any, Final, cast

from benchmarks.by_hand import ByHandContender
from benchmarks.contenders import Streams
from benchmarks.measuring import Effort, announce
from benchmarks.observing import Observers, observers, silent
from benchmarks.postgres_server import Database, MeasuredServer, measured_server
from benchmarks.results import Row, Table
from benchmarks.workload import add_item, keep_busy, move_item, order_streams
from eventcore import open_store
from eventcore.stores import Backend
from eventcore.stores.urls import backend_from_url
from eventcore.telemetry import Telemetry

__all__ = ["budget"]

# Streams of a command, and commands of a stream.
_SHAPES: Final[dict[str, tuple[Streams, int]]] = {"one new stream": (1, 1), "two new streams": (2, 1), "ten events": (1, 10)}
_AT_ONCE: Final = (1, 64)
_COLUMNS: Final = ("commands/s", "p50", "loop", "threads", "server", "calls of", "server away", "idle")


@dataclass(slots=True)
class _Spent:
    """The seconds that one turn took, and what was spent in it."""

    commands: int
    seconds: float
    p50: float
    loop: float
    threads: float
    server: float
    calls: int = 0
    in_calls: float = 0.0


class _Calls:
    """A log whose appends are counted and timed."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.calls = 0
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def append(self, requests: Sequence[Any]) -> Any:
        """See ``EventLog.append``."""
        begun = perf_counter()
        try:
            return await self._real.append(requests)
        finally:
            self.calls += 1
            self.seconds += perf_counter() - begun


class _Backend:
    def __init__(self, real: Any) -> None:
        self._real = real
        self.log = _Calls(real.log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def budget(effort: Effort) -> Iterator[Table]:
    """Microseconds of a command on new streams, with and without exporters, beside pgbench's."""
    rounds, seconds = (2, 1.0) if effort.quick else (5, 3.0)
    with measured_server() as server, observers() as watching:
        for at_once in _AT_ONCE:
            yield _table(server, watching, at_once, rounds, seconds)


def _table(server: MeasuredServer, watching: Observers, at_once: int, rounds: int, seconds: float) -> Table:
    databases = {name: server.database() for name in _SHAPES}
    turns: dict[str, list[_Spent]] = {}
    numbers = itertools.count()
    by_hand: dict[int, ByHandContender] = {}
    for number in range(rounds):
        announce(f"  round {number + 1} of {rounds}, {at_once} at once")
        for name, (streams, lines) in _SHAPES.items():
            for exporters in ("both exporters", "no exporter"):
                with _telemetry(watching, exporters) as telemetry:
                    spent = asyncio.run(
                        _turn(server, databases[name], telemetry, streams, lines, at_once, seconds, next(numbers))
                    )
                turns.setdefault(f"{name}, {exporters}", []).append(spent)
            if lines not in by_hand:
                example = _example(databases[name])
                by_hand[lines] = ByHandContender(server, True, example, lines)
            theirs = by_hand[lines].turn(streams, at_once, seconds)
            turns.setdefault(f"{name}, pgbench", []).append(
                _Spent(1, 1 / theirs.rate, theirs.p50, theirs.client_cpu, 0.0, theirs.server_cpu, 1)
            )
    return Table(
        f"PostgreSQL: what a command on new streams costs, {at_once} at once (µs a command)",
        _COLUMNS,
        tuple(_row(name, spent) for name, spent in turns.items()),
        notes=(
            server.about,
            "loop: processor time of the event loop's thread. threads: of all other threads of the process. server: of all "
            "its processes. calls of: commands in one append. server away: time within an append, for one command. "
            "idle: time of the loop's thread in which it did not run.",
        ),
    )


def _row(name: str, turns: Sequence[_Spent]) -> Row:
    def of(figure: Callable[[_Spent], float]) -> float:
        return median(figure(turn) for turn in turns)

    rate = of(lambda turn: turn.commands / turn.seconds)
    p50 = of(lambda turn: turn.p50)
    loop = of(lambda turn: turn.loop / turn.commands)
    threads = of(lambda turn: turn.threads / turn.commands)
    server = of(lambda turn: turn.server / turn.commands)
    batch = of(lambda turn: turn.commands / max(1, turn.calls))
    away = of(lambda turn: turn.in_calls / turn.commands)
    idle = of(lambda turn: (turn.seconds - turn.loop) / turn.commands)
    return Row(
        name,
        (
            f"{rate:,.0f}",
            f"{p50 * 1e3:.2f} ms",
            *(f"{value * 1e6:.0f}" for value in (loop, threads, server)),
            f"{batch:.0f}",
            *(f"{value * 1e6:.0f}" for value in (away, idle)),
        ),
        {"commands/s": rate, "p50": p50, "loop": loop, "threads": threads, "server": server, "batch": batch, "away": away},
    )


def _example(database: Database) -> tuple[bytes, bytes]:
    row = database.sql("SELECT encode(data, 'hex'), encode(metadata, 'hex') FROM eventcore.events ORDER BY position LIMIT 1")
    data, metadata = (bytes.fromhex(column) for column in row.split("|"))
    return data, metadata


@contextmanager
def _telemetry(watching: Observers, exporters: str) -> Iterator[Telemetry]:
    with watching.attached() if exporters == "both exporters" else silent() as telemetry:
        yield telemetry


async def _turn(
    server: MeasuredServer,
    database: Database,
    telemetry: Telemetry,
    streams: Streams,
    lines: int,
    at_once: int,
    seconds: float,
    number: int,
) -> _Spent:
    backend = _Backend(backend_from_url(database.url))
    stream, command = order_streams(lines, f"order-{number}"), add_item if streams == 1 else move_item
    database.settle()
    async with open_store(cast(Backend, backend), telemetry=telemetry) as store:
        end = perf_counter() + seconds / 3
        await keep_busy(store, at_once, stream, lambda _: perf_counter() < end, command)
        calls, in_calls = backend.log.calls, backend.log.seconds
        loop, process, of_server = thread_time(), process_time(), server.cpu_seconds()
        end = perf_counter() + seconds
        load = await keep_busy(store, at_once, stream, lambda _: perf_counter() < end, command)
        loop, process, of_server = thread_time() - loop, process_time() - process, server.cpu_seconds() - of_server
        calls, in_calls = backend.log.calls - calls, backend.log.seconds - in_calls
    return _Spent(load.commands, load.seconds, load.latency(0.5), loop, process - loop, of_server, calls, in_calls)
