"""A failover: the primary is killed, and a standby that has not received the last events is promoted."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from tests.real_parts.postgres import PostgresServer
from tests.soak.crew import Crew
from tests.soak.database import of_postgres
from tests.soak.logs import now
from tests.soak.projector import OUTSIDE
from tests.soak.proof import Failover, Findings
from tests.soak.reader import DIVERGED
from tests.soak.staging import CONNECTIONS, SETTINGS, Load, crew_of, head, last_seen, postgres, prepare, prove, until


async def through_failover(directory: Path, load: Load) -> Findings:
    """Run the scenario and return its findings."""
    findings = Findings()
    crew = Crew(directory, random.Random(load.seed))
    with closing(await asyncio.to_thread(lambda: PostgresServer(postgres(), max_connections=CONNECTIONS))) as primary:
        database, url = await prepare(primary)
        with closing(
            await asyncio.to_thread(lambda: PostgresServer(postgres(), standby_of=primary, max_connections=CONNECTIONS))
        ) as standby:
            parts = urlsplit(url)
            both = f"{parts.netloc},127.0.0.1:{standby.port}"
            either = parts._replace(netloc=both, query=f"target_session_attrs=primary&{SETTINGS}").geturl()
            async with crew_of(crew, findings):
                crew.start("writer", load.writers, either)
                crew.start("reader", 3, either)
                crew.start("projector", 2, either)
                await until(lambda: head(primary, database) > 0, "the first event")
                await asyncio.sleep(load.seconds / 3)
                behind = now()
                await asyncio.to_thread(standby.fall_behind)
                fork = head(standby, database)
                await asyncio.sleep(load.seconds / 6)
                readers = [member.log for member in crew.of("reader")]
                logs = [*readers, directory / OUTSIDE]
                await until(lambda: min(map(last_seen, logs)) > fork + 20, "readers and projections beyond the fork")
                await asyncio.to_thread(primary.stop, signal.SIGKILL)
                # Readers have by then read every event that the primary sent them before it was killed.
                await asyncio.sleep(1)
                failover = Failover(fork, now(), behind)
                lost = max(map(last_seen, logs))
                await asyncio.to_thread(standby.promote)
                # New events reach the positions of the lost ones: a reader that compared positions alone would go on.
                await until(lambda: head(standby, database) > lost + 100, "new events after the promotion")
                await asyncio.sleep(load.seconds / 2)
                await crew.end("writer")
                await crew.end("reader", "projector")
            stored = await of_postgres(standby.url(database))
    findings.counts["position of the fork"] = fork
    _prove_stopped(directory, readers, findings)
    prove(directory, stored, findings, failover)
    return findings


def _prove_stopped(directory: Path, readers: Sequence[Path], findings: Findings) -> None:
    """Every reader, and the projection, that has seen a lost event was stopped by ``HistoryDiverged``."""
    for log in readers:
        findings.counts["readers stopped by HistoryDiverged"] += 1
        if not log.with_suffix(DIVERGED).exists():
            findings.violated(f"{log.stem}: has seen lost events, and was not stopped")
    findings.counts["projections stopped by HistoryDiverged"] = len(list(directory.glob(f"projector-*.*{DIVERGED}")))
    if not list(directory.glob(f"projector-*.outside{DIVERGED}")):
        findings.violated("outside: its read model holds lost events, and it was not stopped")
