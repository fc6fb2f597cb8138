"""Commands: what an application asks of the store, as classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeAlias, TypeVar, cast, dataclass_transform

import msgspec

from eventcore.events import Event, RecordedEvent, StreamId

State = TypeVar("State")

Decision: TypeAlias = Iterable[tuple[StreamId, Event]] | None


# A type checker must know that subclasses are frozen without saying so.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, Generic[State], frozen=True):
    """Base class of commands, generic in the state that it decides on.

    Every field typed ``StreamId`` (also ``StreamId | None``, and tuple, list, set or frozenset of ``StreamId``) belongs to the
    consistency boundary: its events are folded to the state, and the command commits only if none of these streams has changed
    since, or else decides again. All methods are pure: they may be called several times, and do no I/O.

    >>> class SeatReserved(Event):
    ...     seat: str
    >>> class ReserveSeat(Command[set[str]]):
    ...     flight: StreamId
    ...     seat: str
    ...     def initial_state(self):
    ...         return set()
    ...     def apply(self, state, event):
    ...         return state | {event.data.seat}
    ...     def handle(self, state):
    ...         if self.seat not in state:
    ...             yield self.flight, SeatReserved(seat=self.seat)
    """

    def initial_state(self) -> State:
        """The state before any event, a new object if it can be changed; without a state, leave it and ``apply`` out."""
        return cast(State, None)

    def apply(self, state: State, event: RecordedEvent) -> State:
        """The state after ``event``; events come in order of position, across all streams of the boundary."""
        return state

    def handle(self, state: State) -> Decision:
        """Decide: yield (or return) pairs of a stream of the boundary and an event to append to it.

        No events (or ``None``) means that nothing is to be done.

        Raises:
            BusinessRuleViolation: to refuse; it reaches the caller of ``execute``.
        """
        raise NotImplementedError

    def discover_streams(self, state: State) -> Iterable[StreamId]:
        """Further streams that ``state`` shows to be needed; asked again until it names no new one."""
        return ()
