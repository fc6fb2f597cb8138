"""Commands: what an application asks of the store, as classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeAlias, TypeVar, cast, dataclass_transform, final

import msgspec

from eventcore.events import Event, RecordedEvent, StreamId

State = TypeVar("State")

Decision: TypeAlias = Iterable[tuple[StreamId, Event]] | None


# A type checker must know that subclasses are frozen without saying so.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, Generic[State], frozen=True):
    """Base class of commands, generic in the state that a command decides on.

    The *consistency boundary* of a command is every stream that it reads: the fields typed ``StreamId``
    (also ``StreamId | None``, and tuple, list, set or frozenset of ``StreamId``) and what
    ``discover_streams`` returns. The events of these streams are folded to the state. The command
    commits only if none of the streams has changed since it was read; otherwise it is decided again.

    Methods are pure: eventcore may call each of them several times, so they do no I/O.

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
        """The state before the first event: a new object each time if the state is mutable.

        A command that needs no state defines neither this method nor ``apply``.
        """
        return cast(State, None)

    def apply(self, state: State, event: RecordedEvent) -> State:
        """Return the state after ``event``. Events of all streams of the boundary come in order of position.

        The event is shared with other commands: copy a list or dictionary of it before you change it or keep it in the state.
        """
        return state

    def handle(self, state: State) -> Decision:
        """Decide: yield (or return) pairs of a stream of the boundary and an event to append to it.

        A command that has nothing to do yields no pair, or returns ``None``.

        Raises:
            BusinessRuleViolation: raise it to refuse the command; the caller of ``execute`` gets it.
        """
        raise NotImplementedError

    def discover_streams(self, state: State) -> Iterable[StreamId]:
        """Return further streams that the command needs, judging by ``state``.

        Called again with the state of all streams read so far, until it returns no new stream.
        """
        return ()


@final
class CommandResult(msgspec.Struct, frozen=True, gc=False):
    """The result of a command.

    Attributes:
        attempts: attempts that the command took; 1 if no other writer interfered.
        events: the events that it wrote, in order; empty if it had nothing to do. They are the caller's own: changing a list
            inside one of them changes nothing else.
        position: the position of its last event, or, without events, of the last event that it has seen. A read model that has
            reached this position shows everything that the command saw and wrote.
    """

    attempts: int
    events: tuple[RecordedEvent, ...]
    position: int
