"""On PostgreSQL: every kind of process and the postmaster are killed, and connections are cut in mid-commit."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic
from typing import Final

from tests.postgres.proxy import Proxy
from tests.real_parts.postgres import PostgresServer
from tests.soak.chaos import ServerFaults, faults_of_processes, inject
from tests.soak.crew import Crew
from tests.soak.database import of_postgres
from tests.soak.logs import read_seen
from tests.soak.projector import OUTSIDE
from tests.soak.proof import Findings, prove_outside
from tests.soak.staging import CONNECTIONS, SETTINGS, Load, all_caught_up, crew_of, head, postgres, prepare, prove, until
from tests.soak.watcher import GapWatcher

_SECONDS_OF_A_SERVER: Final = 20.0


async def on_postgres(directory: Path, load: Load) -> Findings:
    """Run the scenario and return its findings."""
    findings, choice = Findings(), random.Random(load.seed)
    crew = Crew(directory, choice)
    with closing(await asyncio.to_thread(lambda: PostgresServer(postgres(), max_connections=CONNECTIONS))) as server:
        database, url = await prepare(server)
        async with Proxy.before(url) as proxy, _watched(url, findings), crew_of(crew, findings):
            crew.start("writer", load.writers, f"{proxy.url}?{SETTINGS}")
            crew.start("projector", 3, f"{proxy.url}?{SETTINGS}")
            crew.start("reader", 2, f"{url}?{SETTINGS}")
            crew.start("scanner", 1, f"{url}?{SETTINGS}")
            await until(lambda: head(server, database) > 0, "the first event")
            faults = faults_of_processes(crew, choice) + ServerFaults(proxy, server, database, crew, choice).faults()
            servers = max(2, round(load.seconds / _SECONDS_OF_A_SERVER))
            for number in range(servers):
                if number:
                    await asyncio.to_thread(server.stop, signal.SIGKILL)
                    crew.counts["kill -9 of the postmaster"] += 1
                    await asyncio.to_thread(server.start)
                await inject(faults, choice, monotonic() + load.seconds / servers, load.pause)
            await crew.end("writer")
            await all_caught_up(crew, lambda: head(server, database), lambda: _checkpoints(server, database), findings)
            await crew.end("reader", "scanner", "projector")
            findings.counts["cuts in mid-commit"] = proxy.cuts
        stored = await of_postgres(url)
    prove(directory, stored, findings)
    prove_outside(read_seen(directory / OUTSIDE), stored.rows, findings)
    return findings


@asynccontextmanager
async def _watched(url: str, findings: Findings) -> AsyncIterator[None]:
    watching = asyncio.create_task(GapWatcher(url, findings).watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    if not watching.cancelled():
        await watching


def _checkpoints(server: PostgresServer, database: str) -> list[int]:
    return [int(position) for position in server.sql("SELECT position FROM eventcore.projections", database).split()]
