"""Reading the global order from PostgreSQL: the speed of projections, and the memory of a process that reads all events."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter, process_time
from typing import Any, Final

from benchmarks.measuring import Effort, in_turns
from benchmarks.observing import OBSERVED, Observers, observers, silent
from benchmarks.postgres_server import Database, MeasuredServer, measured_server
from benchmarks.results import Row, Table, Target
from benchmarks.workload import AddItems, keep_busy, order_streams
from eventcore import Projection, RecordedEvent, open_store
from eventcore.telemetry import Telemetry

__all__ = ["readers"]

_LINES: Final = 100
_LONGEST: Final = 300.0


class _Turnover(Projection):
    """Adds up the prices of ordered items."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.applied = 0
        self.turnover: dict[str, int] = {}

    def add(self, event: RecordedEvent) -> None:
        line: Any = event.data
        self.applied += 1
        self.turnover[line.item] = self.turnover.get(line.item, 0) + line.price


class _OneByOne(_Turnover):
    def handle(self, event: RecordedEvent) -> None:
        self.add(event)


class _InBatches(_Turnover):
    def handle_batch(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            self.add(event)


_FORMS: Final[dict[str, type[_Turnover]]] = {"handle(event)": _OneByOne, "handle_batch(events)": _InBatches}


def readers(effort: Effort) -> tuple[Table, ...]:
    """Follow all events with a projection, and read all events with ``read_all``."""
    rounds, events = (2, 50_000) if effort.quick else (3, 1_000_000)
    with measured_server() as server, observers() as watching:
        database = server.database()
        with silent("off") as telemetry:
            asyncio.run(_fill(database, telemetry, events))
        database.verify(0, events)
        database.settle()
        return _followed(server, watching, database, events, rounds), _memory(server, database, events)


async def _fill(database: Database, telemetry: Telemetry, events: int) -> None:
    async with open_store(database.url, telemetry=telemetry) as store:
        await keep_busy(
            store,
            16,
            order_streams(lines=1),
            lambda begun: begun < events // _LINES,
            lambda order: AddItems(order=order, item="lamp", price=4_900, lines=_LINES),
        )


def _followed(server: MeasuredServer, watching: Observers, database: Database, events: int, rounds: int) -> Table:
    names = itertools.count()
    shares: dict[str, list[float]] = {form: [] for form in _FORMS}

    def turn(form: str) -> float:
        projection = _FORMS[form](f"turnover{next(names)}")
        with watching.attached() as telemetry:
            database.settle()
            seconds, cpu = asyncio.run(_follow(database, telemetry, projection, events))
        kept = int(database.sql(f"SELECT position FROM eventcore.projections WHERE name = '{projection.name}'"))
        if not projection.applied == kept == events:
            raise RuntimeError(f"{projection.applied} events were applied and the checkpoint is at {kept} of {events}")
        shares[form].append(cpu / seconds)
        return events / seconds

    measured = in_turns({form: partial(turn, form) for form in _FORMS}, rounds)
    rows = []
    for form, series in measured.items():
        share = sorted(shares[form])[len(shares[form]) // 2]
        rows.append(
            Row(
                form,
                (f"{series.median:,.0f} ± {series.spread:.0%}", f"{share:.0%}"),
                {"events/s": series.median, "client CPU": share},
                (Target("events/s", series.median, 150_000, at_most=False),),
            )
        )
    return Table(
        f"PostgreSQL: a projection follows {events:,} events",
        ("events/s", "client CPU / time"),
        tuple(rows),
        notes=(
            server.about,
            "From the first event to the last one. The handler adds up prices. Checkpoints are committed to the same database. "
            "Every event is applied once, and the last checkpoint is that of the last event.",
            f"Telemetry on. {OBSERVED}",
        ),
    )


async def _follow(database: Database, telemetry: Telemetry, projection: Projection, events: int) -> tuple[float, float]:
    async with open_store(database.url, telemetry=telemetry) as store:
        begun, cpu = perf_counter(), process_time()
        running = asyncio.create_task(store.run(projection))
        waiting = asyncio.create_task(store.wait_for(projection, events, timeout=_LONGEST))
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        seconds, cpu = perf_counter() - begun, process_time() - cpu
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await waiting
    return seconds, cpu


def _memory(server: MeasuredServer, database: Database, events: int) -> Table:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reader"],
        input=f"{database.url} {events}\n",
        stdout=subprocess.PIPE,
        text=True,
        timeout=_LONGEST,
        check=True,
    )
    account = json.loads(done.stdout)
    if account["events"] != events:
        raise RuntimeError(f"{account['events']} of {events} events were read")
    sizes = [size / (1 << 20) for size in account["sizes"]]
    rate = events / account["seconds"]
    return Table(
        f"PostgreSQL: read_all over {events:,} events, in a process of its own",
        ("events/s", "memory after a tenth", "at the end", "at most", "grown by"),
        (
            Row(
                "read_all",
                (
                    f"{rate:,.0f}",
                    f"{sizes[0]:.1f} MiB",
                    f"{sizes[-1]:.1f} MiB",
                    f"{max(sizes):.1f} MiB",
                    f"{sizes[-1] - sizes[0]:+.1f} MiB",
                ),
                {"events/s": rate, "first": sizes[0], "last": sizes[-1], "most": max(sizes)},
            ),
        ),
        notes=(server.about, "Resident memory of the whole process, Python included."),
    )
