"""One attempt of one command: its state, and the decision that is made on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final, final

import msgspec

from eventcore.commands.batching import Outcome
from eventcore.commands.command import Command
from eventcore.commands.plan import CommandPlan
from eventcore.errors import InvalidCommand, StoreError
from eventcore.events import Event, EventMetadata, RecordedEvent, StreamId
from eventcore.events.codec import Codec
from eventcore.recording import IdGenerator, Span
from eventcore.stores.base import NewEvent

_MAX_EVENTS: Final = 10_000
_MAX_STREAMS: Final = 1000


@final
class CommandContext(msgspec.Struct, frozen=True, gc=False):
    """What all attempts of one command share."""

    command: Command[Any]
    plan: CommandPlan
    codec: Codec
    ids: IdGenerator
    span: Span
    metadata: EventMetadata
    encoded_metadata: bytes


@final
class Attempt:
    """A command with the state that it has reached; implements ``Candidate``. A new one is made to try again.

    ``failure`` is what the command's own code raised, or what is wrong with its decision. ``missed`` are the events that were
    applied after the state was read; they have their positions once they are committed.
    """

    __slots__ = (
        "_context",
        "_state",
        "chained",
        "decided_in",
        "events",
        "failure",
        "future",
        "missed",
        "one_snapshot",
        "origin",
        "read_from_store",
        "sent",
        "versions",
    )

    def __init__(
        self,
        context: CommandContext,
        state: Any,
        versions: dict[StreamId, int],
        *,
        read_from_store: bool,
        one_snapshot: bool,
        future: asyncio.Future[Outcome | StoreError],
    ) -> None:
        self._context = context
        self._state = state
        self.versions = versions
        self.read_from_store = read_from_store
        self.one_snapshot = one_snapshot
        self.future = future
        self.origin = context.span
        self.sent = False
        self.chained = False
        self.missed: Sequence[RecordedEvent] = ()
        self.events: Sequence[NewEvent] = ()
        self.failure: BaseException | None = None
        self.decided_in = 0.0

    def advance(self, events: Sequence[RecordedEvent]) -> bool:
        """Apply what others have committed, or are about to, since the state was read."""
        self.chained = True
        self.missed = events
        context = self._context
        try:
            apply, state = context.command.apply, self._state
            for event in events:
                state = apply(state, event)
            self._state = state
            return not context.plan.discovers or discovered_streams(context, state, self.versions) == []
        except BaseException as error:  # noqa: BLE001  # it is the caller's, who gets it; others go on
            self.failure = _as_failure(error)
            return True

    def decide(self, now_ns: int) -> Sequence[NewEvent]:
        """Ask the command, and make its events ready to be stored."""
        begun = perf_counter()
        try:
            if self.failure is None:
                self.events = decided_events(self._context, self._state, self.versions, now_ns)
        except BaseException as error:  # noqa: BLE001  # it is the caller's, who gets it; others go on
            self.failure = _as_failure(error)
        self.decided_in = perf_counter() - begun
        return self.events


def decided_events(context: CommandContext, state: Any, versions: Mapping[StreamId, int], now_ns: int) -> Sequence[NewEvent]:
    """What the command decides on ``state``, made ready to be stored behind ``versions``, those of its boundary.

    Raises:
        InvalidCommand: what ``handle`` yields is not what a command may yield.
        InvalidEvent: an event could not be read back.
    """
    decision = context.command.handle(state)
    if decision is None:
        return ()
    written: dict[StreamId, int] = {}
    events: list[NewEvent] = []
    if not isinstance(decision, Iterable):
        raise InvalidCommand(
            f"{context.plan.name}.handle returned {decision!r:.80}; expected pairs of StreamId and Event, or None"
        )
    for pair in decision:
        try:
            stream, event = pair
        except (TypeError, ValueError):
            raise _wrong_pair(context, pair) from None
        if not isinstance(event, Event):
            raise _wrong_pair(context, pair)
        version = written.get(stream)
        if version is None:
            version = versions.get(stream)
            if version is None or type(stream) is not StreamId:
                raise _wrong_stream(context, stream, versions)
        written[stream] = version = version + 1
        data, twin = context.codec.encode(event)
        recorded = RecordedEvent(
            stream, version, 0, twin, context.metadata, context.ids.hex32(), type(event).event_type, now_ns
        )
        events.append(NewEvent(recorded, data, context.encoded_metadata))
        if len(events) > _MAX_EVENTS:
            raise InvalidCommand(f"{context.plan.name}.handle yields more than {_MAX_EVENTS} events; split the command")
    return events


def discovered_streams(context: CommandContext, state: Any, known: Mapping[StreamId, int]) -> list[StreamId]:
    """The streams that the command asks for and that are not ``known``.

    Raises:
        InvalidCommand: it names something else, or more than 1,000 streams in all.
    """
    name = context.plan.name
    wanted = context.command.discover_streams(state)
    new: dict[StreamId, None] = {}
    for stream in wanted:
        if type(stream) is not StreamId:
            raise InvalidCommand(
                f"{name}.discover_streams names {stream!r:.80} of type {type(stream).__name__}; expected StreamId"
            )
        if stream not in known:
            new[stream] = None
    if len(known) + len(new) > _MAX_STREAMS:
        raise InvalidCommand(f"{name}.discover_streams asks for more than {_MAX_STREAMS} streams; narrow the boundary")
    return list(new)


def _as_failure(error: BaseException) -> BaseException:
    if not isinstance(error, asyncio.CancelledError):
        return error
    # A cancellation that the command raises itself must not be taken for one of whoever decides it.
    wrapped = InvalidCommand(f"the command raised {type(error).__name__}, which only asyncio may")
    wrapped.__cause__ = error
    return wrapped


def _wrong_pair(context: CommandContext, pair: object) -> InvalidCommand:
    return InvalidCommand(
        f"{context.plan.name}.handle yields {pair!r:.80} of type {type(pair).__name__}; expected a pair of StreamId and Event"
    )


def _wrong_stream(context: CommandContext, stream: object, versions: Mapping[StreamId, int]) -> InvalidCommand:
    name = context.plan.name
    if type(stream) is not StreamId:
        return InvalidCommand(f"{name}.handle writes to {stream!r:.80} of type {type(stream).__name__}; expected StreamId")
    boundary = ", ".join(sorted(versions)[:10])
    return InvalidCommand(
        f"{name}.handle writes to the stream {stream!r}, which it does not read; make it a field typed StreamId or return "
        f"it from discover_streams (its boundary is: {boundary})"
    )
