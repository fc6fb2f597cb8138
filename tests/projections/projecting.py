"""A process that projects the balances of a SQLite store until it is killed.

Its arguments are the URL of the store and a position. At this position it prints a line inside the transaction and hangs.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time

from eventcore import Projection, RecordedEvent, open_store
from tests.store.bank import Deposited, Withdrawn

LEASE = 1.0


class BalanceTable(Projection):
    """The balance of each account, and the number of its events."""

    name = "balance-table"

    def __init__(self, hang_at: int = 0) -> None:
        self._hang_at = hang_at

    def handle(self, event: RecordedEvent, transaction: sqlite3.Connection) -> None:
        assert isinstance(event.data, Deposited | Withdrawn)
        amount = event.data.amount if isinstance(event.data, Deposited) else -event.data.amount
        transaction.execute("CREATE TABLE IF NOT EXISTS balances (stream TEXT PRIMARY KEY, amount INTEGER, events INTEGER)")
        transaction.execute(
            "INSERT INTO balances VALUES (?, ?, 1) "
            "ON CONFLICT (stream) DO UPDATE SET amount = amount + excluded.amount, events = events + 1",
            (event.stream_id, amount),
        )
        if event.position == self._hang_at:
            sys.stdout.write("inside\n")
            sys.stdout.flush()
            time.sleep(600)


async def main(url: str, hang_at: int) -> None:
    async with open_store(url, exporters=[]) as store:
        await store.run(BalanceTable(hang_at), lease=LEASE)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
