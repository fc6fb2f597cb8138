"""A process of the soak test: ``python -m tests.soak.worker ROLE URL LOG SEED``; it ends when its input is closed."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from eventcore import EventStore, open_store
from eventcore.errors import StoreUnavailable


@asynccontextmanager
async def opened(url: str, stop: asyncio.Event) -> AsyncIterator[EventStore | None]:
    """Open the store, also if the server is down at first; yield ``None`` if ``stop`` is set before it opens."""
    async with AsyncExitStack() as stack:
        store = None
        while store is None and not stop.is_set():
            try:
                store = await stack.enter_async_context(open_store(url, exporters=[]))
            except StoreUnavailable:
                await asyncio.sleep(0.1)
        yield store


def until_input_ends() -> asyncio.Event:
    """Return an event that is set when the parent process closes this process's input, or ends."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def ended() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, ended)
    return stop


async def main(role: str, url: str, log: Path, seed: int) -> None:
    """Run the role until the input ends."""
    from tests.soak.projector import project
    from tests.soak.reader import follow, scan
    from tests.soak.writer import write

    roles = {"writer": write, "reader": follow, "scanner": scan, "projector": project}
    await roles[role](url, log, seed, until_input_ends())


if __name__ == "__main__":
    _, _role, _url, _log, _seed = sys.argv
    # Warnings of the store go to a file beside the log; any output on stderr counts as a fault.
    _logger = logging.getLogger("eventcore")
    _logger.addHandler(logging.FileHandler(f"{_log}.warnings", delay=True))
    _logger.propagate = False
    asyncio.run(main(_role, _url, Path(_log), int(_seed)))
