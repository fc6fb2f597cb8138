"""Recently used streams, decoded, as far as this process knows them: never the truth, always a prefix of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, final

import msgspec

from eventcore.events import RecordedEvent, StreamId

# A stream above this length keeps only its newest half: enough to bring waiting commands up to date, not to load one.
_MAX_STREAM: Final = 5_000
# For so many seconds after another writer was seen in a stream, what is known of it is taken to be behind.
_CONTESTED: Final = 1.0


class _CachedStream(msgspec.Struct, gc=False):
    """Consecutive events of one stream: versions ``start + 1`` to ``version``.

    A tuple, and no garbage collection: tens of thousands of lists here would be walked by each full collection.
    """

    start: int
    version: int
    events: tuple[RecordedEvent, ...] = ()
    contested_until: float = 0.0


@final
class StreamCache:
    """The least recently used streams make room once more than ``capacity`` events are held (an empty stream counts as one)."""

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._held = 0
        self._streams: dict[StreamId, _CachedStream] = {}
        self.epoch = 0
        """How often all was forgotten: what was taken from here in another epoch may be of events that are gone."""

    def forget(self, epoch: int) -> None:
        """Forget everything of that epoch, since the store has gone back in time."""
        if epoch == self.epoch:
            self.epoch += 1
            self._streams.clear()
            self._held = 0

    def complete_version(self, stream: StreamId) -> int:
        """The version up to which the whole stream is held; 0 when it is not."""
        known = self._streams.get(stream)
        return known.version if known is not None and known.start == 0 else 0

    def version(self, stream: StreamId) -> int:
        """The highest version that is known; 0 when nothing is."""
        known = self._streams.get(stream)
        return known.version if known is not None else 0

    def events(self, stream: StreamId) -> tuple[RecordedEvent, ...] | None:
        """The whole stream as far as it is known, ``None`` when it is not held whole."""
        known = self._streams.get(stream)
        return known.events if known is not None and known.start == 0 else None

    def current(self, stream: StreamId) -> tuple[RecordedEvent, ...] | None:
        """The whole stream, if it is held and nobody else has lately written to it: most likely all that there is."""
        known = self._streams.get(stream)
        if known is None or known.start or (known.contested_until and known.contested_until > time.monotonic()):
            return None
        return known.events

    def contest(self, stream: StreamId) -> None:
        """Note that another writer was seen in the stream."""
        if (known := self._streams.get(stream)) is not None:
            known.contested_until = time.monotonic() + _CONTESTED

    def tail(self, stream: StreamId, after: int) -> tuple[RecordedEvent, ...] | None:
        """The known events behind version ``after``; ``None`` when some of them are no longer held."""
        known = self._streams.get(stream)
        if known is None or known.version <= after:
            return ()
        if after < known.start:
            return None
        return known.events[after - known.start :]

    def extend(self, stream: StreamId, events: Sequence[RecordedEvent], after: int) -> None:
        """Learn the events behind version ``after``; what is known already is left as it is."""
        known = self._streams.pop(stream, None)
        if known is None or known.version < after:
            if known is not None:
                self._held -= len(known.events) + 1
            known = _CachedStream(after, after)
            self._held += 1
        elif after == 0 < known.start <= len(events):
            # Its beginning had been let go of.
            known.events = (*events[: known.start], *known.events)
            self._held += known.start
            known.start = 0
        self._streams[stream] = known  # the newest place
        if news := events[known.version - after :]:
            known.events = (*known.events, *news)
            known.version += len(news)
            self._held += len(news)
            if len(known.events) > _MAX_STREAM:
                dropped = len(known.events) - _MAX_STREAM // 2
                known.events = known.events[dropped:]
                known.start += dropped
                self._held -= dropped
        while self._held > self._capacity and len(self._streams) > 1:
            oldest = next(iter(self._streams))
            self._held -= len(self._streams.pop(oldest).events) + 1
