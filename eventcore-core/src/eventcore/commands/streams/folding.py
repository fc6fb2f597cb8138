"""Folds: events to the state of a command, or to the state of one stream, which all commands share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import msgspec

from eventcore.catalogue.metrics import SnapshotResult
from eventcore.commands.command import Command
from eventcore.commands.streams.cache import KeptState, StreamCache
from eventcore.errors import InvalidCommand
from eventcore.events import RecordedEvent, StreamId, StreamState
from eventcore.events.classes import read_stream_id
from eventcore.events.codec import write_stream_id
from eventcore.recording import Span
from eventcore.stores.values import Snapshot, StateKey

# Events to fold before the event loop runs once.
FOLD_AT_ONCE: Final = 500
# A kept state is replaced by a newer one once so few of its bytes fall to each event in between: encoding a kilobyte takes
# about as long as applying an event.
_BYTES_PER_EVENT: Final = 1024


@final
class CommandFold:
    """The state that a command folds itself, from the events of all its streams in order of position.

    Attributes:
        state: the events folded so far.
        events: how many they are.
    """

    def __init__(self, command: Command[Any], span: Span) -> None:
        self._apply = command.apply
        self._span = span
        self.state = command.initial_state()
        self.events = 0

    def feed(self, events: Sequence[RecordedEvent]) -> None:
        """Apply events, in the command's span: the task is the loader's."""
        apply, state = self._apply, self.state
        entered = self._span.enter()
        try:
            for event in events:
                state = apply(state, event)
        finally:
            self._span.leave(entered)
        self.state = state
        self.events += len(events)


@final
class StateFold:
    """The state of one stream: from a kept one, or the first event, to the newest.

    Attributes:
        version: the version of the stream that the state has seen.
        events: how many events were applied.
    """

    def __init__(self, state_type: type[StreamState], codec: StateCodec, base: KeptState | None) -> None:
        self._state_type = state_type
        self._codec = codec
        self._base = base
        self._state = codec.decode(base.data) if base is not None else state_type()
        self._last: RecordedEvent | None = None
        self._kept: KeptState | None = None
        self.version: int = base.version if base is not None else 0
        self.events = 0

    def feed(self, events: Sequence[RecordedEvent]) -> None:
        """Apply events; those that the state has seen are skipped."""
        if events and events[0].version <= self.version:
            events = events[self.version + 1 - events[0].version :]
        apply = self._state.apply
        for event in events:
            apply(event)
        if events:
            last = self._last = events[-1]
            self.version = last.version
            self.events += len(events)

    def kept(self) -> KeptState:
        """The state, encoded once, however many commands share the fold."""
        if self._kept is None:
            base, last = self._base, self._last
            data = self._codec.encode(self._state)
            if last is None:
                self._kept = base or KeptState(self._state_type, 0, "", 0, data)
            else:
                stored = base.stored_version if base is not None else 0
                self._kept = KeptState(self._state_type, last.version, last.event_id, last.position, data, stored)
        return self._kept


@final
class StateCodec:
    """Writes states of one class as JSON, and reads from it as many copies as there are commands.

    Attributes:
        key: which stored snapshots fit the class.
        read: reads a state. Raises what msgspec raises.
    """

    def __init__(self, state_type: type[StreamState]) -> None:
        if state_type.apply is StreamState.apply:
            raise InvalidCommand(f"{state_type.__name__} does not define apply, so its events add up to nothing")
        self._name: Final = state_type.__name__
        self.key: Final = StateKey(state_type.__name__, state_type.state_version)
        try:
            self.read: Final[Callable[[bytes], StreamState]] = msgspec.json.Decoder(state_type, dec_hook=read_stream_id).decode
        except (TypeError, NotImplementedError, NameError) as error:
            raise InvalidCommand(f"{self._name} cannot be read back: {error}; use types that events may have") from error

    def encode(self, state: StreamState) -> bytes:
        """The state as JSON.

        Raises:
            InvalidCommand: a field holds what has no form in JSON.
        """
        try:
            return _encode(state)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise InvalidCommand(f"{self._name} cannot be kept: {error}; use types that events may have") from error

    def decode(self, data: bytes) -> StreamState:
        """A new copy.

        Raises:
            InvalidCommand: ``apply`` has set a field to a value that its type does not allow.
        """
        try:
            return self.read(data)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InvalidCommand(
                f"{self._name} cannot be read back: {error}; apply has set a field to a value that its type does not allow, or "
                "that JSON cannot hold"
            ) from error


_encode: Final = msgspec.json.Encoder(enc_hook=write_stream_id).encode


async def fold_all(command: Command[Any], events: Sequence[RecordedEvent]) -> Any:
    """The state that a command folds from all events of its streams; the event loop runs in between."""
    apply, state = command.apply, command.initial_state()
    for start in range(0, len(events), FOLD_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        for event in events[start : start + FOLD_AT_ONCE]:
            state = apply(state, event)
    return state


@final
class States:
    """The codecs of the classes of states that the commands of one store use, and what they count."""

    def __init__(
        self,
        cache: StreamCache,
        snapshot_due: Callable[[StreamId, KeptState, StateKey], None],
        count_read: Callable[[SnapshotResult], None],
    ) -> None:
        self._cache = cache
        self.count_read = count_read
        self._codecs: dict[type[StreamState], StateCodec] = {}
        self._snapshot_due = snapshot_due

    def codec(self, state_type: type[StreamState]) -> StateCodec:
        """The codec of a class, made when the class is first used."""
        codec = self._codecs.get(state_type)
        if codec is None:
            codec = self._codecs[state_type] = StateCodec(state_type)
        return codec

    def fold(self, state_type: type[StreamState], base: KeptState | None) -> StateFold:
        """A fold that begins at a kept state, or at the first event."""
        return StateFold(state_type, self.codec(state_type), base)

    def copy(
        self,
        stream: StreamId,
        state_type: type[StreamState],
        base: KeptState | None,
        events: Sequence[RecordedEvent],
        cache_epoch: int,
    ) -> StreamState:
        """A copy for one command: a kept state, or a new one, after few ``events``.

        The newer state is kept if that saves later commands more than it costs now.
        """
        codec = self._codecs.get(state_type) or self.codec(state_type)
        state = state_type() if base is None else codec.decode(base.data)
        if not events:
            return state
        apply = state.apply
        for event in events:
            apply(event)
        if base is not None and len(base.data) > _BYTES_PER_EVENT * len(events):
            return state
        last, data = events[-1], codec.encode(state)
        stored = 0 if base is None else base.stored_version
        self._keep(stream, KeptState(state_type, last.version, last.event_id, last.position, data, stored), cache_epoch)
        # A state that is not what its fields say is found by the first command that asks.
        return codec.decode(data) if base is None else state

    def keep(self, stream: StreamId, fold: StateFold, cache_epoch: int) -> KeptState:
        """Encode the state after a fold, and keep it."""
        kept = fold.kept()
        self._keep(stream, kept, cache_epoch)
        return kept

    def _keep(self, stream: StreamId, kept: KeptState, cache_epoch: int) -> None:
        """Keep a state unless the cache was emptied since ``cache_epoch``, and store it if it is due."""
        if cache_epoch != self._cache.epoch:
            return
        every = kept.state_type.snapshot_every
        if every is not None and kept.version - kept.stored_version >= every:
            self._snapshot_due(stream, kept, self.codec(kept.state_type).key)
            kept = msgspec.structs.replace(kept, stored_version=kept.version)
        self._cache.keep(stream, kept)

    def from_snapshot(self, state_type: type[StreamState], snapshot: Snapshot, head: int) -> KeptState | None:
        """A stored state as a kept one; ``None`` if the class cannot read it."""
        try:
            self.codec(state_type).read(snapshot.data)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            return None
        # The position of its event is not stored. It lies at or below the head of the read.
        return KeptState(state_type, snapshot.version, snapshot.event_id, head, snapshot.data, snapshot.version)
