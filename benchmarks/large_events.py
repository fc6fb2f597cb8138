"""A child process: commands write large events, then all are read. Arguments: URL, events, bytes, commands at once."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from benchmarks.accounts import Attach
from eventcore import EventStore, StreamId, open_store

_STREAMS = 100


async def _pass_through(url: str, events: int, size: int, at_once: int) -> None:
    before = _peak()
    async with open_store(url, exporters="none") as store:
        await asyncio.gather(*(_write(store, range(sender, events, at_once), size) for sender in range(at_once)))
        written = _peak()
        read = 0
        async for _ in store.read_all():
            read += 1
    print(json.dumps({"before": before, "written": written, "read": _peak(), "events": read}))


async def _write(store: EventStore, numbers: range, size: int) -> None:
    for number in numbers:
        await store.execute(Attach(account=StreamId(f"account-{number % _STREAMS}"), size=size))


def _peak() -> int:
    """The most memory, in bytes, that this process has had. `ru_maxrss` would count the process that started this one."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    asyncio.run(_pass_through(sys.argv[1], *map(int, sys.argv[2:])))
