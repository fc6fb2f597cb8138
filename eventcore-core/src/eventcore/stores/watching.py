"""What the log of a process watches: the head position, and how many redactions its commands have seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, final

from eventcore.stores.values import EventsRedacted

# Seconds between polls of the head position, which another process may have moved.
_POLL: Final = 0.05
_ANY: Final = 2**62


@final
class LocalHeadWatch:
    """Wakes waiting readers when the head position moves: at once after an append of this backend, by polling after others.

    Args:
        poll: reads the head position of the store; ``None`` for a store that only this backend writes.
    """

    def __init__(self, poll: Callable[[], Awaitable[int]] | None = None) -> None:
        self._poll = poll
        self._head = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def advance(self, head: int) -> None:
        """Wake the waiting readers: this backend has appended up to ``head``."""
        if head > self._head:
            self._head = head
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``."""
        deadline = monotonic() + timeout
        while (head := await self._current(position)) <= position and (remaining := deadline - monotonic()) > 0:
            await self._moved(remaining if self._poll is None else min(remaining, _POLL))
        return head

    async def _current(self, position: int) -> int:
        # A head position that is above `position` already needs no call to the store.
        if self._poll is not None and self._head <= position:
            self._head = max(self._head, await self._poll())
        return self._head

    async def _moved(self, timeout: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            self._waiting.discard(future)


@final
class SeenRedactions:
    """The number of redactions that everything which commands keep of a store has seen. Belongs to one event loop.

    It is unknown until commands have read or appended something, and again once the store has refused an append: the commands
    then forget what they keep, and the next call tells the number.
    """

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether commands may keep something."""
        return self._count is not None

    @property
    def at_most(self) -> int:
        """The largest number of redactions under which an append may be stored; no limit while the number is unknown."""
        return _ANY if self._count is None else self._count

    def observe(self, count: int) -> None:
        """Compare with the number that a read of a command has found.

        A smaller one counts, too: the read began before another call noticed the redaction, or a failover has lost it.

        Raises:
            EventsRedacted: the numbers differ.
        """
        seen, self._count = self._count, count
        if seen is not None and seen != count:
            raise redacted(count)

    def appended(self, count: int) -> None:
        """Note the number that an accepted append has found, unless it is known: commands keep the events from then on."""
        if self._count is None:
            self._count = count

    def forget(self) -> None:
        """The commands forget what they keep: the store has refused an append."""
        self._count = None


def redacted(count: int) -> EventsRedacted:
    """The error for a store that has ``count`` redactions."""
    return EventsRedacted(f"the store now has {count} redactions; what was read before must be read again")
