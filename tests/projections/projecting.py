"""A process that runs the projection of balances on a file, until it is killed.

It prints a line when it is inside the transaction of the position that is its third argument, and stays there.
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
    """What every account holds, and how many events that is made of."""

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
