"""A process that projects into a table of PostgreSQL. Arguments: the URL, the lease in seconds, and where to wait in silence.

At the position ``hang_at`` it prints a line inside the transaction, after it has written its row, and sleeps.
At ``exit_at`` the process ends itself without a word.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from eventcore import OnError, Projection, RecordedEvent, open_store
from tests.store import bank

POISON = 86
EVENTS = (bank.Deposited,)


class Rows(Projection):
    """Writes the position of each event, and touches a row that all processes write."""

    name = "rows"
    on_error = OnError(retries=2, base_delay=0.01, max_delay=0.02, then="dead_letter")

    def __init__(self, hang_at: int = 0, exit_at: int = 0) -> None:
        self._hang_at = hang_at
        self._exit_at = exit_at

    async def handle(self, event: RecordedEvent, transaction: Any) -> None:
        await transaction.execute("UPDATE total SET n = n + 1")
        await transaction.execute("INSERT INTO seen VALUES ($1)", event.position)
        if event.position == self._exit_at:
            os._exit(POISON)
        if event.position == self._hang_at:
            sys.stdout.write("inside\n")
            sys.stdout.flush()
            await asyncio.sleep(600)


async def main(url: str, lease: float, hang_at: int, exit_at: int) -> None:
    async with open_store(url, exporters=[]) as store:
        await store.run(Rows(hang_at, exit_at), lease=lease)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
