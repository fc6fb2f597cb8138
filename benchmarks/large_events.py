"""A child process: commands write large events, then all are read. ``python -m benchmarks.large_events URL EVENTS BYTES``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from benchmarks.accounts import Attach
from eventcore import EventStore, StreamId, open_store

_AT_ONCE = 8
_STREAMS = 100


async def _pass_through(url: str, events: int, size: int) -> None:
    before = _peak()
    async with open_store(url, exporters="none") as store:
        await asyncio.gather(*(_write(store, sender, events // _AT_ONCE, size) for sender in range(_AT_ONCE)))
        written = _peak()
        read = 0
        async for _ in store.read_all():
            read += 1
    print(json.dumps({"before": before, "written": written, "read": _peak(), "events": read}))


async def _write(store: EventStore, sender: int, events: int, size: int) -> None:
    for number in range(events):
        account = StreamId(f"account-{(sender + number * _AT_ONCE) % _STREAMS}")
        await store.execute(Attach(account=account, size=size))


def _peak() -> int:
    """The most memory, in bytes, that this process has had. `ru_maxrss` would count the process that started this one."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    asyncio.run(_pass_through(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
