"""The classes from which an application declares its projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, final, get_args

import msgspec

from eventcore.events import Event, Unknown
from eventcore.ground import backoff
from eventcore.ground.arguments import are_delays

ThenPolicy: TypeAlias = Literal["stop", "skip", "dead_letter"]


@final
class OnError(msgspec.Struct, frozen=True):
    """What to do with an event that a projection cannot apply: try it again ``retries`` times, then do what ``then`` says.

    The wait before a retry is a random time between half of a limit and the limit, which doubles with each retry. (The
    randomness keeps projections that failed together from retrying together.)

    Args:
        retries: how often to try again, 0 or more.
        base_delay: the limit before the first retry, in seconds.
        max_delay: the largest limit, in seconds, up to 3600.
        then: ``"stop"`` the projection, ``"skip"`` the event, or keep it in the store as a ``"dead_letter"`` and go on.

    Raises:
        ValueError: a value is out of its range.

    >>> policy = OnError(retries=3, base_delay=0.1, max_delay=10.0, then="dead_letter")
    >>> 0.2 <= policy.delay(3) <= 0.4
    True
    """

    retries: int = 5
    base_delay: float = 0.1
    max_delay: float = 10.0
    then: ThenPolicy = "stop"

    def __post_init__(self) -> None:
        if type(self.retries) is not int or not 0 <= self.retries <= 1_000_000:
            raise ValueError(f"OnError: retries={self.retries!r}; expected an int from 0 to 1000000")
        if not are_delays(self.base_delay, self.max_delay):
            raise ValueError(
                f"OnError: base_delay={self.base_delay!r}, max_delay={self.max_delay!r}; "
                "expected seconds with 0 <= base_delay <= max_delay <= 3600"
            )
        if self.then not in get_args(ThenPolicy):
            raise ValueError(f"OnError: then={self.then!r}; expected one of {', '.join(get_args(ThenPolicy))}")

    def delay(self, retry: int) -> float:
        """Seconds to wait before a retry, which is numbered from 1."""
        return backoff(retry, self.base_delay, self.max_delay)


class Projection:
    """Base class of projections.

    A projection gets the events of a store in their global order, and derives something from them: a table to read from, a
    message to send.

    A subclass has a ``name`` and one handler: the method ``handle(event)`` or ``handle_batch(events)``, as ``def`` or
    ``async def``. A ``def`` runs on the event loop and must not block. Each event is applied at least once: after a crash, the
    events since the last checkpoint are applied again.

    A handler with a second parameter, named ``transaction``, runs inside the transaction that also moves the checkpoint. What
    it writes through the transaction is therefore written exactly once. The store decides its form:

    - SQLite: ``def``, with methods of ``sqlite3.Connection``. It runs in the writer thread, so commands wait meanwhile.
    - PostgreSQL: ``async def``, with methods of the ``asyncpg`` connection.
    - Memory: either, with ``None``, since there is no transaction.

    The handler cannot end the transaction, nor use it after it has returned: that raises ``InvalidProjection``.

    A handler without a transaction may have a second parameter named ``fence``: the token of the lease, an ``int`` that only
    grows. Send it with each write, and let the receiver refuse a smaller token than the highest that it has seen.

    Attributes:
        name: 1 to 128 of ``a-z 0-9 _ . -``, a letter first. The store keeps the checkpoint under this name.
        pattern: gives the projection only streams whose whole id matches, as for ``EventStore.read_all``.
        event_types: gives it only events of these classes, or stored types.
        on_error: what to do with an event that cannot be applied.
        unknown: what to do with an event whose type no class of this process has: ``"error"`` treats it as an event that cannot
            be applied, ``"raw"`` gives it to the handler as a ``RawEvent``.
        version: 1 or more. From 2 on, the checkpoint is kept under ``name@version``, so that a new version starts at the first
            event while the old one runs on.
        batch_size: the largest number of events that are applied before a checkpoint, from 1 to 10,000. Batches are smaller
            when the handler is slow.

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
    unknown: Unknown = "error"
    version: int = 1
    batch_size: int = 1000
