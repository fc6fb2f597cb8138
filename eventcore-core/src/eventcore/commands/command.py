"""Commands: what an application asks of the store, as classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar, cast, dataclass_transform, final

import msgspec

from eventcore.commands.fields import StateType, UnresolvedAnnotation, field_types
from eventcore.errors import InvalidCommand
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

    There are two ways to a state. Either the command folds the events of all its streams itself, in ``initial_state`` and
    ``apply``. Or its fields are annotated with classes of stream states, ``Annotated[StreamId, Account]``; then the state is a
    mapping of these streams to their states, ``Command[Mapping[StreamId, Account]]``: copies that the command may change. Such
    states are kept between commands (see ``StreamState``); streams without such a class are checked and not folded.

    Methods are pure: eventcore may call each of them several times, so they do no I/O.

    Raises:
        InvalidCommand: (when the class is defined) one of its methods is ``async``; (then, or when it is first used if an
            annotation cannot be resolved before) a field may hold a stream that would not be part of the boundary.

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("initial_state", "apply", "handle", "discover_streams"):
            method = getattr(cls, name)
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                raise InvalidCommand(
                    f"{cls.__name__}.{name} is async; expected a plain method: it is called again in every attempt and does no "
                    "I/O. Read what it needs before, and pass it as a field"
                )
        with suppress(UnresolvedAnnotation):
            field_types(cls)

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

    def discover_streams(self, state: State) -> Iterable[StreamId] | Mapping[StreamId, StateType]:
        """Return further streams that the command needs, judging by ``state``.

        A mapping of streams to classes of stream states asks for these states. Called again with the state of all streams read
        so far, until it returns no new stream.
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
