"""Storing states of streams beside the events, in the background: no command waits for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, final

from eventcore.catalogue.commands import CommandInstruments
from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.cached_stream import KeptState
from eventcore.events import StreamId
from eventcore.ground import OwnedTask, cancel_and_wait, own_logger, spawn
from eventcore.stores.base import EventLog
from eventcore.stores.values import Snapshot, StateKey

# States that wait to be stored. When more are due, the store does not keep up; the next ones come soon enough.
_MAX_WAITING: Final = 1024
_MAX_STREAMS: Final = 64
_LOGGER: Final = own_logger("eventcore.snapshots")


@final
class SnapshotWriter:
    """Stores the states that are due, several in one call."""

    def __init__(self, log: EventLog, cache: StreamCache, instruments: CommandInstruments) -> None:
        self._log = log
        self._cache = cache
        self._count = instruments.count_snapshot_write
        self._waiting: dict[tuple[StreamId, StateKey], tuple[int, Snapshot]] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: OwnedTask[None] | None = None

    def due(self, stream: StreamId, state: KeptState, key: StateKey, data: bytes) -> None:
        """Store a state soon, as ``data``."""
        if len(self._waiting) < _MAX_WAITING:
            snapshot = Snapshot(key, state.version, state.event_id, self._cache.redactions, data)
            self._waiting[stream, key] = (self._cache.epoch, snapshot)
            self._idle.clear()
            self._wake.set()

    def start(self) -> None:
        """Start the writer's task on the running loop."""
        self._task = spawn(self._run(), "eventcore-snapshots")

    async def close(self, timeout: float) -> None:
        """Store what is due within ``timeout`` seconds, and stop."""
        if self._task is None:
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
        finally:
            await cancel_and_wait(self._task)
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                snapshots = self._take()
                if not snapshots:
                    continue
                try:
                    await self._log.save_snapshots(snapshots)
                    self._count("hit", len(snapshots))
                except Exception as error:  # noqa: BLE001  # counted and logged
                    # It is only an optimisation: the state will be due again.
                    self._count("error", len(snapshots))
                    _LOGGER.warning("%s states of streams were not stored: %s", len(snapshots), error)
            self._idle.set()

    def _take(self) -> dict[StreamId, Snapshot]:
        """States of different streams. Those of an earlier epoch may hold redacted text, or events that are lost."""
        taken: dict[StreamId, Snapshot] = {}
        for (stream, key), (epoch, snapshot) in list(self._waiting.items()):
            if len(taken) == _MAX_STREAMS:
                break
            if epoch != self._cache.epoch:
                self._count("stale", 1)
            elif stream in taken:
                continue
            else:
                taken[stream] = snapshot
            del self._waiting[stream, key]
        return taken
