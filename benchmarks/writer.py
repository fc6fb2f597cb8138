"""A process that executes one command at a time: ``python -m benchmarks.writer``.

The first line of its input is the URL of a store, a name and the seconds. It prints ``ready``, begins at the second line, and
prints its measurements as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

from benchmarks.workload import keep_busy, order_streams
from eventcore import open_store

__all__ = ["main"]

_WARM_UP = 20


def main() -> None:
    """Execute commands, and print how many and how fast."""
    url, name, seconds = sys.stdin.readline().split()
    sys.stdout.write(json.dumps(asyncio.run(_write(url, name, float(seconds)))))


async def _write(url: str, name: str, seconds: float) -> dict[str, Any]:
    async with open_store(url, exporters="none", config={}) as store:
        stream = order_streams(name=f"order-{name}")
        await keep_busy(store, 1, stream, lambda begun: begun < _WARM_UP)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        end = perf_counter() + seconds
        load = await keep_busy(store, 1, stream, lambda _: perf_counter() < end)
    return {"commands": load.commands, "all": load.commands + _WARM_UP, "rate": load.rate, "latencies": load.latencies}


if __name__ == "__main__":
    main()
