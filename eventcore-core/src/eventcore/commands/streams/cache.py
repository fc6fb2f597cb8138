"""The stream cache: events and states of recently used streams, always a prefix of what the store holds.

Other processes write to the store, too, so the cache may be behind at any time. It is safe to decide on because every append
names the versions that the decision saw, and the store refuses the append if one of them is old.

Loader and batcher share one cache and use it on the event loop only. No method awaits, so each of them is atomic.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import Final, final

from eventcore.commands.streams.cached_stream import STREAM_BYTES, CachedStream, KeptState, with_text
from eventcore.commands.streams.sizes import EventSizes
from eventcore.events import RecordedEvent, StreamId, StreamState

DEFAULT_CACHE_BYTES: Final = 64 << 20

# A stream, or a state, that takes more than this part of the budget is not kept: it would displace too many others.
_LARGEST_PART: Final = 4
# Seconds after an append of another writer was seen during which the cache does not answer for that stream: it would most
# likely be behind, and each decision on it would cost a refused append.
_CONTESTED: Final = 1.0
_by_position: Final = attrgetter("position")


@final
class StreamCache:
    """Least recently used streams are evicted when what is held takes more than ``budget`` bytes.

    A stream whose events fit into a quarter of the budget is held whole, whatever its length; of a larger one, the newest
    events: enough to bring waiting commands up to date.

    Args:
        budget: bytes of memory, as ``EventSizes`` estimates them.

    Attributes:
        epoch: how often the cache was emptied because the store went back in time or events were redacted. Events that were
            taken from the cache in an earlier epoch may no longer exist: loader and batcher compare epochs before they use such
            events.
        sizes: how the memory of events is estimated.
        redactions: how many redactions of the store everything in the cache has seen.
        appending: the streams to which this process is appending. A read may see these events before the append is answered.
    """

    def __init__(self, budget: int = DEFAULT_CACHE_BYTES) -> None:
        self._budget = budget
        self._largest = budget // _LARGEST_PART
        self._held = 0
        # The keys are plain texts, see `append`.
        self._streams: OrderedDict[str, CachedStream] = OrderedDict()
        self.sizes: Final = EventSizes()
        self.epoch = 0
        self.redactions = 0
        self.appending: Collection[StreamId] = ()

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def held(self) -> int:
        """Bytes that are held."""
        return self._held

    @property
    def largest(self) -> int:
        """Bytes of the largest stream that is held whole, and of the largest state."""
        return self._largest

    def forget(self, epoch: int) -> None:
        """Empty the cache: the store has gone back in time, or events were redacted.

        Only the first of several calls with one epoch does something.
        """
        if epoch == self.epoch:
            self.epoch += 1
            self._streams.clear()
            self._held = 0

    def knows(self, stream: StreamId) -> bool:
        """Whether the cache holds something of the stream, and no other writer was seen in it lately."""
        cached = self._streams.get(stream)
        return cached is not None and not (cached.contested_until and cached.contested_until > time.monotonic())

    def is_unknown(self, stream: StreamId) -> bool:
        """Whether the cache holds nothing of the stream, not even its version."""
        return stream not in self._streams

    def version(self, stream: StreamId) -> int:
        """The highest known version of a stream; 0 if the cache does not hold it."""
        cached = self._streams.get(stream)
        return cached.version if cached is not None else 0

    def events(self, stream: StreamId) -> tuple[RecordedEvent, ...] | None:
        """All events of a stream that are known; ``None`` if the cache lacks its beginning."""
        cached = self._streams.get(stream)
        return None if cached is None else self._used(stream, cached)

    def whole(self, stream: StreamId) -> tuple[RecordedEvent, ...] | None:
        """What ``events`` gives of a stream that the cache ``knows``; ``None`` of any other."""
        cached = self._streams.get(stream)
        if cached is None or (cached.contested_until and cached.contested_until > time.monotonic()):
            return None
        return self._used(stream, cached)

    def _used(self, stream: StreamId, cached: CachedStream) -> tuple[RecordedEvent, ...] | None:
        """All events of a stream, which was used now; ``None`` if the cache lacks its beginning."""
        cached.is_folded_whole = True
        if cached.start:
            return None
        self._streams.move_to_end(stream)
        return cached.shown(0, stream)

    def whole_streams(
        self, streams: Iterable[StreamId], most: int, *, speculate: bool
    ) -> tuple[dict[StreamId, int], Sequence[RecordedEvent], bool] | None:
        """All that a command needs that folds the events of some streams: the version of each, the events of all in order of
        position, and whether a stream is taken for empty.

        Args:
            streams: the streams.
            most: the largest number of events.
            speculate: take streams of which the cache holds nothing for empty.

        Returns ``None`` if a stream is incomplete or contested by another writer, or if there are more events.
        """
        versions: dict[StreamId, int] = {}
        found: Sequence[RecordedEvent] = ()
        assumes_empty = several = False
        for stream in streams:
            if (most := most - self.version(stream)) < 0:
                return None
            events = self.whole(stream)
            if events is None:
                if not speculate or stream in self._streams:
                    return None
                versions[stream] = 0
                assumes_empty = True
                continue
            versions[stream] = len(events)
            if not found:
                found = events
            elif events:
                found = (*found, *events)
                several = True
        return versions, sorted(found, key=_by_position) if several else found, assumes_empty

    def state(self, stream: StreamId, state_type: type[StreamState]) -> KeptState | None:
        """The state of a stream, from which ``tail`` leads to its highest known version."""
        cached = self._streams.get(stream)
        if cached is None:
            return None
        self._streams.move_to_end(stream)
        for state in cached.states:
            if state.state_type is state_type:
                return state
        return None

    def state_and_tail(
        self, stream: StreamId, state_type: type[StreamState]
    ) -> tuple[KeptState | None, tuple[RecordedEvent, ...]] | None:
        """The state of a stream that the cache ``knows``, or ``None`` for the one before its first event, and the events that
        lead from it to the highest known version; ``None`` of any other stream, and if some of the events were evicted."""
        cached = self._streams.get(stream)
        if cached is None or (cached.contested_until and cached.contested_until > time.monotonic()):
            return None
        self._streams.move_to_end(stream)
        found = None
        after = 0
        for state in cached.states:
            if state.state_type is state_type:
                found, after = state, state.version
                break
        if cached.version <= after:
            return found, ()
        return None if after < cached.start else (found, cached.shown(after, stream))

    def begins(self, stream: StreamId) -> bool:
        """Whether the cache holds the stream from its first event."""
        cached = self._streams.get(stream)
        return cached is not None and cached.start == 0

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
        return cached.shown(after, stream)

    def append(self, event: RecordedEvent, size: int) -> None:
        """``extend`` by one event.

        Events of a stream are copied, with a plain text as the id of the stream, until a command asks for them: most streams
        that are written are not read soon. Python's garbage collector visits every ``StreamId``, and no text: with
        50,000 new streams, its full collections would take 60 ms each, and a tenth of the time of all commands.
        """
        stream = event.stream_id
        cached = self._streams.get(stream)
        if cached is None:
            if size <= self._largest:
                text = str(stream)
                # At the end, so it is the most recently used one.
                self._streams[text] = CachedStream(event.version - 1, event.version, (), 0, (with_text(event, text),), size)
                self._held += STREAM_BYTES + size
                if self._held > self._budget:
                    self._evict()
                return
        elif cached.version == event.version - 1 and cached.add_one(
            with_text(event, str(stream)) if cached.has_texts else event, size
        ):
            self._streams.move_to_end(stream)
            self._held += size
            if self._held > self._budget:
                self._evict()
            return
        self.extend(stream, (event,), (size,), event.version - 1)

    def extend(self, stream: StreamId, events: Sequence[RecordedEvent], sizes: Sequence[int], after: int) -> None:
        """Add the events behind version ``after``, with their bytes. Events that are already known are not replaced."""
        cached = self._entry(stream, after)
        if cached.has_texts and events:
            cached.take_id(stream)
        held = cached.total
        if after == 0 < cached.start <= len(events):
            # The beginning of the stream was dropped, and is back.
            known, states = cached.behind(cached.start), cached.states
            renewed = CachedStream(
                0, 0, contested_until=cached.contested_until, is_folded_whole=cached.is_folded_whole, has_texts=False
            )
            renewed.add(events[: cached.start], sizes[: cached.start])
            renewed.add(known, [(cached.size + cached.blocks_size) // max(1, len(known))] * len(known))
            renewed.put_states(states)
            self._streams[str(stream)] = cached = renewed
        if skipped := cached.version - after:
            events, sizes = events[skipped:], sizes[skipped:]
        if events:
            cached.add(events, sizes)
            if cached.blocks_size + cached.size > self.largest:
                self._shorten(cached)
        self._held += cached.total - held
        self._evict()

    def keep(self, stream: StreamId, state: KeptState) -> None:
        """Keep a state. A newer one of the same class, or one that the known events do not lead on from, stays away."""
        size = state.whole_size or len(state.data)
        if size > self._largest:
            return
        cached = self._streams.get(stream)
        if cached is not None and cached.version >= state.version and len(cached.states) == 1 and not cached.blocks:
            (known,) = cached.states
            if known.state_type is state.state_type:
                # Nearly all calls.
                self._streams.move_to_end(stream)
                if known.version <= state.version and state.version >= cached.start:
                    grown = size - (known.whole_size or len(known.data))
                    cached.states = (state,)
                    cached.states_size += grown
                    self._held += grown
                    if self._held > self._budget:
                        self._evict()
                return
        cached = self._entry(stream, state.version)
        if state.version < cached.start:
            return
        held = cached.total
        others = tuple(other for other in cached.states if other.state_type is not state.state_type)
        if any(other.version > state.version for other in cached.states if other.state_type is state.state_type):
            return
        cached.put_states((*others, state))
        if not cached.is_folded_whole and len(cached.blocks) > 1 and not others:
            # Commands that wait were read some events ago: one block is left for them.
            earlier = (cached.version - len(cached.events) - len(cached.blocks[-1].events)) <= state.version
            cached.drop_blocks(len(cached.blocks) - 1 if earlier else 0)
        self._held += cached.total - held
        self._evict()

    def know(self, stream: StreamId, version: int) -> None:
        """Note the version of a stream whose events are not wanted."""
        self._entry(stream, version)
        self._evict()

    def _entry(self, stream: StreamId, version: int) -> CachedStream:
        """The entry of a stream, the most recently used now. It begins anew behind a gap, if ``version`` is beyond it."""
        cached = self._streams.get(stream)
        if cached is None or cached.version < version:
            if cached is not None:
                self._held -= cached.total
            renewed = CachedStream(version, version)
            if cached is not None:
                renewed.contested_until, renewed.is_folded_whole = cached.contested_until, cached.is_folded_whole
            self._streams[str(stream)] = cached = renewed
            self._held += cached.total
        self._streams.move_to_end(stream)
        return cached

    def _shorten(self, cached: CachedStream) -> None:
        """Drop the oldest events of a large stream."""
        size, count = cached.blocks_size + cached.size, 0
        for block in cached.blocks:
            if size <= self.largest // 2:
                break
            size -= block.size
            count += 1
        cached.drop_blocks(count)
        if cached.size > self.largest:
            cached.drop_events()

    def _evict(self) -> None:
        while self._held > self._budget and len(self._streams) > 1:
            # An `OrderedDict` finds its first key at once. A `dict` searches for it behind all keys that were deleted before.
            _, oldest = self._streams.popitem(last=False)
            self._held -= oldest.total
