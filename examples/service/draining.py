"""SIGTERM: first the service is not ready any more, then it refuses new commands, and only then the server stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from eventcore import EventStore

_logger = logging.getLogger(__name__)


@contextmanager
def draining_on_sigterm(store: EventStore, delay: float, timeout: float) -> Iterator[None]:
    """In this block, SIGTERM drains the store before the server gets the signal.

    Args:
        store: the store to drain.
        delay: seconds in which the service still executes commands, though it is not ready: until the load balancer has
            noticed. A little more than the period of the readiness probe.
        timeout: seconds for running commands and projections to end after that.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread has signals; a test's server, for instance, runs in another one.
        yield
        return
    loop = asyncio.get_running_loop()
    # That of uvicorn, which ends the server.
    server_handler = signal.getsignal(signal.SIGTERM)
    draining: set[asyncio.Task[None]] = set()

    async def drain() -> None:
        ended = await store.drain(timeout, delay=delay)
        _logger.info("drained; everything ended: %s", ended)
        if callable(server_handler):
            server_handler(signal.SIGTERM, None)

    def start() -> None:
        if not draining:
            draining.add(loop.create_task(drain()))

    def on_signal(_: int, __: FrameType | None) -> None:
        # It interrupts whatever runs, so it only hands over to the event loop.
        loop.call_soon_threadsafe(start)

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server_handler)
        for task in draining:
            task.cancel()
