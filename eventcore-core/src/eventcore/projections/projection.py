"""Projections: what an application derives from the global order, as classes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, TypeAlias, final, get_args

import msgspec

from eventcore.events import Event

LastResort: TypeAlias = Literal["stop", "skip", "dead_letter"]


@final
class OnError(msgspec.Struct, frozen=True):
    """What happens when a projection cannot apply an event: it is tried again, and then ``then``.

    Each retry waits a random time up to a limit that doubles (full jitter), at least half of it.

    Args:
        retries: how often to try again, 0 or more.
        base_delay: the limit before the first retry, in seconds.
        max_delay: the largest limit, in seconds.
        then: ``"stop"`` the projection, ``"skip"`` the event, or keep it as a ``"dead_letter"`` and go on.

    Raises:
        ValueError: a value is out of its range.

    >>> OnError(retries=3, then="dead_letter").then
    'dead_letter'
    """

    retries: int = 5
    base_delay: float = 0.1
    max_delay: float = 10.0
    then: LastResort = "stop"

    def __post_init__(self) -> None:
        if type(self.retries) is not int or not 0 <= self.retries <= 1_000_000:
            raise ValueError(f"OnError: retries={self.retries!r}; expected an int from 0 to 1000000")
        if not 0 <= self.base_delay <= self.max_delay <= 3600:
            raise ValueError(
                f"OnError: base_delay={self.base_delay!r}, max_delay={self.max_delay!r}; "
                "expected seconds with 0 <= base_delay <= max_delay <= 3600"
            )
        if self.then not in get_args(LastResort):
            raise ValueError(f"OnError: then={self.then!r}; expected one of {', '.join(get_args(LastResort))}")

    def delay(self, retry: int) -> float:
        """Seconds to wait before the given retry (from 1)."""
        # The exponent is bounded so that the power cannot overflow.
        limit = min(self.max_delay, self.base_delay * 2.0 ** min(retry - 1, 60))
        return random.uniform(limit / 2, limit)


class Projection:
    """Base class of projections: a read model, or a reaction, that follows the events of a store in their global order.

    A subclass has a ``name`` and one method: ``handle(event)``, or ``handle_batch(events)``; ``def`` or ``async def``. Each
    event is applied at least once: after a crash some come again. With a second parameter, ``transaction``, the method runs
    inside the transaction of the store that also keeps the checkpoint, so that what it writes there is written exactly once:

    - SQLite: ``def``, with the ``sqlite3.Connection``, in the thread that writes; commands wait meanwhile.
    - PostgreSQL: ``async def``, with the ``asyncpg`` connection.
    - In memory there is no transaction: it is ``None``.

    A ``def`` method without it runs on the event loop: it must not block.

    Attributes:
        name: lower case, digits, ``_ . -``, beginning with a letter, up to 128 characters. The checkpoint is kept under it.
        pattern: only streams whose whole id matches, as for ``EventStore.read_all``.
        event_types: only events of these classes, or stored types.
        on_error: what to do with an event that cannot be applied.
        version: from 2 on, the checkpoint is kept under ``name@version``, so that a new version is built from the first event
            beside the old one.
        batch_size: the most events that are applied before a checkpoint, from 1 to 10,000; fewer when they take long.

    >>> class Greeted(Event):
    ...     name: str
    >>> class Greetings(Projection):
    ...     name = "greetings"
    ...     event_types = (Greeted,)
    ...     def __init__(self):
    ...         self.names = []
    ...     def handle(self, event):
    ...         self.names.append(event.data.name)
    """

    name: str
    pattern: str | None = None
    event_types: Sequence[str | type[Event]] | None = None
    on_error: OnError = OnError()
    version: int = 1
    batch_size: int = 1000
