"""Faults that are injected into processes, connections and the server while the processes work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Final, TypeAlias, final

from tests.postgres.proxy import Proxy
from tests.real_parts.postgres import PostgresServer
from tests.soak.crew import Crew

Fault: TypeAlias = tuple[int, Callable[[], Awaitable[None]]]
"""The weight of a fault among all faults, and the function that injects it."""

SLOW_COMMITS: Final = """
    CREATE FUNCTION soak_linger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(CASE WHEN random() < 0.02 THEN 0.8 ELSE random() * 0.03 END);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER soak_linger AFTER INSERT ON eventcore.events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.position % 23 = 0) EXECUTE FUNCTION soak_linger();
"""
"""Delays some commits: the deferred trigger runs after all inserts of a transaction and before its commit."""


async def inject(faults: Sequence[Fault], choice: random.Random, until: float, mean_pause: float) -> None:
    """Inject one random fault after another until the time ``until`` (of ``time.monotonic``)."""
    while (remaining := until - monotonic()) > 0:
        await asyncio.sleep(min(remaining, choice.uniform(0.3, 1.7) * mean_pause))
        [(_, fault)] = choice.choices(faults, [weight for weight, _ in faults])
        await fault()


def faults_of_processes(crew: Crew, choice: random.Random) -> list[Fault]:
    """Return the faults of processes: kills, and pauses that may be longer than a lease."""

    async def kill_writer() -> None:
        crew.replace(crew.pick("writer"))

    async def kill_reader() -> None:
        crew.replace(crew.pick("reader", "scanner"))

    async def kill_projector() -> None:
        crew.replace(crew.pick("projector"))

    async def pause() -> None:
        await crew.pause(crew.pick("writer", "projector"), choice.uniform(0.5, 2.5))

    return [(4, kill_writer), (2, kill_reader), (3, kill_projector), (2, pause)]


@final
class ServerFaults:
    """Faults of connections to a PostgreSQL server, and of the server's backends."""

    def __init__(self, proxy: Proxy, server: PostgresServer, database: str, crew: Crew, choice: random.Random) -> None:
        self._proxy = proxy
        self._server = server
        self._database = database
        self._counts = crew.counts
        self._choice = choice
        proxy.mark = b"soak."
        proxy.cut_request = lambda: choice.random() < 0.005
        proxy.cut_answer = lambda: choice.random() < 0.005
        proxy.hold_answer = lambda: choice.uniform(0, 0.2) if choice.random() < 0.02 else 0.0

    def faults(self) -> list[Fault]:
        """Return the faults: all connections are cut, or one backend is terminated."""
        return [(2, self._cut_all), (2, self._end_a_backend)]

    async def _cut_all(self) -> None:
        self._proxy.cut_all()
        self._counts["all connections cut"] += 1

    async def _end_a_backend(self) -> None:
        sql = (
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS one"
        )
        self._counts["backends ended"] += int(await asyncio.to_thread(self._server.sql, sql, self._database))
