"""Closes a store: its parts in order, once, on the event loop that opened it or after that loop is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final, final

from eventcore.catalogue import Instruments, ObservedBackend
from eventcore.commands import CommandExecutor
from eventcore.health.monitor import HealthMonitor
from eventcore.projections import ProjectionHost
from eventcore.telemetry import Telemetry

# Seconds that each step of closing gets, even if the steps before it have used up the timeout.
_SHORTEST_STEP: Final = 0.1


@final
class Closing:
    """Closes the parts of one store.

    Args:
        telemetry: what to shut down in the end; ``None`` if the store does not own its telemetry.

    Attributes:
        stop_yielding: called in the end.
    """

    def __init__(
        self,
        monitor: HealthMonitor,
        instruments: Instruments,
        projections: ProjectionHost,
        executor: CommandExecutor,
        backend: ObservedBackend,
        telemetry: Telemetry | None,
    ) -> None:
        self._monitor = monitor
        self._instruments = instruments
        self._projections = projections
        self._executor = executor
        self._backend = backend
        self._telemetry = telemetry
        self.stop_yielding: Callable[[], None] = lambda: None

    async def run(self, timeout: float) -> None:
        """Close everything within ``timeout`` seconds, on the event loop of the store."""
        deadline = monotonic() + timeout
        try:
            await self._monitor.stop()
            await self._instruments.backend.stop()
            # Projections and commands use the backend, so both end before it. Side by side: a handler that does not end leaves
            # the commands their time.
            async with asyncio.TaskGroup() as ending:
                ending.create_task(self._projections.close(timeout))
                ending.create_task(self._executor.close(timeout))
            await self._backend.close(_remaining(deadline))
        finally:
            await self._end(deadline)

    async def release(self, timeout: float) -> None:
        """End threads and close files within ``timeout`` seconds, on any event loop, since that of the store is closed.

        Nothing waits for the commands and projections any more. What belongs to the closed loop, such as a connection to
        PostgreSQL, cannot be closed in order: its session is ended, and its file is closed when the store is collected.
        """
        deadline = monotonic() + timeout
        try:
            # A closed loop raises RuntimeError.
            with suppress(RuntimeError):
                await self._monitor.stop()
                await self._instruments.backend.stop()
            with suppress(RuntimeError, TimeoutError):
                async with asyncio.timeout(_remaining(deadline)):
                    await self._backend.close(_remaining(deadline))
        finally:
            await self._end(deadline)

    async def _end(self, deadline: float) -> None:
        self._instruments.closed()
        self._monitor.closed()
        try:
            if self._telemetry is not None:
                await self._telemetry.shutdown(_remaining(deadline))
        finally:
            self.stop_yielding()


def _remaining(deadline: float) -> float:
    return max(_SHORTEST_STEP, deadline - monotonic())
