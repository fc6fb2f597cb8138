"""A process that reads every event: ``python -m benchmarks.reader``.

Its input is the URL of a store and the number of events. It prints its measurements as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no annotations

import benchmarks.workload  # noqa: F401  # defines the classes of the events
from eventcore import open_store

__all__ = ["main"]

_SAMPLES = 10


def main() -> None:
    """Read all events, and print the speed and the memory used."""
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
            total += event.data.price  # type: ignore[attr-defined]  # all events have a price
            if number % max(1, expected // _SAMPLES) == 0:
                sizes.append(process.memory_info().rss)
        seconds = perf_counter() - begun
    return {"events": number, "total": total, "seconds": seconds, "sizes": sizes}


if __name__ == "__main__":
    main()
