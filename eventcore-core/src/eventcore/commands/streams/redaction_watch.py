"""Forgetting redacted events: a process that neither reads nor appends asks the store now and then."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, final

from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.loading import BEGIN_ANEW
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.stores.base import EventLog

# Seconds between two questions: redacted text is forgotten within a second.
_EVERY: Final = 0.5


@final
class RedactionWatch:
    """Empties the cache when events were redacted. Does not ask while the cache is empty."""

    def __init__(self, log: EventLog, cache: StreamCache) -> None:
        self._log = log
        self._cache = cache
        self._task: OwnedTask[None] | None = None

    def start(self) -> None:
        """Start the watch's task on the running loop."""
        self._task = spawn(self._run(), "eventcore-redactions")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            if not len(self._cache):
                continue
            cache_epoch = self._cache.epoch
            # A store that is away is asked again; nothing can be read or appended meanwhile either.
            with suppress(Exception):
                try:
                    await self._log.check_redactions()
                except BEGIN_ANEW:
                    self._cache.forget(cache_epoch)
