"""Speculation: a command is decided as if streams that this process has never seen were empty, instead of reading them first.

The append checks the guess: the command names version 0 for these streams. If it was right, the command took one call to the
store instead of two. If not, the store refuses the append, and the command is decided again on what the streams really hold.
To the command, such a state is one more that is *not confirmed*, like a state from the cache: whatever its code raises on it,
and a decision to write nothing, counts only after a read.

Whether it pays is learned for each class of commands: a guess that was wrong costs more than the read it was to save.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, final

import msgspec

from eventcore.commands.streams.cache import StreamCache
from eventcore.errors import StoreError
from eventcore.events import StreamId
from eventcore.events.codec import Codec, StoredEvent
from eventcore.stores.values import Refused

SpeculationMode: TypeAlias = Literal["learn", "on", "off"]
"""``learn``: as the commands of a class show. ``on`` and ``off`` force it, for tests."""

_MODES: Final[tuple[SpeculationMode, ...]] = ("learn", "on", "off")
_VARIABLE: Final = "EVENTCORE_SPECULATION"
# The share of commands for which a guess is, or would be, right: speculation begins above the first one and stops below the
# second one. In between it stays as it is, so that it does not begin and stop all the time.
_BEGIN_ABOVE: Final = 0.95
_STOP_BELOW: Final = 0.90
# Below this share, only one of so many commands is looked at; after one for which a guess were right, the whole window.
_CLEARLY_NOT: Final = 0.5
_ONE_OF: Final = 16
# The share is the mean of so many commands, the newest ones with more weight; and of at least so many.
_WINDOW: Final = 64
_AT_LEAST: Final = 16


def speculation_mode() -> SpeculationMode:
    """The mode that ``EVENTCORE_SPECULATION`` forces; ``learn`` if it is not set.

    Raises:
        ValueError: it has another value.
    """
    given = os.environ.get(_VARIABLE, "learn")
    for mode in _MODES:
        if mode == given:
            return mode
    raise ValueError(f"{_VARIABLE}={given!r:.40}; expected one of {', '.join(_MODES)}")


@final
class Speculation:
    """Whether the commands of one class are decided before streams that the cache does not know are read.

    Attributes:
        active: whether they are.
        learns: whether that may change.
    """

    __slots__ = ("_count", "_share", "_to_look", "_unseen", "active", "learns")

    def __init__(self, mode: SpeculationMode) -> None:
        self.active = mode == "on"
        self.learns: Final = mode == "learn"
        self._share = 0.0
        self._count = 0
        self._to_look = _WINDOW
        self._unseen = 0

    def looks(self) -> bool:
        """Whether to look at the next command that is read: whether the streams unknown to the cache are empty.

        While they clearly are not, most commands need not pay for it.
        """
        if self._to_look:
            return self.learns
        self._unseen += 1
        if self._unseen < _ONE_OF:
            return False
        self._unseen = 0
        return self.learns

    def learn(self, *, right: bool) -> None:
        """Note a command that named streams unknown to the cache: whether they were empty, and it wrote to the store."""
        if not self.learns or (right and self._share == 1.0 and self._count == _WINDOW):
            return
        if right or self._share >= _CLEARLY_NOT:
            self._to_look = _WINDOW
        elif self._to_look:
            self._to_look -= 1
        if self._count < _WINDOW:
            self._count += 1
        self._share += (right - self._share) / self._count
        if self.active:
            self.active = self._share >= _STOP_BELOW
        elif self._share > _BEGIN_ABOVE:
            self.active = self._count >= _AT_LEAST


@final
class Refusal(msgspec.Struct, frozen=True, gc=False):
    """What an append has found in the streams of the commands that it refused.

    Attributes:
        found: the versions, the head position, and rows, which are in the cache now.
        cache_epoch: the epoch of the cache when they were added to it.
    """

    found: Refused
    cache_epoch: int


@final
class RefusedStreams:
    """Takes what an append has found in the streams of refused requests into the cache, so that no read is needed."""

    def __init__(self, codec: Codec, cache: StreamCache) -> None:
        # A command that needs the events reads them if they cannot be decoded, which then counts.
        self._codec = codec.uncounted()
        self._cache = cache

    def learn(self, refused: Refused) -> Refusal:
        """Add the rows to the cache. Streams in which another process writes are contested, the others are not."""
        cache = self._cache
        cache.redactions = refused.redactions
        for stream, version in refused.versions.items():
            known = cache.version(stream)
            if known < version and (rows := refused.rows.get(stream)):
                self._add(stream, rows)
            if 0 < known < version:
                cache.contest(stream)
        return Refusal(refused, cache.epoch)

    def _add(self, stream: StreamId, rows: Sequence[StoredEvent]) -> None:
        size_of = self._cache.sizes.of
        try:
            events = [self._codec.decode(row, stream) for row in rows]
        except StoreError:
            # A command that needs these events reads them, and gets the error.
            return
        sizes = [size_of(event, len(row.data)) for event, row in zip(events, rows, strict=True)]
        self._cache.extend(stream, events, sizes, rows[0].version - 1)
