"""Commands on streams that the process has never seen: compared with plain SQL, with reading first, and after many streams."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Final, Literal

from benchmarks.by_hand import ByHandContender
from benchmarks.contenders import STREAMS, Streams, Turn
from benchmarks.eventcore_contender import EventcoreContender, timed
from benchmarks.measuring import Effort, Series, in_turns
from benchmarks.observing import OBSERVED, observers, silent
from benchmarks.postgres_server import Database, MeasuredServer, measured_server
from benchmarks.results import Row, Table, Target
from benchmarks.workload import Load, add_item, keep_busy
from eventcore import StreamId, open_store

__all__ = ["unseen_streams"]

_AT_ONCE: Final = 64
_BY_HAND: Final = (1, 16, 64)
_FRESH: Final[dict[Streams, float]] = {1: 1.5, 2: 2.0}
_OF_TEN_EVENTS: Final = 2.8
_Mode = Literal["learn", "off"]
_MODES: Final[tuple[_Mode, ...]] = ("off", "learn")


def unseen_streams(effort: Effort) -> Iterator[Table]:
    """New streams beside pgbench; existing streams, with and without speculation; the rate after many streams."""
    rounds, seconds = (2, 1.0) if effort.quick else (5, 3.0)
    with measured_server() as server:
        yield _beside_pgbench(server, rounds, seconds)
        yield _not_fresh(server, rounds, seconds)
        yield _many(server, quick=effort.quick)


def _beside_pgbench(server: MeasuredServer, rounds: int, seconds: float) -> Table:
    with observers() as watching:
        fresh, of_ten = (EventcoreContender(server, watching, seconds / 3, lines) for lines in (1, 10))
        fresh.turn(1, 1, 0.1)
        example = fresh.example(1)
        hand, hand_of_ten = (ByHandContender(server, True, example, lines) for lines in (1, 10))
        turns: dict[str, list[Turn]] = {}
        contenders: dict[str, Callable[[], float]] = {}

        def add(name: str, run: Callable[[], Turn]) -> None:
            kept = turns[name] = []

            def rate() -> float:
                kept.append(run())
                return kept[-1].rate

            contenders[name] = rate

        for streams in STREAMS:
            for at_once in (1, _AT_ONCE) if streams == 1 else (_AT_ONCE,):
                add(f"{streams} new, eventcore, {at_once}", partial(fresh.turn, streams, at_once, seconds))
            for at_once in _BY_HAND:
                add(f"{streams} new, pgbench, {at_once}", partial(hand.turn, streams, at_once, seconds))
        add(f"of ten events, eventcore, {_AT_ONCE}", partial(of_ten.turn, 1, _AT_ONCE, seconds))
        for at_once in _BY_HAND:
            add(f"of ten events, pgbench, {at_once}", partial(hand_of_ten.turn, 1, at_once, seconds))
        measured = in_turns(contenders, rounds)
    targets: dict[str, Target] = {}
    for name, bound in (("1 new", _FRESH[1]), ("2 new", _FRESH[2]), ("of ten events", _OF_TEN_EVENTS)):
        mine = f"{name}, eventcore, {_AT_ONCE}"
        best = max((f"{name}, pgbench, {at_once}" for at_once in _BY_HAND), key=lambda key: measured[key].median)
        targets[mine] = Target("to pgbench's best", measured[mine].ratio(measured[best]), bound, at_most=False)
    alone, theirs = turns["1 new, eventcore, 1"][-rounds:], turns["1 new, pgbench, 1"][-rounds:]
    latency = median(mine.p50 / their.p50 for mine, their in zip(alone, theirs, strict=True))
    targets["1 new, eventcore, 1"] = Target("p50 to pgbench's", latency, 1.0)
    return Table(
        "PostgreSQL: commands on streams that the process has never seen",
        ("commands/s", "p50", "client CPU", "server CPU"),
        tuple(_row(name, series, turns[name][-rounds:], targets.get(name)) for name, series in measured.items()),
        notes=(
            server.about,
            "new: every command names one new stream, or two; of ten events: a new stream after ten commands. The number is "
            "how many commands are sent at once. pgbench: one transaction, as in the part `peers`.",
            f"Telemetry on. {OBSERVED}",
        ),
    )


def _row(name: str, series: Series, turns: Sequence[Turn], target: Target | None) -> Row:
    p50, client, server = (median(getattr(turn, what) for turn in turns) for what in ("p50", "client_cpu", "server_cpu"))
    return Row(
        name,
        (
            f"{series.median:,.0f} ± {series.spread:.0%}",
            f"{p50 * 1e3:.2f} ms",
            f"{client * 1e6:.0f} µs",
            f"{server * 1e6:.0f} µs",
        ),
        {"commands/s": series.median, "p50": p50, "client CPU": client, "server CPU": server},
        (target,) if target is not None else (),
    )


def _not_fresh(server: MeasuredServer, rounds: int, seconds: float) -> Table:
    """Streams that have an event, and that the process has never seen."""
    database = server.database()
    asyncio.run(_open(database))
    count = int(200_000 * seconds)
    # Goes on from turn to turn: streams of an earlier turn would have one more event to read than those of the turn before.
    numbers = itertools.count(1)
    database.sql(
        "INSERT INTO eventcore.events SELECT n, 'order-' || n, 1, md5(n::text), 'ItemAdded', "
        """convert_to('{"number":1,"item":"lamp","price":4900}', 'UTF8'), convert_to('{}', 'UTF8'), 1700000000000000000 """
        f"FROM generate_series(1, {count}) AS n"
    )
    loads: dict[str, list[Load]] = {mode: [] for mode in _MODES}

    def turn(mode: _Mode) -> float:
        # Each turn opens a store anew, which has seen none of them.
        database.settle()
        with _speculation(mode), silent() as telemetry:
            load, _ = asyncio.run(
                timed(
                    database.url,
                    telemetry,
                    _AT_ONCE,
                    lambda: StreamId(f"order-{1 + next(numbers) * 7919 % count}"),
                    add_item,
                    seconds,
                    seconds / 3,
                )
            )
        loads[mode].append(load)
        return load.rate

    measured = in_turns({mode: partial(turn, mode) for mode in _MODES}, 2 * rounds)
    ratio = measured["learn"].ratio(measured["off"])
    return Table(
        f"PostgreSQL: {_AT_ONCE} commands at once on streams that exist, which the process has never seen",
        ("commands/s", "client CPU"),
        tuple(
            Row(
                mode,
                (f"{measured[mode].median:,.0f} ± {measured[mode].spread:.0%}", f"{median(cpu) * 1e6:.1f} µs"),
                {"commands/s": measured[mode].median, "cpu": median(cpu)},
                (Target("commands/s to off", ratio, 0.97, at_most=False),) if mode == "learn" else (),
            )
            for mode in _MODES
            for cpu in ([load.cpu for load in loads[mode][-2 * rounds :]],)
        ),
        notes=(server.about, "learn: the default, whether to read first is learned. off: EVENTCORE_SPECULATION=off, always."),
    )


async def _open(database: Database) -> None:
    async with open_store(database.url, exporters="none"):
        pass


@contextmanager
def _speculation(mode: _Mode) -> Iterator[None]:
    before = os.environ.get("EVENTCORE_SPECULATION")
    os.environ["EVENTCORE_SPECULATION"] = mode
    try:
        yield
    finally:
        del os.environ["EVENTCORE_SPECULATION"]
        if before is not None:
            os.environ["EVENTCORE_SPECULATION"] = before


def _many(server: MeasuredServer, *, quick: bool) -> Table:
    """One process that goes on and on: its first streams, and those after many others."""
    many, measured = (20_000, 4_000) if quick else (200_000, 40_000)
    database = server.database()
    first, later = asyncio.run(_first_and_later(database, many, measured))
    database.verify(0, many + measured)
    ratio = later.rate / first.rate
    return Table(
        f"PostgreSQL: new streams, {_AT_ONCE} commands at once, after {many:,} streams",
        ("commands/s", "client CPU"),
        tuple(
            Row(
                name,
                (f"{load.rate:,.0f}", f"{load.cpu * 1e6:.1f} µs"),
                {"commands/s": load.rate, "cpu": load.cpu},
                (Target("to the first", ratio, 0.9, at_most=False),) if load is later else (),
            )
            for name, load in ((f"the first {measured:,}", first), (f"after {many:,}", later))
        ),
        notes=(server.about, "Telemetry on, no exporter. One run: the two figures are minutes apart, and share its noise."),
    )


async def _first_and_later(database: Database, many: int, measured: int) -> tuple[Load, Load]:
    numbers = itertools.count()

    def new() -> StreamId:
        return StreamId(f"order-{next(numbers)}")

    with silent() as telemetry:
        async with open_store(database.url, telemetry=telemetry) as store:
            first = await keep_busy(store, _AT_ONCE, new, lambda begun: begun < measured)
            await keep_busy(store, _AT_ONCE, new, lambda begun: begun < many - measured)
            return first, await keep_busy(store, _AT_ONCE, new, lambda begun: begun < measured)
