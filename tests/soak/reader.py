"""Processes that follow the global order and log what they see; after a kill they continue where their log ends."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

from eventcore.errors import HistoryDiverged, StoreUnavailable
from eventcore.stores import START, Backend, Checkpoint, EventFilter, backend_from_url
from tests.soak.logs import LineLog, repaired
from tests.soak.worker import opened

DIVERGED: Final = ".diverged"
"""The suffix of the file that a reader writes when ``HistoryDiverged`` stops it."""

_PAUSE: Final = 0.05
_EVERYTHING: Final = EventFilter()


async def follow(url: str, path: Path, seed: int, stop: asyncio.Event) -> None:
    """Follow from the last logged checkpoint until ``stop``; the store wakes this reader."""
    choice = random.Random(seed)
    seen = repaired(path)
    after = Checkpoint(*seen[-1]) if seen else START
    backend, log = backend_from_url(url), LineLog(path)
    try:
        await _open(backend, stop)
        while not stop.is_set():
            try:
                page = await backend.log.follow(after, choice.choice((1, 7, 100, 500)), _EVERYTHING)
                log.saw((row.position, row.event_id) for row in page.rows)
                after = page.end
                if after.position >= page.head:
                    await backend.log.wait_beyond(after.position, 0.5)
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE)
    except HistoryDiverged as error:
        path.with_suffix(DIVERGED).write_text(str(error))
        await stop.wait()
    finally:
        log.close()
        await backend.close(2)


async def scan(url: str, path: Path, seed: int, stop: asyncio.Event) -> None:
    """Read all events after the last position, again and again, until ``stop``."""
    seen = repaired(path)
    position = seen[-1][0] if seen else 0
    log = LineLog(path)
    async with opened(url, stop) as store:
        while store is not None and not stop.is_set():
            try:
                async for event in store.read_all(after=position):
                    log.saw([(event.position, event.event_id)])
                    position = event.position
            except StoreUnavailable:
                pass
            await asyncio.sleep(_PAUSE)
    log.close()


async def _open(backend: Backend, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            return await backend.open()
        except StoreUnavailable:
            await asyncio.sleep(_PAUSE)
    return None
