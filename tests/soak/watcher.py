"""Watches a PostgreSQL store in plain SQL for gaps between positions, also for gaps that exist only for a moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, final

import asyncpg

from tests.soak.proof import Findings

_PAUSE: Final = 0.02
_COUNT_NEW: Final = "SELECT coalesce(max(position), $1) - $1, count(*) FROM eventcore.events WHERE position > $1"
_CONNECTION_LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


@final
class GapWatcher:
    """Compares the highest position with the number of events, again and again."""

    def __init__(self, url: str, findings: Findings) -> None:
        self._url = url
        self._findings = findings
        self._seen = 0

    async def watch(self) -> None:
        """Watch until cancelled; reconnect after the server was down."""
        while True:
            with suppress(*_CONNECTION_LOST):
                connection = await asyncpg.connect(self._url, timeout=2)
                try:
                    while True:
                        await self._look(connection)
                        await asyncio.sleep(_PAUSE)
                finally:
                    connection.terminate()
            await asyncio.sleep(_PAUSE)

    async def _look(self, connection: asyncpg.Connection) -> None:
        length, count = await connection.fetchrow(_COUNT_NEW, self._seen, timeout=5)
        self._findings.counts["looks for gaps"] += 1
        if length != count:
            self._findings.violated(f"{length} positions after {self._seen}, and {count} events")
        self._seen += length
