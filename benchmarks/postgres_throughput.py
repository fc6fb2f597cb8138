"""eventcore on PostgreSQL: the cost of telemetry, appends of a hundred events, and the throughput of one hot stream."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any, Final, Literal

from benchmarks.eventcore_contender import timed
from benchmarks.measuring import Effort, Series, in_turns
from benchmarks.observing import OBSERVED, Observers, observers, silent
from benchmarks.postgres_server import Database, MeasuredServer, measured_server
from benchmarks.results import Row, Table, Target
from benchmarks.workload import AddItems, Load, add_item, add_line, keep_busy, order_streams
from eventcore import Command, StreamId, open_store
from eventcore.telemetry import Telemetry

__all__ = ["postgres_throughput"]

_OFF: Final = "off"
_Rate = Literal["off", "none", "all"] | int
# The name, traces per second to both exporters (or the kind of telemetry), and whether the target applies.
_CONFIGURATIONS: Final[tuple[tuple[str, _Rate, bool], ...]] = (
    (_OFF, "off", False),
    ("on, no exporter", "none", False),
    ("on, both exporters", 100, True),
    ("on, both exporters, all traces", "all", False),
)
_HOT_EVENTS: Final = 1000
_HOT_AT_ONCE: Final = 64
_LINES: Final = 100


def postgres_throughput(effort: Effort) -> tuple[Table, ...]:
    """Telemetry off and on; appends of a hundred events; all commands on one stream."""
    rounds, seconds = (2, 1.0) if effort.quick else (7, 3.0)
    with measured_server() as server, observers() as watching:
        return (
            _with_and_without(server, watching, rounds, seconds),
            _appends(server, watching, rounds, seconds),
            _hot_stream(server, watching, rounds),
        )


def _with_and_without(server: MeasuredServer, watching: Observers, rounds: int, seconds: float) -> Table:
    rows: list[Row] = []
    database, turn_numbers = server.database(), itertools.count()
    for concurrency in (64, 256):
        loads: dict[str, list[Load]] = {name: [] for name, *_ in _CONFIGURATIONS}
        accounts: dict[str, str] = {}

        def turn(name: str, rate: _Rate, concurrency: int, loads: dict[str, list[Load]], accounts: dict[str, str]) -> float:
            with _telemetry(watching, rate) as telemetry:
                before = database.settle()
                stream = order_streams(name=f"order-{next(turn_numbers)}")
                load, warm = asyncio.run(timed(database.url, telemetry, concurrency, stream, add_item, seconds, seconds / 3))
            database.verify(before, load.commands + warm.commands)
            loads[name].append(load)
            accounts[name] = "{:,} / {:,}".format(*watching.account) if rate in (100, "all") else "–"
            return load.rate

        turns = {name: partial(turn, name, rate, concurrency, loads, accounts) for name, rate, _ in _CONFIGURATIONS}
        measured = in_turns(turns, rounds)
        cpu = {name: Series(name, [load.cpu for load in of_name[-rounds:]]) for name, of_name in loads.items()}
        for name, _, has_target in _CONFIGURATIONS:
            ratio, cpu_ratio = measured[name].ratio(measured[_OFF]), cpu[name].ratio(cpu[_OFF])
            rows.append(
                Row(
                    f"{concurrency} at once, {name}",
                    (
                        f"{measured[name].median:,.0f} ± {measured[name].spread:.0%}",
                        f"{ratio:.3f}",
                        f"{cpu[name].median * 1e6:.1f} µs ± {cpu[name].spread:.0%}",
                        f"{cpu_ratio:.3f}",
                        accounts[name],
                    ),
                    {"commands/s": measured[name].median, "to off": ratio, "cpu": cpu[name].median, "cpu to off": cpu_ratio},
                    (Target("commands/s to off", ratio, 0.93, at_most=False),) if has_target else (),
                )
            )
    return Table(
        "PostgreSQL: one-stream commands per second, telemetry off and on",
        ("commands/s", "to off", "client CPU", "to off", "spans exported / recorded (otel)"),
        tuple(rows),
        notes=(
            server.about,
            OBSERVED,
            "all traces: 100 % sampling, no target; spans beyond the budget are dropped and counted.",
            "client CPU: processor time of this process for one command, all threads.",
        ),
    )


@contextmanager
def _telemetry(watching: Observers, rate: _Rate) -> Iterator[Telemetry]:
    if rate == "off":
        with silent("off") as telemetry:
            yield telemetry
    elif rate == "none":
        with silent() as telemetry:
            yield telemetry
    else:
        with watching.attached(rate) as telemetry:
            yield telemetry


def _appends(server: MeasuredServer, watching: Observers, rounds: int, seconds: float) -> Table:
    database, turn_numbers = server.database(), itertools.count()
    at_once = (1, 16, 64)

    def command(order: StreamId) -> AddItems:
        return AddItems(order=order, item="lamp", price=4_900, lines=_LINES)

    latencies: dict[int, list[float]] = {concurrency: [] for concurrency in at_once}

    def turn(concurrency: int) -> float:
        with watching.attached() as telemetry:
            before = database.settle()
            stream = order_streams(lines=1, name=f"order-{next(turn_numbers)}")
            load, warm = asyncio.run(timed(database.url, telemetry, concurrency, stream, command, seconds, seconds / 3))
        database.verify(before, _LINES * (load.commands + warm.commands))
        latencies[concurrency].append(load.latency(0.5))
        return _LINES * load.rate

    measured = in_turns({str(concurrency): partial(turn, concurrency) for concurrency in at_once}, rounds)
    best = max(at_once, key=lambda concurrency: measured[str(concurrency)].median)
    rows = []
    for concurrency in at_once:
        series, p50 = measured[str(concurrency)], median(latencies[concurrency][-rounds:])
        rows.append(
            Row(
                f"{concurrency} at once",
                (f"{series.median:,.0f} ± {series.spread:.0%}", f"{p50 * 1e3:.1f} ms"),
                {"events/s": series.median, "p50": p50},
                (Target("events/s", series.median, 50_000, at_most=False),) if concurrency == best else (),
            )
        )
    return Table(
        f"PostgreSQL: appends of {_LINES} events to a new stream each",
        ("events/s", "p50 of a command"),
        tuple(rows),
        notes=(server.about, f"Telemetry on. {OBSERVED}"),
    )


def _hot_stream(server: MeasuredServer, watching: Observers, rounds: int) -> Table:
    database, turn_numbers = server.database(), itertools.count()
    commands: dict[str, Callable[[StreamId], Command[Any]]] = {
        "folding all events": add_item,
        "a state of the stream": add_line,
    }
    loads: dict[str, list[Load]] = {name: [] for name in commands}

    def turn(name: str) -> float:
        stream = StreamId(f"order-hot-{next(turn_numbers)}")
        with watching.attached() as telemetry:
            before = database.settle()
            load = asyncio.run(_one_stream(database, telemetry, stream, commands[name]))
        database.verify(before, _HOT_EVENTS)
        loads[name].append(load)
        return load.rate

    # The number of commands in a round is fixed, so run more rounds instead of longer ones.
    rounds *= 3
    measured = in_turns({name: partial(turn, name) for name in commands}, rounds)
    return Table(
        f"PostgreSQL: {_HOT_AT_ONCE} commands at once on one stream, from 0 to {_HOT_EVENTS:,} events",
        ("commands/s", "slowest round", "attempts, worst", "p99"),
        tuple(_hot_row(name, series, loads[name][-rounds:]) for name, series in measured.items()),
        notes=(server.about, f"Telemetry on; every round has a new stream and a store just opened. {OBSERVED}"),
    )


def _hot_row(name: str, series: Series, kept: list[Load]) -> Row:
    attempts, p99 = max(load.attempts for load in kept), median(load.latency(0.99) for load in kept)
    cells = (f"{series.median:,.0f} ± {series.spread:.0%}", f"{min(series.values):,.0f}", str(attempts), f"{p99 * 1e3:.1f} ms")
    return Row(
        name,
        cells,
        {"commands/s": series.median, "slowest": min(series.values), "attempts": attempts, "p99": p99},
        (Target("commands/s", series.median, 12_000, at_most=False), Target("attempts", attempts, 5)),
    )


async def _one_stream(
    database: Database, telemetry: Telemetry, stream: StreamId, command: Callable[[StreamId], Command[Any]]
) -> Load:
    async with open_store(database.url, telemetry=telemetry) as store:
        return await keep_busy(store, _HOT_AT_ONCE, lambda: stream, lambda begun: begun < _HOT_EVENTS, command)
