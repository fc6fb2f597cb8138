"""The store after years: long streams, states of streams, large events, and many streams."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final, TypeAlias

from benchmarks.accounts import Credit, CreditByFolding, fill
from benchmarks.counting import counted
from benchmarks.flights_by_folding import by_folding
from benchmarks.measuring import Effort, announce, in_turns
from benchmarks.postgres_server import MeasuredServer, measured_server
from benchmarks.results import Row, Table, Target
from benchmarks.workload import keep_busy
from eventcore import Command, EventStore, StreamId, open_store
from eventcore.telemetry import Telemetry
from examples.flights.data import Schedule, find_data
from examples.flights.replay import Replay
from examples.flights.timetable import Move, timetable

__all__ = ["NewUrl", "demo", "quiet", "stores", "years"]

_LENGTHS: Final = (100, 5_000, 100_000)
_LARGE: Final = 200_000
_LARGE_EVENTS: Final = 3_000
_MIB: Final = 1 << 20
_COMMANDS_AT_ONCE: Final = 20
# Two weeks of flights: folded anew by each command, the streams have 77 events on average.
_COMMANDS: Final = 24_588

NewUrl: TypeAlias = Callable[[], str]
"""Makes an empty store, and returns its URL."""

_KINDS: Final[dict[str, Callable[[StreamId], Command[Any]]]] = {
    "state of the stream": lambda account: Credit(account=account),
    "folds itself": lambda account: CreditByFolding(account=account),
}


def years(effort: Effort) -> Iterator[Table]:
    """Every table on SQLite and on PostgreSQL; where only the cache matters, also in memory."""
    with stores() as new_urls:
        yield _long_streams(new_urls, 50 if effort.quick else 300)
        yield _at_once(new_urls)
        yield _demo(new_urls, effort, 4_000 if effort.quick else _COMMANDS)
        yield _new_streams({"memory": lambda: "memory:", "SQLite": new_urls["SQLite"]})
        yield _memory(new_urls)


def demo(effort: Effort) -> Iterator[Table]:
    """The example ``flights`` alone, also in memory, always in its full length."""
    with stores() as new_urls:
        yield _demo({"memory": lambda: "memory:", **new_urls}, effort, _COMMANDS)


@contextmanager
def stores() -> Iterator[dict[str, NewUrl]]:
    """What makes an empty store, by the name of its kind."""
    with TemporaryDirectory(prefix="eventcore-benchmark-") as directory, measured_server() as server:
        numbers = count()
        yield {
            "SQLite": lambda: f"sqlite:///{Path(directory) / f'{next(numbers)}.db'}",
            "PostgreSQL": partial(_new_database, server),
        }


def _new_database(server: MeasuredServer) -> str:
    return server.database().url


def quiet(url: Any) -> EventStore:
    """A store without exporters."""
    return open_store(url, telemetry=Telemetry(config={}, exporters=[]))


def _account(events: int) -> StreamId:
    return StreamId(f"account-{events}")


# A command on a long stream


def _long_streams(stores: dict[str, NewUrl], commands: int) -> Table:
    rows = []
    for name, new_url in stores.items():
        for kind, command in _KINDS.items():
            announce(f"  {name}, {kind}")
            measured = asyncio.run(_by_length(new_url(), command, commands))
            shortest = measured[_LENGTHS[0]][1]
            for events, (first, warm, read) in measured.items():
                ratio = warm / shortest
                targets = [Target("p50 to that of 100 events", ratio, 3)] if kind == "state of the stream" else []
                if kind == "state of the stream" and events != _LENGTHS[0]:
                    # As many events as may come before the next snapshot is stored.
                    targets.append(Target("events read by the first command", read, 1000))
                cells = (f"{first * 1e3:.2f} ms", f"{read:,}", f"{warm * 1e3:.2f} ms", f"{ratio:.2f}")
                values = {"first": first, "read": float(read), "p50": warm, "ratio": ratio}
                rows.append(Row(f"{name}, {events:,} events, {kind}", cells, values, tuple(targets)))
    return Table(
        "A command on a stream of 100, 5,000 and 100,000 events",
        ("first after opening", "events read", "p50 warm", "to 100 events"),
        tuple(rows),
        notes=(
            "One command at a time, each of which reads and writes one stream. The state has a constant size, and a "
            "snapshot is stored every 1,000 events.",
            "First after opening: the store was closed and opened again. p50 warm: of the commands that follow.",
        ),
    )


async def _by_length(
    url: str, command: Callable[[StreamId], Command[Any]], commands: int
) -> dict[int, tuple[float, float, int]]:
    """For each length: seconds of the first command after opening, the median of the next ones, and the events first read."""
    async with quiet(url) as store:
        for events in _LENGTHS:
            await fill(store, _account(events), events)
            await store.execute(command(_account(events)))
    measured = {}
    backend, reads = counted(url)
    async with quiet(backend) as store:
        # The first command of a process also compiles the codec of its types: not what is measured here.
        await store.execute(command(_account(0)))
        for events in _LENGTHS:
            reads.rows = 0
            first, read = await _seconds(store, command(_account(events))), reads.rows
            # Commands that read the whole stream take long; few of them suffice.
            number = commands if first < 0.05 or command is _KINDS["state of the stream"] else 5
            warm = [await _seconds(store, command(_account(events))) for _ in range(number)]
            measured[events] = (first, median(warm), read)
    return measured


async def _seconds(store: EventStore, command: Command[Any]) -> float:
    begun = perf_counter()
    await store.execute(command)
    return perf_counter() - begun


# Many commands at once on a long stream


def _at_once(stores: dict[str, NewUrl]) -> Table:
    rows = []
    for name, new_url in stores.items():
        for kind, command in _KINDS.items():
            announce(f"  {name}, {_COMMANDS_AT_ONCE} commands at once, {kind}")
            seconds, read = asyncio.run(_load_once(new_url(), command))
            loads = read / _LENGTHS[-1]
            cells = (f"{read:,}", f"{loads:.2f}", f"{seconds * 1e3:,.0f} ms")
            # The events that other commands of the same batch write meanwhile may be read, too.
            target = Target("loads of the stream", loads, 1.001)
            rows.append(Row(f"{name}, {kind}", cells, {"rows": float(read), "loads": loads, "seconds": seconds}, (target,)))
    return Table(
        f"{_COMMANDS_AT_ONCE} commands at once on one stream of {_LENGTHS[-1]:,} events, of which nothing is known",
        ("events read", "loads", "until all ended"),
        tuple(rows),
        notes=("No snapshot is stored before.",),
    )


async def _load_once(url: str, command: Callable[[StreamId], Command[Any]]) -> tuple[float, int]:
    account = _account(_LENGTHS[-1])
    async with quiet(url) as store:
        await fill(store, account, _LENGTHS[-1])
    backend, reads = counted(url)
    async with quiet(backend) as store:
        begun = perf_counter()
        await asyncio.gather(*(store.execute(command(account)) for _ in range(_COMMANDS_AT_ONCE)))
        return perf_counter() - begun, reads.rows


# The example


def _demo(stores: dict[str, NewUrl], effort: Effort, commands: int) -> Table:
    moves = asyncio.run(_moves(commands))
    folding = [Move(move.at, move.rank, move.lane, by_folding(move.command)) for move in moves]
    rows = []
    for name, new_url in stores.items():
        turns = {
            "folds itself": lambda new_url=new_url: asyncio.run(_replayed(new_url(), folding)),
            "states of streams": lambda new_url=new_url: asyncio.run(_replayed(new_url(), moves)),
        }
        measured = in_turns(turns, 3 if effort.quick else 5)
        old, new = measured["folds itself"], measured["states of streams"]
        ratio = new.ratio(old)
        cells = tuple(f"{one.median:,.0f} ± {one.spread:.0%}" for one in (old, new))
        values = {"folds itself": old.median, "states of streams": new.median, "ratio": ratio}
        rows.append(Row(name, (*cells, f"{ratio:.2f}"), values, (Target("ratio", ratio, 1.2, at_most=False),)))
    return Table(
        "The example flights: commands per second",
        ("folds itself", "states of streams", "ratio"),
        tuple(rows),
        notes=(f"The first {len(moves):,} commands of the year, 128 at once, in turns, each turn on an empty store.",),
    )


async def _moves(number: int) -> list[Move]:
    moves: list[Move] = []
    async for move in timetable(Schedule(find_data())):
        moves.append(move)
        if len(moves) == number:
            break
    return moves


async def _replayed(url: str, moves: list[Move]) -> float:
    async def one_by_one() -> AsyncIterator[Move]:
        for move in moves:
            yield move

    async with quiet(url) as store:
        replay = Replay(store)
        begun = perf_counter()
        await replay.run(one_by_one(), asyncio.Event(), None)
        seconds = perf_counter() - begun
    if replay.failure is not None:
        raise replay.failure
    return len(moves) / seconds


# Large events


def _memory(stores: dict[str, NewUrl]) -> Table:
    rows = []
    for at_once in (1, 8):
        for name, new_url in stores.items():
            announce(f"  {name}, large events, {at_once} at once")
            arguments = [new_url(), *map(str, (_LARGE_EVENTS, _LARGE, at_once))]
            command = [sys.executable, "-m", "benchmarks.large_events", *arguments]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout)
            if found["events"] != _LARGE_EVENTS:
                raise RuntimeError(f"{_LARGE_EVENTS} events were written, but {found['events']} read")
            before, written, read = (found[key] / _MIB for key in ("before", "written", "read"))
            cells = tuple(f"{mib:,.0f} MiB" for mib in (before, written, read))
            values = {"before": before, "written": written, "read": read}
            rows.append(Row(f"{name}, {at_once} at once", cells, values, (Target("MiB", read, 300),)))
    return Table(
        f"Peak memory while {_LARGE_EVENTS:,} events of {_LARGE // 1000} kB pass",
        ("before", "through commands", "and read_all"),
        tuple(rows),
        notes=("A process of its own. The commands write into 100 streams in turn, and fold their events; then all are read.",),
    )


# Many streams


def _new_streams(stores: dict[str, NewUrl]) -> Table:
    rows = []
    for name, new_url in stores.items():
        announce(f"  {name}, 240,000 streams")
        first, later = asyncio.run(_rates(new_url()))
        ratio = later / first
        cells = (f"{first:,.0f}", f"{later:,.0f}", f"{ratio:.2f}")
        rows.append(
            Row(
                name,
                cells,
                {"first": first, "later": later, "ratio": ratio},
                (Target("ratio", ratio, 0.8, at_most=False),),
            )
        )
    return Table(
        "Commands per second on new streams",
        ("first 40,000", "after 200,000", "ratio"),
        tuple(rows),
        notes=("256 commands at once, one event for each stream. The cache has to evict a stream for each new one.",),
    )


async def _rates(url: str) -> tuple[float, float]:
    numbers = count()

    def stream() -> StreamId:
        return StreamId(f"order-{next(numbers)}")

    async with quiet(url) as store:
        first = await keep_busy(store, 256, stream, lambda begun: begun < 40_000)
        await keep_busy(store, 256, stream, lambda begun: begun < 160_000)
        later = await keep_busy(store, 256, stream, lambda begun: begun < 40_000)
        return first.rate, later.rate
