"""Executes the commands of the timetable: many at once, but those of one aircraft one after the other."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final
from zlib import crc32

from eventcore import Command, EventStore
from eventcore.errors import CommandError, StoreError
from examples.flights.domain import Refusal
from examples.flights.timetable import Move

__all__ = ["REJECTIONS", "Replay"]

REJECTIONS: Final = "flights.rejections"
_QUEUED_PER_LANE: Final = 4
_logger: Final = logging.getLogger(__name__)


class Replay:
    """Executes moves on a store.

    There are ``lanes`` workers, and each aircraft belongs to one of them. So the commands of an aircraft run in order, and a
    refusal always has its reason in the data. The streams of airports are written by all workers at once.

    Args:
        rate: commands per second; ``None`` for as fast as possible.
    """

    def __init__(self, store: EventStore, *, rate: float | None = None, lanes: int = 128) -> None:
        self.issued = 0
        """The number of commands passed to the store."""
        self.clock: datetime | None = None
        """The time of the latest move, in the data."""
        self.failure: StoreError | None = None
        """The error of the store that ended the replay."""
        self._store = store
        self._rate = rate
        self._lanes: list[asyncio.Queue[Command[Any] | None]] = [asyncio.Queue(_QUEUED_PER_LANE) for _ in range(lanes)]
        # An instrument of the application. It is exported like those of eventcore.
        self._rejections = store.telemetry.counter(
            REJECTIONS, unit="{command}", description="Commands refused, by rule.", labels=("command.type", "reason")
        )

    async def run(self, moves: AsyncIterator[Move], stop: asyncio.Event, seconds: float | None) -> None:
        """Execute moves until there are no more, ``seconds`` are over or ``stop`` is set; then wait for all commands to end."""
        deadline = None if seconds is None else time.monotonic() + seconds
        async with asyncio.TaskGroup() as workers:
            for lane in self._lanes:
                workers.create_task(self._work(lane))
            begun = time.monotonic()
            sent = 0
            async for move in moves:
                if self._rate is not None and (early := begun + sent / self._rate - time.monotonic()) > 0:
                    await _sleep(early, stop)
                if stop.is_set() or self.failure is not None or (deadline is not None and time.monotonic() >= deadline):
                    break
                await self._lanes[crc32(move.lane.encode()) % len(self._lanes)].put(move.command)
                self.clock = move.at
                sent += 1
            for lane in self._lanes:
                await lane.put(None)

    async def _work(self, lane: asyncio.Queue[Command[Any] | None]) -> None:
        while (command := await lane.get()) is not None:
            if self.failure is not None:
                continue
            self.issued += 1
            try:
                await self._store.execute(command)
            except Refusal as refusal:
                self._rejections.labels(type(command).__name__, refusal.reason).add(1)
            except CommandError as error:
                # The store counts it as a conflict or an error, and the summary shows that.
                _logger.warning("%s: %s", command.__class__.__name__, error)
            except StoreError as error:
                self.failure = error


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
