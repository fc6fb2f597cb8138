"""How many redactions the commands of this process have seen."""

from __future__ import annotations

from typing import Final, final

from eventcore.stores.base import EventsRedacted

_ANY: Final = 2**62


@final
class SeenRedactions:
    """The number of redactions that everything which commands keep of a store has seen. Belongs to one event loop.

    It is unknown until commands have read something, and again once the store has refused an append: the commands then forget
    what they keep, and the next read tells the number.
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

    def forget(self) -> None:
        """The commands forget what they keep: the store has refused an append."""
        self._count = None


def redacted(count: int) -> EventsRedacted:
    """The error for a store that has ``count`` redactions."""
    return EventsRedacted(f"the store now has {count} redactions; what was read before must be read again")
