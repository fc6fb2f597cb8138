"""A process that transfers money in a file until it is killed, and prints each transfer that was acknowledged."""

from __future__ import annotations

import asyncio
import random
import sys

from eventcore import BusinessRuleViolation, EventStore, RetryPolicy, open_store
from tests.store.bank import Transfer, account

RETRY = RetryPolicy(attempts=1000, base_delay=0.001, max_delay=0.02)


async def transfer(store: EventStore, until: int, choice: random.Random) -> None:
    for _ in range(until):
        source, target = choice.sample([account(number) for number in range(8)], 2)
        try:
            result = await store.execute(Transfer(source=source, target=target, amount=choice.randint(1, 9)), retry=RETRY)
        except BusinessRuleViolation:
            continue
        sys.stdout.write(" ".join(event.event_id for event in result.events) + "\n")
        sys.stdout.flush()


async def main(url: str, seed: int, count: int) -> None:
    async with open_store(url, exporters=[]) as store:
        await asyncio.gather(*(transfer(store, count, random.Random(seed * 100 + number)) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
