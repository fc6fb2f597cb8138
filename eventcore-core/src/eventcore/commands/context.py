"""One command with everything its methods need; what the methods return is checked here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextvars import Context, copy_context
from types import GeneratorType
from typing import Any, Final, cast, final

import msgspec

from eventcore.catalogue import CommandInstruments
from eventcore.commands.command import Command
from eventcore.commands.fields import Need, Needs
from eventcore.commands.plan import CommandPlan
from eventcore.commands.streams.speculation import Speculation, SpeculationMode
from eventcore.errors import InvalidCommand
from eventcore.events import Event, EventMetadata, RecordedEvent, StreamId, StreamState
from eventcore.events.codec import Codec
from eventcore.events.stream_state import returned_a_value
from eventcore.recording import IdGenerator, Span, traceparent_of
from eventcore.stores.values import NewEvent

_MAX_EVENTS: Final = 10_000
_MAX_STREAMS: Final = 1000
_ITERABLE: Final[frozenset[type]] = frozenset({GeneratorType, list, tuple})


@final
class CommandContext(msgspec.Struct, frozen=True, gc=False):
    """What all attempts of one command share: the command, its span, and the metadata of its events.

    Attributes:
        surroundings: a copy of the caller's context, in which the command's span is current in all tracing systems. The
            command's code runs in it where another task runs that code: the loader's or the batcher's.
    """

    command: Command[Any]
    plan: CommandPlan
    codec: Codec
    ids: IdGenerator
    speculation: Speculation
    span: Span
    metadata: EventMetadata
    encoded_metadata: bytes
    surroundings: Context

    def decide(self, state: Any, versions: Mapping[StreamId, int], now_ns: int) -> Sequence[NewEvent]:
        """Call ``handle`` and prepare its events for an append.

        Args:
            state: what the command decides on.
            versions: the version of each stream that the command reads; new events get the next versions.
            now_ns: the time to record in the events, in nanoseconds since the Unix epoch.

        Raises:
            InvalidCommand: ``handle`` yields something that a command may not yield.
            InvalidEvent: an event could not be read back.
        """
        decision = self.command.handle(state)
        if decision is None:
            return ()
        # Asking an abstract class takes half a microsecond, and most commands are generators.
        if type(decision) not in _ITERABLE and not isinstance(decision, Iterable):
            raise self._invalid(f"handle returned {decision!r:.80}; expected pairs of StreamId and Event, or None")
        written: dict[StreamId, int] = {}
        events: list[NewEvent] = []
        encode, new_id, metadata, encoded_metadata = self.codec.encode, self.ids.hex32, self.metadata, self.encoded_metadata
        for pair in decision:
            try:
                stream, event = pair
            except (TypeError, ValueError):
                raise self._wrong_pair(pair) from None
            if not isinstance(event, Event):
                raise self._wrong_pair(pair)
            version = written.get(stream)
            if version is None:
                version = versions.get(stream)
                if version is None or type(stream) is not StreamId:
                    raise self._wrong_stream(stream, versions)
            written[stream] = version = version + 1
            data, twin = encode(event)
            recorded = RecordedEvent(stream, version, 0, twin, metadata, new_id(), event.event_type, now_ns)
            events.append(NewEvent(recorded, data, encoded_metadata))
            if len(events) > _MAX_EVENTS:
                raise self._invalid(f"handle yields more than {_MAX_EVENTS} events; split the command")
        return events

    def apply(self, state: Any, events: Sequence[RecordedEvent]) -> Any:
        """The state after further events of its streams, in order of position."""
        if self.plan.folds:
            apply = self.command.apply
            for event in events:
                state = apply(state, event)
        elif self.plan.has_states:
            for event in events:
                stream_state = state.get(event.stream_id)
                if stream_state is not None and stream_state.apply(event) is not None:
                    raise returned_a_value(stream_state)
        return state

    def discover(self, state: Any, versions: Mapping[StreamId, int]) -> Needs:
        """Call ``discover_streams``; return the streams that ``versions`` lacks, and those whose states ``state`` lacks.

        Raises:
            InvalidCommand: the command returns something other than stream ids and classes of states, two classes for one
                stream, or needs more than 1,000 streams.
        """
        new: dict[StreamId, Need] = {}
        found = self.command.discover_streams(state)
        if isinstance(cast(object, found), str):
            raise self._invalid(
                f"discover_streams returned {found!r:.80}, a text and no list of streams; return [StreamId({str(found)!r:.80})]"
            )
        if not isinstance(cast(object, found), Iterable):
            expected = "StreamIds, a mapping of them to classes of StreamState, or an empty list"
            raise self._invalid(f"discover_streams returned {found!r:.80}; expected {expected}")
        state_types = cast(Mapping[object, object], found if isinstance(found, Mapping) else {})
        for stream in found:
            if type(stream) is not StreamId:
                kind = type(stream).__name__
                raise self._invalid(f"discover_streams names {stream!r:.80} of type {kind}; expected StreamId")
            need = self._need(stream, state_types.get(stream))
            if stream not in versions:
                self.plan.add(new, stream, need)
            elif not isinstance(need, str):
                if (known := state.get(stream)) is None:
                    new[stream] = need
                else:
                    self.plan.add({stream: type(known)}, stream, need)
        if len(versions) + len(new) > _MAX_STREAMS:
            raise self._invalid(f"discover_streams asks for more than {_MAX_STREAMS} streams; narrow the boundary")
        return new

    def _need(self, stream: StreamId, state_type: object) -> Need:
        if state_type is None:
            return self.plan.default
        if not (isinstance(state_type, type) and issubclass(state_type, StreamState)):
            raise self._invalid(f"discover_streams asks for {stream!r} as {state_type!r:.80}; expected a class of StreamState")
        if self.plan.folds:
            raise self._invalid(
                f"discover_streams asks for {stream!r} as {state_type.__name__}, but the command folds its events itself; "
                "remove initial_state and apply, or return only the streams"
            )
        return state_type

    def _invalid(self, problem: str) -> InvalidCommand:
        return InvalidCommand(f"{self.plan.name}.{problem}")

    def _wrong_pair(self, pair: object) -> InvalidCommand:
        kind = type(pair).__name__
        return self._invalid(f"handle yields {pair!r:.80} of type {kind}; expected a pair of StreamId and Event")

    def _wrong_stream(self, stream: object, versions: Mapping[StreamId, int]) -> InvalidCommand:
        if type(stream) is not StreamId:
            return self._invalid(f"handle writes to {stream!r:.80} of type {type(stream).__name__}; expected StreamId")
        boundary = ", ".join(sorted(versions)[:10])
        return self._invalid(
            f"handle writes to the stream {stream!r}, which it does not read; make it a field typed StreamId or return it "
            f"from discover_streams (its boundary is: {boundary})"
        )


@final
class CommandType:
    """A command class that was executed before: its checked plan and its series, so that neither is looked up again."""

    __slots__ = ("_codec", "_ids", "_log_fields", "_plan", "_speculation", "series", "span_name")

    def __init__(
        self,
        cls: type[Command[Any]],
        codec: Codec,
        ids: IdGenerator,
        instruments: CommandInstruments,
        speculation: SpeculationMode,
    ) -> None:
        self._plan = CommandPlan(cls)
        self._speculation = Speculation(speculation)
        self._codec = codec
        self._ids = ids
        self.series = instruments.bind(self._plan.name)
        self.span_name = f"execute {self._plan.name}"
        self._log_fields = {"eventcore.store": instruments.store, "eventcore.command.type": self._plan.name}

    def context(self, command: Command[Any], span: Span, headers: dict[str, str]) -> CommandContext:
        """The context of one command of this class; the block of ``span`` has just been entered.

        ``headers`` are checked and not shared with the caller.
        """
        span.log_fields = self._log_fields
        metadata = EventMetadata(
            self._plan.name,
            traceparent_of(span.trace_id, span.span_id, span.trace_flags) if span.trace_id else "",
            span.tracestate,
            span.correlation_id,
            span.causation_id,
            headers,
        )
        encoded = self._codec.encode_metadata(metadata)
        # For the whole command, before the context is copied.
        span.connect()
        return CommandContext(
            *(command, self._plan, self._codec, self._ids, self._speculation, span, metadata, encoded, copy_context())
        )
