"""Given, when, then: test what a command decides on a history of events, without a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextvars import copy_context
from difflib import ndiff
from typing import Any, Final, TypeAlias, final

import msgspec

from eventcore.commands import Command
from eventcore.commands.boundary import StreamStates
from eventcore.commands.context import CommandContext
from eventcore.commands.fields import Needs
from eventcore.commands.plan import CommandPlan
from eventcore.commands.streams.speculation import Speculation
from eventcore.errors import BusinessRuleViolation, InvalidCommand, InvalidEvent
from eventcore.events import Event, EventMetadata, RecordedEvent, StreamId
from eventcore.events.codec import Codec
from eventcore.recording import IdGenerator, RateSampler, SilentTracer

Happened: TypeAlias = tuple[StreamId, Event]
"""A stream and an event in it, as ``Command.handle`` yields them."""

_MAX_ROUNDS: Final = 100
_LONGEST_HISTORY: Final = 20


def given(*events: Happened) -> Given:
    """Start a scenario with a history.

    Args:
        events: pairs of a stream and an event, in the order in which they happened.

    Raises:
        InvalidEvent: an event could not be stored.
        TypeError: an argument is not such a pair.

    >>> class Deposited(Event):
    ...     event_type = "doc.Deposited"
    ...     amount: int
    >>> class Withdrawn(Event):
    ...     event_type = "doc.Withdrawn"
    ...     amount: int
    >>> class Withdraw(Command[int]):
    ...     account: StreamId
    ...     amount: int
    ...     def initial_state(self):
    ...         return 0
    ...     def apply(self, balance, event):
    ...         return balance + (event.data.amount if isinstance(event.data, Deposited) else -event.data.amount)
    ...     def handle(self, balance):
    ...         if balance < self.amount:
    ...             raise BusinessRuleViolation(f"there are only {balance}")
    ...         yield self.account, Withdrawn(amount=self.amount)
    >>> alice = StreamId("account-alice")
    >>> after = given((alice, Deposited(amount=10))).when(Withdraw(account=alice, amount=7)).then((alice, Withdrawn(amount=7)))

    ``then`` returns the history with the new events, for the next step.

    >>> after.when(Withdraw(account=alice, amount=4)).then_refused(match="only 3")
    >>> after.when(Withdraw(account=alice, amount=3)).then((alice, Withdrawn(amount=4)))
    Traceback (most recent call last):
    AssertionError: Withdraw(account=StreamId('account-alice'), amount=3) writes other events than expected
    ('-' is expected only, '+' is written only):
    - account-alice  Withdrawn(amount=4)
    ?                                 ^
    + account-alice  Withdrawn(amount=3)
    ?                                 ^
    given:
      account-alice  Deposited(amount=10)
      account-alice  Withdrawn(amount=7)
    """
    return Given(()).given(*events)


@final
class Given:
    """A history of events. Made by ``given`` and by ``When.then``."""

    def __init__(self, history: tuple[RecordedEvent, ...]) -> None:
        self._history = history

    @property
    def history(self) -> tuple[RecordedEvent, ...]:
        """The events as a store would record them."""
        return self._history

    def given(self, *events: Happened) -> Given:
        """Return the history with further events."""
        history, codec = list(self._history), Codec()
        versions: dict[StreamId, int] = {event.stream_id: event.version for event in history}
        for pair in events:
            stream, event = _checked(pair)
            _, twin = codec.encode(event)
            versions[stream] = version = versions.get(stream, 0) + 1
            position = len(history) + 1
            history.append(
                RecordedEvent(stream, version, position, twin, EventMetadata(), f"{position:032x}", type(event).event_type, 0)
            )
        return Given(tuple(history))

    def when(self, command: Command[Any]) -> When:
        """Let a command decide on the history. It reads the streams that it names, and those that it discovers.

        The command is decided twice, each time on a new state, because a store may do that, too.

        Raises:
            InvalidCommand, InvalidEvent: a store could not execute the command, or could not store its events.
            AssertionError: the two decisions differ.
        """
        first, again = _decide(command, self._history), _decide(command, self._history)
        if first.comparable() != again.comparable():
            raise AssertionError(
                f"{command!r:.200} decides differently when it is asked again: {first} and then {again}; initial_state must "
                "give a new state each time, and handle must be pure (times, random numbers and ids are fields of the command)"
            )
        return When(self, command, first)


@final
class When:
    """The decision of a command. Made by ``Given.when``; check it with ``then`` or ``then_refused``."""

    def __init__(self, given: Given, command: Command[Any], decision: _Decision) -> None:
        self._given = given
        self._command = command
        self._decision = decision

    @property
    def events(self) -> tuple[Happened, ...]:
        """The events that the command writes; none if it refuses."""
        return self._decision.events

    def then(self, *events: Happened) -> Given:
        """Check that the command writes exactly these events, in this order. Without arguments: that it writes nothing.

        Returns the history with the events.

        Raises:
            AssertionError: the decision is another one. The message shows the difference and the history.
        """
        decision = self._decision
        expected = tuple(_checked(pair) for pair in events)
        if decision.refusal is not None:
            raise AssertionError(
                f"{self._command!r:.200} {decision}, and should write:\n{_indented(_lines(expected))}{self._shown_history()}"
            ) from decision.refusal
        if decision.events != expected:
            difference = "\n".join(line.rstrip("\n") for line in ndiff(_lines(expected), _lines(decision.events)))
            raise AssertionError(
                f"{self._command!r:.200} writes other events than expected\n('-' is expected only, '+' is written only):\n"
                f"{difference}{self._shown_history()}"
            )
        return self._given.given(*events)

    def then_refused(self, error: type[Exception] = BusinessRuleViolation, *, match: str | None = None) -> None:
        """Check that the command refuses.

        Args:
            error: the class of the exception that it must raise.
            match: a regular expression to find in the message of the exception.

        Raises:
            AssertionError: the command decides otherwise. The message shows the decision and the history.
        """
        refusal = self._decision.refusal
        expected = error.__name__ if match is None else f"{error.__name__} with a message that matches {match!r}"
        if not isinstance(refusal, error) or (match is not None and not re.search(match, str(refusal))):
            raise AssertionError(
                f"{self._command!r:.200} {self._decision}, and should be refused by {expected}{self._shown_history()}"
            ) from refusal

    def _shown_history(self) -> str:
        history = self._given.history
        shown = history[-_LONGEST_HISTORY:]
        omitted = f"  … {len(history) - len(shown)} events before\n" if len(shown) < len(history) else ""
        events = [(event.stream_id, event.data) for event in shown]
        return f"\ngiven:\n{omitted}{_indented(_lines(events))}" if shown else "\ngiven: nothing"


@final
class _Decision(msgspec.Struct, frozen=True):
    events: tuple[Happened, ...] = ()
    refusal: Exception | None = None

    def comparable(self) -> object:
        return self.events if self.refusal is None else (type(self.refusal), str(self.refusal))

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"raises {type(self.refusal).__name__}: {self.refusal}"
        return f"writes {', '.join(_lines(self.events))}" if self.events else "writes nothing"


def _decide(command: Command[Any], history: Sequence[RecordedEvent]) -> _Decision:
    if not isinstance(command, Command):
        raise InvalidCommand(
            f"when got {command!r:.80} of type {type(command).__name__}; expected an instance of a class derived from Command"
        )
    plan, ids = CommandPlan(type(command)), IdGenerator()
    metadata = EventMetadata(plan.name)
    span = SilentTracer(RateSampler(0), ids).span(plan.name)
    context = CommandContext(command, plan, Codec(), ids, Speculation("off"), span, metadata, b"{}", copy_context())
    try:
        state, versions = _load(context, history)
        events = context.decide(state, versions, 0)
    except (InvalidCommand, InvalidEvent):
        raise
    except Exception as error:  # noqa: BLE001  # the command's own error: `then` checks whether it is expected
        return _Decision(refusal=error)
    return _Decision(tuple((new.recorded.stream_id, new.recorded.data) for new in events))


def _load(context: CommandContext, history: Sequence[RecordedEvent]) -> tuple[Any, dict[StreamId, int]]:
    """Fold the streams of the command, discovered ones included. Returns the state and the versions of the streams."""
    command, plan = context.command, context.plan
    streams = dict(plan.streams(command))
    for _ in range(_MAX_ROUNDS):
        versions = dict.fromkeys(streams, 0)
        state = command.initial_state()
        if plan.has_states:
            state = StreamStates({stream: kind() for stream, kind in streams.items() if not isinstance(kind, str)})
        for event in history:
            if event.stream_id in versions:
                versions[event.stream_id] = event.version
                state = context.apply(state, [event])
        new: Needs = context.discover(state, versions) if plan.discovers else {}
        if not new:
            if not streams:
                raise InvalidCommand(f"{plan.name} has no stream: its fields name none, and discover_streams found none")
            return state, versions
        streams.update(new)
    raise InvalidCommand(f"{plan.name}.discover_streams names new streams after {_MAX_ROUNDS} rounds; narrow the boundary")


def _checked(pair: Happened) -> Happened:
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Event):
        raise TypeError(f"{pair!r:.80} of type {type(pair).__name__}; expected a pair of StreamId and Event")
    return StreamId(pair[0]), pair[1]


def _lines(events: Iterable[Happened]) -> list[str]:
    return [f"{stream}  {event!r}" for stream, event in events]


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines) if lines else "  nothing"
