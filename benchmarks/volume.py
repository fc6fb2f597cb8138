"""A log of millions of events against an empty one, and appends of 100 events against bulk loads of the same rows."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeAlias, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has no annotations

from benchmarks.bulk import copy, fill_postgres, fill_sqlite, insert, records
from benchmarks.measuring import Effort, Series, announce, in_turns
from benchmarks.results import Row, Table, Target
from benchmarks.workload import AddItems, add_item, keep_busy, order_streams
from benchmarks.years import NewUrl, quiet, stores
from eventcore import EventStore, RecordedEvent, StreamId
from eventcore.events.codec import Codec

__all__ = ["volume"]

_CONCURRENCY: Final = 64
# Events that one turn follows.
_FOLLOWED: Final = 20_000
# Events of one append, and of one bulk load.
_TOGETHER: Final = 100

Fill: TypeAlias = Callable[[str, int, tuple[bytes, bytes]], float]


def volume(effort: Effort) -> Iterator[Table]:
    """Commands and following on a full and on an empty log, then appends and bulk loads."""
    events = effort.events or (500_000 if effort.quick else 20_000_000)
    rounds, seconds = (3, 1.0) if effort.quick else (7, 3.0)
    with stores() as urls:
        yield _full_and_empty(urls, events, rounds, seconds)
        yield _bulk(urls, rounds, seconds)


# A full log


def _full_and_empty(urls: dict[str, NewUrl], events: int, rounds: int, seconds: float) -> Table:
    rows: list[Row] = []
    for name, new_url in urls.items():
        full, empty = new_url(), new_url()
        example = asyncio.run(_prepare(full, empty))
        announce(f"  {name}: loading {events:,} events")
        took = _fill(name)(full.removeprefix("sqlite:///"), events, example)
        announce(f"  {name}: {events:,} events loaded in {took:,.0f} s, {events / took:,.0f}/s")
        rows += _compared(name, full, empty, rounds, seconds)
    return Table(
        f"A log of {events:,} events against an empty one",
        ("empty", "full", "full / empty"),
        tuple(rows),
        notes=(
            f"In turns. Commands: {_CONCURRENCY} at once, of which every tenth begins a stream, on a store that stays open.",
            f"Following: the newest {_FOLLOWED:,} events, page by page. Commands wrote them on both logs, in the same order.",
        ),
    )


def _fill(name: str) -> Fill:
    return fill_sqlite if name == "SQLite" else fill_postgres


async def _prepare(full: str, empty: str) -> tuple[bytes, bytes]:
    """Create both stores. Returns data and metadata of an event as the store writes them."""
    async with quiet(full):
        pass
    async with quiet(empty) as store:
        result = await store.execute(add_item(StreamId("order-0")))
    return _json(result.events[0])


def _json(event: RecordedEvent) -> tuple[bytes, bytes]:
    codec = Codec()
    return codec.encode(event.data)[0], codec.encode_metadata(event.metadata)


def _compared(name: str, full: str, empty: str, rounds: int, seconds: float) -> Iterator[Row]:
    with asyncio.Runner() as runner:
        logs = {"empty": quiet(empty), "full": quiet(full)}
        for store in logs.values():
            runner.run(store.__aenter__())
        try:
            names = count()
            streams = {log: order_streams(name=f"order-{next(names)}") for log in logs}

            def commands(log: str) -> float:
                end = perf_counter() + seconds
                busy = keep_busy(logs[log], _CONCURRENCY, streams[log], lambda _: perf_counter() < end)
                return runner.run(busy).rate

            def following(log: str) -> float:
                return runner.run(_followed(logs[log]))

            announce(f"  {name}, commands")
            measured = in_turns({log: partial(commands, log) for log in logs}, rounds)
            yield _row(f"{name}, commands", measured, 0.9)
            for store in logs.values():
                runner.run(_write(store))
            announce(f"  {name}, following")
            measured = in_turns({log: partial(following, log) for log in logs}, rounds)
            yield _row(f"{name}, following", measured, 0.9)
        finally:
            for store in logs.values():
                runner.run(store.close())


def _row(name: str, measured: dict[str, Series], bound: float) -> Row:
    theirs, mine = measured.values()
    ratio = mine.ratio(theirs)
    cells = tuple(f"{one.median:,.0f} ± {one.spread:.0%}" for one in (theirs, mine))
    values = {**{one: series.median for one, series in measured.items()}, "ratio": ratio}
    return Row(name, (*cells, f"{ratio:.2f}"), values, (Target("ratio", ratio, bound, at_most=False),))


async def _write(store: EventStore) -> None:
    """Write at least as many events as a turn follows."""
    for number in range(_FOLLOWED // 1000):
        await store.execute(AddItems(order=StreamId(f"filling-{number}"), item="lamp", price=4_900, lines=1000))


async def _followed(store: EventStore) -> float:
    head = (await store.execute(add_item(StreamId("order-head")))).position
    begun, read = perf_counter(), 0
    async for _ in store.read_all(after=head - _FOLLOWED):
        read += 1
    if read != _FOLLOWED:
        raise RuntimeError(f"the last {_FOLLOWED} events were asked for, but {read} read")
    return read / (perf_counter() - begun)


# Bulk loads


def _bulk(urls: dict[str, NewUrl], rounds: int, seconds: float) -> Table:
    rows: list[Row] = []
    for name, new_url in urls.items():
        announce(f"  {name}: appends of {_TOGETHER} events, and bulk loads")
        rows.append(_appended(name, new_url(), new_url(), rounds, seconds))
    return Table(
        f"Appends of {_TOGETHER} events against bulk loads of the same rows: events per second",
        ("bulk", "commands", "commands / bulk"),
        tuple(rows),
        notes=(
            f"In turns. Both write {_TOGETHER} events of a new stream in each transaction, one after the other, with all "
            "indexes of the store. Bulk: COPY on PostgreSQL, executemany on SQLite.",
        ),
    )


def _appended(name: str, mine: str, theirs: str, rounds: int, seconds: float) -> Row:
    with asyncio.Runner() as runner:
        example = runner.run(_prepare(theirs, mine))
        store = quiet(mine)
        runner.run(store.__aenter__())
        try:
            numbers, load = count(), _Bulk(theirs, runner, example)
            command = lambda stream: AddItems(order=stream, item="lamp", price=4_900, lines=_TOGETHER)  # noqa: E731

            def commands() -> float:
                end = perf_counter() + seconds
                new = lambda: StreamId(f"order-many-{next(numbers)}")  # noqa: E731
                return runner.run(keep_busy(store, 1, new, lambda _: perf_counter() < end, command)).rate * _TOGETHER

            with closing(load):
                measured = in_turns({"bulk": lambda: load.rate(seconds), "commands": commands}, rounds)
            return _row(name, measured, 0.5)
        finally:
            runner.run(store.close())


class _Bulk:
    """Loads rows past the store."""

    def __init__(self, url: str, runner: asyncio.Runner, example: tuple[bytes, bytes]) -> None:
        self._runner = runner
        self._example = example
        self._next = 1
        self._file: sqlite3.Connection | None = None
        self._server: Any = None
        if url.startswith("sqlite:"):
            self._file = sqlite3.connect(Path(url.removeprefix("sqlite:///")), isolation_level=None)
            self._file.execute("PRAGMA synchronous = FULL")
        else:
            self._server = runner.run(cast(Any, asyncpg.connect(url)))

    def rate(self, seconds: float) -> float:
        """Rows per second."""
        loaded, begun = 0, perf_counter()
        while perf_counter() - begun < seconds:
            rows = list(records(self._next, _TOGETHER, self._example, lines=_TOGETHER))
            if self._file is not None:
                insert(self._file, rows)
            else:
                self._runner.run(copy(self._server, "events", "eventcore", rows))
            self._next += _TOGETHER
            loaded += _TOGETHER
        return loaded / (perf_counter() - begun)

    def close(self) -> None:
        """Close the connection."""
        if self._file is not None:
            self._file.close()
        else:
            self._runner.run(self._server.close())
