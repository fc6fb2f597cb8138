"""A process that runs every projection, or waits for the lease of those that another process runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from eventcore import EventStore, Projection, RecordedEvent
from eventcore.errors import HistoryDiverged
from tests.soak.domain import Linked, Noted
from tests.soak.logs import LineLog
from tests.soak.proof import CHAIN
from tests.soak.reader import DIVERGED
from tests.soak.unruly import UnrulyOnPostgres, UnrulyOnSqlite
from tests.soak.worker import opened

LEASE: Final = 1.0
TALLY: Final = """
    CREATE TABLE soak_tally (
        projection text NOT NULL, stream text NOT NULL, events bigint NOT NULL, amount bigint NOT NULL, chain bigint NOT NULL,
        PRIMARY KEY (projection, stream)
    )
"""
OUTSIDE: Final = "applied-outside.log"
"""The read model of the projection that keeps its read model outside the store: a file that all projectors share."""

_COUNT: Final = f"""
    INSERT INTO soak_tally VALUES ($1, $2, 1, $3, $4) ON CONFLICT (projection, stream) DO UPDATE SET
        events = soak_tally.events + 1,
        amount = soak_tally.amount + excluded.amount,
        chain = (soak_tally.chain * 31 + excluded.chain) % {CHAIN}
"""  # made of constants only


def row_of(name: str, event: RecordedEvent) -> tuple[str, str, int, int]:
    assert isinstance(event.data, Noted | Linked)
    return name, str(event.stream_id), event.data.amount, event.position % CHAIN


class TallyOnPostgres(Projection):
    """Counts every event of every stream, in the transaction of the checkpoint."""

    name = "tally"

    async def handle(self, event: RecordedEvent, transaction: Any) -> None:
        await transaction.execute(_COUNT, *row_of(self.name, event))


class ColdOnPostgres(Projection):
    """Counts the events of some streams and one type, a batch at a time."""

    name = "cold"
    pattern = "cold-*"
    event_types = (Noted,)

    async def handle_batch(self, events: Sequence[RecordedEvent], transaction: Any) -> None:
        await transaction.executemany(_COUNT, [row_of(self.name, event) for event in events])


class TallyOnSqlite(Projection):
    name = "tally"

    def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
        transaction.execute(_COUNT.replace("$", "?"), row_of(self.name, event))


class ColdOnSqlite(Projection):
    name = "cold"
    pattern = "cold-*"
    event_types = (Noted,)

    def handle_batch(self, events: Sequence[RecordedEvent], transaction: sqlite3.Connection) -> None:
        transaction.executemany(_COUNT.replace("$", "?"), [row_of(self.name, event) for event in events])


class Outside(Projection):
    """Writes every event to a file, at least once."""

    name = "outside"

    def __init__(self, log: LineLog) -> None:
        self._log = log

    def handle(self, event: RecordedEvent) -> None:
        self._log.saw([(event.position, event.event_id)])


async def project(url: str, path: Path, seed: int, stop: asyncio.Event) -> None:
    """Run all projections until ``stop``."""
    log = LineLog(path.with_name(OUTSIDE))
    inside: list[Projection] = (
        [TallyOnSqlite(), ColdOnSqlite(), UnrulyOnSqlite(_COUNT)]
        if url.startswith("sqlite")
        else [TallyOnPostgres(), ColdOnPostgres(), UnrulyOnPostgres(_COUNT)]
    )
    async with opened(url, stop) as store:
        if store is None:
            return
        running = [asyncio.create_task(_run(store, projection, path)) for projection in (*inside, Outside(log))]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = [task for task in running if task.done()]
            for task in (stopping, *running):
                task.cancel()
            await asyncio.wait([stopping, *running])
            for task in ended:
                await task
    log.close()


async def _run(store: EventStore, projection: Projection, path: Path) -> None:
    try:
        await store.run(projection, lease=LEASE)
    except HistoryDiverged as error:
        path.with_suffix(f".{projection.name}{DIVERGED}").write_text(str(error))
        # Wait until cancelled: the other projections of this process continue.
        await asyncio.Event().wait()
