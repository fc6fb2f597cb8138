"""A process that reads every event: ``python -m benchmarks.reader``, told by its input, then its account as JSON.

Its input is a store's URL and the number of events.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no annotations

import benchmarks.workload  # noqa: F401  # the classes of the events that it reads
from eventcore import open_store

__all__ = ["main"]

_SAMPLES = 10


def main() -> None:
    """Read, and tell how fast and with how much memory."""
    url, events = sys.stdin.readline().split()
    sys.stdout.write(json.dumps(asyncio.run(_read(url, int(events)))))


async def _read(url: str, expected: int) -> dict[str, Any]:
    process = psutil.Process()
    sizes: list[int] = []
    number = total = 0
    async with open_store(url, exporters="none", config={}) as store:
        begun = perf_counter()
        async for event in store.read_all():
            number += 1
            total += event.data.price  # type: ignore[attr-defined]  # all events here have one
            if number % max(1, expected // _SAMPLES) == 0:
                sizes.append(process.memory_info().rss)
        seconds = perf_counter() - begun
    return {"events": number, "total": total, "seconds": seconds, "sizes": sizes}


if __name__ == "__main__":
    main()
