"""A job that writes the streams which every transfer writes: ``python -m tests.stack.importing DATABASE``."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final

from eventcore import EventStore, RetryPolicy, open_store
from eventcore.errors import EventCoreError
from examples.service.domain import Deposit, account

# Each flight of the traffic begins at one of them.
_HOT: Final = ("EWR", "JFK", "LGA")
_PAUSE: Final = 0.005


async def write(database: str) -> None:
    """Deposit to the same accounts, one deposit after the other in each, until cancelled."""
    async with open_store(database, name="import", exporters=[]) as store, asyncio.TaskGroup() as group:
        for name in _HOT:
            group.create_task(_deposit(store, name))


async def _deposit(store: EventStore, name: str) -> None:
    while True:
        try:
            await store.execute(Deposit(account=account(name), amount=1), retry=RetryPolicy(attempts=1000, base_delay=0.0))
        except EventCoreError:
            # The database is away, for instance.
            await asyncio.sleep(0.1)
        # So that the streams do not get so long that the service takes seconds to read them.
        await asyncio.sleep(_PAUSE)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(write(sys.argv[1]))
    except KeyboardInterrupt:
        pass
