"""Somebody who looks at the log of a PostgreSQL store all the time, in plain SQL, for a gap that is there for a moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, final

import asyncpg

from tests.soak.proof import Findings

__all__ = ["GapWatcher"]

_PAUSE: Final = 0.02
_LOOK: Final = "SELECT coalesce(max(position), $1) - $1, count(*) FROM eventcore.events WHERE position > $1"
_GONE: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


@final
class GapWatcher:
    """Looks at what is new, again and again."""

    def __init__(self, url: str, findings: Findings) -> None:
        self._url = url
        self._findings = findings
        self._seen = 0

    async def watch(self) -> None:
        """Look until cancelled, also after the server was away."""
        while True:
            with suppress(*_GONE):
                connection = await asyncpg.connect(self._url, timeout=2)
                try:
                    while True:
                        await self._look(connection)
                        await asyncio.sleep(_PAUSE)
                finally:
                    connection.terminate()
            await asyncio.sleep(_PAUSE)

    async def _look(self, connection: asyncpg.Connection) -> None:
        length, count = await connection.fetchrow(_LOOK, self._seen, timeout=5)
        self._findings.counts["looks for gaps"] += 1
        if length != count:
            self._findings.violated(f"{length} positions behind {self._seen}, and {count} events there")
        self._seen += length
