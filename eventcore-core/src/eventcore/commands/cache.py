"""The stream cache: decoded events of recently used streams, always a prefix of what the store holds.

Other processes write to the store, too, so the cache may be behind at any time. It is safe to decide on because every append
names the versions that the decision saw, and the store refuses the append if one of them is old.

Loader and batcher share one cache and use it on the event loop only. No method awaits, so each of them is atomic.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, final

import msgspec

from eventcore.events import RecordedEvent, StreamId

# Events of one stream. A longer stream keeps its newest half: enough to bring waiting commands up to date, not to load a state.
_MAX_STREAM: Final = 5_000
# Seconds after an append of another writer was seen during which the cache does not answer for that stream: it would most
# likely be behind, and each decision on it would cost a refused append.
_CONTESTED: Final = 1.0


class _CachedStream(msgspec.Struct, gc=False):
    """Consecutive events of one stream: versions ``start + 1`` to ``version``.

    The events are a tuple, and the struct is not tracked by the garbage collector: a full collection would otherwise walk tens
    of thousands of lists.
    """

    start: int
    version: int
    events: tuple[RecordedEvent, ...] = ()
    contested_until: float = 0.0


@final
class StreamCache:
    """Least recently used streams are evicted when more than ``capacity`` events are held; each stream counts as one more.

    Attributes:
        epoch: how often the cache was emptied because the store went back in time. Events that were taken from the cache in an
            earlier epoch may no longer exist: loader and batcher compare epochs before they use such events.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._held = 0
        self._streams: dict[StreamId, _CachedStream] = {}
        self.epoch = 0

    def forget(self, epoch: int) -> None:
        """Empty the cache: the store has gone back in time. Only the first of several calls with one epoch does something."""
        if epoch == self.epoch:
            self.epoch += 1
            self._streams.clear()
            self._held = 0

    def version(self, stream: StreamId) -> int:
        """The highest known version of a stream; 0 if the cache does not hold it."""
        cached = self._streams.get(stream)
        return cached.version if cached is not None else 0

    def events(self, stream: StreamId) -> tuple[RecordedEvent, ...] | None:
        """All events of a stream that are known; ``None`` if the cache lacks its beginning."""
        cached = self._streams.get(stream)
        return cached.events if cached is not None and cached.start == 0 else None

    def current(self, stream: StreamId) -> tuple[RecordedEvent, ...] | None:
        """Like ``events``, but ``None`` also while the stream is contested."""
        cached = self._streams.get(stream)
        if cached is None or cached.start or (cached.contested_until and cached.contested_until > time.monotonic()):
            return None
        return cached.events

    def contest(self, stream: StreamId) -> None:
        """Note that another writer appended to the stream."""
        if (cached := self._streams.get(stream)) is not None:
            cached.contested_until = time.monotonic() + _CONTESTED

    def tail(self, stream: StreamId, after: int) -> tuple[RecordedEvent, ...] | None:
        """The known events behind version ``after``; ``None`` if some of them were evicted."""
        cached = self._streams.get(stream)
        if cached is None or cached.version <= after:
            return ()
        if after < cached.start:
            return None
        return cached.events[after - cached.start :]

    def extend(self, stream: StreamId, events: Sequence[RecordedEvent], after: int) -> None:
        """Add the events behind version ``after``. Events that are already known are not replaced."""
        cached = self._streams.pop(stream, None)
        if cached is None or cached.version < after:
            # New, or with a gap between the known events and these: start again behind the gap.
            if cached is not None:
                self._held -= len(cached.events) + 1
            cached = _CachedStream(after, after)
            self._held += 1
        elif after == 0 < cached.start <= len(events):
            # The beginning of the stream was dropped, and is back.
            cached.events = (*events[: cached.start], *cached.events)
            self._held += cached.start
            cached.start = 0
        # Popped and inserted again, the stream is the newest in the dictionary's order, which is the order of eviction.
        self._streams[stream] = cached
        if news := events[cached.version - after :]:
            cached.events = (*cached.events, *news)
            cached.version += len(news)
            self._held += len(news)
            if len(cached.events) > _MAX_STREAM:
                dropped = len(cached.events) - _MAX_STREAM // 2
                cached.events = cached.events[dropped:]
                cached.start += dropped
                self._held -= dropped
        while self._held > self._capacity and len(self._streams) > 1:
            oldest = next(iter(self._streams))
            self._held -= len(self._streams.pop(oldest).events) + 1
