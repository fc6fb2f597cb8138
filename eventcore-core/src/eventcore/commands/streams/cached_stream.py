"""One stream in the cache: its newest events in blocks, and its states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast, final

import msgspec

from eventcore.events import RecordedEvent, StreamId, StreamState

STREAM_BYTES: Final = 470
"""Bytes of a stream without events: its id, its struct and its entry in the dictionary. Measured."""

# Events are held in blocks, so that adding one does not copy all.
_BLOCK_EVENTS: Final = 64
_BLOCK_BYTES: Final = 128 << 10
_STATE_BYTES: Final = 320
_set_field: Final = msgspec.structs.force_setattr
# Its stubs leave `__copy__` out.
_copy: Final = cast(Callable[[RecordedEvent], RecordedEvent], msgspec.Struct.__copy__)  # type: ignore[attr-defined]


@final
class KeptState(msgspec.Struct, frozen=True, gc=False):
    """The state of one stream at one version: encoded, or as a state that nothing changes any more.

    Attributes:
        state_type: its class.
        version: the version of the stream that it has seen; 0 before the first event.
        event_id: the id of the event at this version.
        position: the position of this event, or a later one up to which the stream has no further event.
        data: the encoded state; empty if ``whole`` holds it.
        stored_version: the version of the newest stored snapshot, as far as this process knows; 0 without one.
        whole: the state, if all its fields are scalars: then a copy of its fields shares nothing that can be changed.
        whole_size: the bytes that ``whole`` takes.
    """

    state_type: type[StreamState]
    version: int
    event_id: str
    position: int
    data: bytes
    stored_version: int = 0
    whole: StreamState | None = None
    whole_size: int = 0

    @property
    def size(self) -> int:
        """The bytes of the state."""
        return self.whole_size or len(self.data)


class _Block(msgspec.Struct, frozen=True, gc=False):
    events: tuple[RecordedEvent, ...]
    size: int


class CachedStream(msgspec.Struct, gc=False):
    """Consecutive events of one stream: versions ``start + 1`` to ``version``; and its states at some of these versions.

    Attributes:
        blocks: the events that come before ``events``.
        events, size: the newest events, and their bytes.
        blocks_size: the bytes of ``blocks``.
        states: at most one for each class.
        is_folded_whole: whether commands fold the stream from its first event. If not, events before its states need not be
            held.
        has_texts: whether its events have plain texts as the id of the stream, see ``StreamCache.append``.

    The events are tuples, and the struct is not tracked by the garbage collector: a full collection would otherwise walk tens
    of thousands of lists.
    """

    start: int
    version: int
    blocks: tuple[_Block, ...] = ()
    blocks_size: int = 0
    events: tuple[RecordedEvent, ...] = ()
    size: int = 0
    states: tuple[KeptState, ...] = ()
    states_size: int = 0
    contested_until: float = 0.0
    is_folded_whole: bool = False
    has_texts: bool = True

    @property
    def total(self) -> int:
        return STREAM_BYTES + self.blocks_size + self.size + self.states_size

    def behind(self, version: int) -> tuple[RecordedEvent, ...]:
        """The events behind a version, which is not below ``start``."""
        first = self.version - len(self.events)
        if version >= first:
            return self.events[version - first :] if version > first else self.events
        count = 0
        for block in reversed(self.blocks):
            count += 1
            first -= len(block.events)
            if first <= version:
                break
        together: list[RecordedEvent] = []
        for block in self.blocks[len(self.blocks) - count :]:
            together += block.events
        together += self.events
        return tuple(together[version - first :] if version > first else together)

    def add_one(self, event: RecordedEvent, size: int) -> bool:
        """Add the event that follows, unless it begins a new block."""
        if len(self.events) >= _BLOCK_EVENTS or self.size + size > _BLOCK_BYTES:
            return False
        self._share_id((event,))
        self.version += 1
        self.events = (*self.events, event)
        self.size += size
        return True

    def add(self, events: Sequence[RecordedEvent], sizes: Sequence[int]) -> None:
        """Add the events that follow."""
        self._share_id(events)
        self.version += len(events)
        size = sum(sizes)
        if len(self.events) + len(events) <= _BLOCK_EVENTS and self.size + size <= _BLOCK_BYTES:
            self.events = (*self.events, *events)
            self.size += size
            return
        blocks: list[_Block] = []
        block, block_size = self.events, self.size
        begin = 0
        while begin < len(events):
            end, added = _part(sizes, begin, len(block), block_size)
            if begin == end:
                blocks.append(_Block(block, block_size))
                self.blocks_size += block_size
                block, block_size = (), 0
                continue
            block, block_size, begin = (*block, *events[begin:end]), block_size + added, end
        self.blocks = (*self.blocks, *blocks)
        self.events, self.size = block, block_size

    def _share_id(self, events: Sequence[RecordedEvent]) -> None:
        """Let all events of the stream have one object as its id.

        Each command makes an equal one of its own. The garbage collector would visit one for each event, and begin a full
        collection far more often: it does so when the number of objects has grown by a quarter.
        """
        if events and self.events and events[0].stream_id is not (known := self.events[-1].stream_id):
            for event in events:
                _set_field(event, "stream_id", known)

    def shown(self, version: int, stream: StreamId) -> tuple[RecordedEvent, ...]:
        """``behind``, for commands: with ``stream`` as the id."""
        if self.has_texts and self.events:
            self.take_id(stream)
        return self.behind(version)

    def take_id(self, stream: StreamId) -> None:
        """Let all events have this id in place of a text. Blocks begin with ``extend``, which calls this first."""
        self.has_texts = False
        for event in self.events:
            _set_field(event, "stream_id", stream)

    def drop_blocks(self, count: int) -> None:
        """Drop the oldest events, and the states that can no longer be brought up to date without them."""
        for block in self.blocks[:count]:
            self.start += len(block.events)
            self.blocks_size -= block.size
        self.blocks = self.blocks[count:]
        self._drop_early_states()

    def drop_events(self) -> None:
        """Drop all events."""
        self.start, self.blocks, self.blocks_size, self.events, self.size = self.version, (), 0, (), 0
        self._drop_early_states()

    def _drop_early_states(self) -> None:
        if any(state.version < self.start for state in self.states):
            self.put_states(tuple(state for state in self.states if state.version >= self.start))

    def put_states(self, states: tuple[KeptState, ...]) -> None:
        self.states = states
        self.states_size = sum(state.size + _STATE_BYTES for state in states)


def with_text(event: RecordedEvent, text: str) -> RecordedEvent:
    """A copy of an event, with a plain text as the id of its stream."""
    copy = _copy(event)
    _set_field(copy, "stream_id", text)
    return copy


def _part(sizes: Sequence[int], begin: int, held: int, size: int) -> tuple[int, int]:
    """Which events from ``begin`` on fit into a block of ``held`` events and ``size`` bytes: up to which, and their bytes.

    An empty block takes an event of any size.
    """
    end = min(len(sizes), begin + max(0, _BLOCK_EVENTS - held))
    added = sum(sizes[begin:end])
    while end > begin and size + added > _BLOCK_BYTES and (held or end > begin + 1):
        end -= 1
        added -= sizes[end]
    return end, added
