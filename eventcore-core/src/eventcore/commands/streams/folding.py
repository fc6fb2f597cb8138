"""Folds: events to the state of a command, or to the state of one stream, which all commands share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from sys import getsizeof
from types import UnionType
from typing import Any, Final, TypeAlias, Union, final, get_args, get_origin
from uuid import UUID

import msgspec

from eventcore.catalogue.metrics import SnapshotResult
from eventcore.commands.command import Command
from eventcore.commands.fields import Needs
from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.cached_stream import KeptState
from eventcore.errors import InvalidCommand
from eventcore.events import RecordedEvent, StreamId, StreamState
from eventcore.events.classes import read_stream_id
from eventcore.events.codec import write_stream_id
from eventcore.events.stream_state import returned_a_value
from eventcore.stores.values import Snapshot, StateKey

# Events to fold before the event loop runs once.
FOLD_AT_ONCE: Final = 500
# A kept state is replaced by a newer one once so few of its bytes fall to each event in between: encoding a kilobyte takes
# about as long as applying an event.
_BYTES_PER_EVENT: Final = 1024
_NOTHING: Final[tuple[KeptState | None, tuple[RecordedEvent, ...]]] = (None, ())


@final
class CommandFold:
    """The state that a command folds itself, from the events of all its streams in order of position.

    Attributes:
        state: the events folded so far.
        events: how many they are.
    """

    def __init__(self, command: Command[Any], surroundings: Context) -> None:
        self._apply = command.apply
        self._surroundings = surroundings
        self.state = command.initial_state()
        self.events = 0

    def feed(self, events: Sequence[RecordedEvent]) -> None:
        """Apply events, in the command's surroundings: the task is the loader's."""
        self._surroundings.run(self._feed, events)

    def _feed(self, events: Sequence[RecordedEvent]) -> None:
        apply, state = self._apply, self.state
        for event in events:
            state = apply(state, event)
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
        self._state = codec.copy(base) if base is not None else codec.new()
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
            if apply(event) is not None:
                raise returned_a_value(self._state)
        if events:
            last = self._last = events[-1]
            self.version = last.version
            self.events += len(events)

    def kept(self) -> KeptState:
        """The state, encoded once, however many commands share the fold."""
        if self._kept is None:
            base, last = self._base, self._last
            if last is None:
                self._kept = base or self._codec.kept(self._state, 0, "", 0)
            else:
                stored = base.stored_version if base is not None else 0
                self._kept = self._codec.kept(self._state, last.version, last.event_id, last.position, stored)
        return self._kept


@final
class StateCodec:
    """Makes as many copies of a state of one class as there are commands: of its fields, or by way of JSON.

    Attributes:
        key: which stored snapshots fit the class.
        read: reads a state. Raises what msgspec raises.
    """

    def __init__(self, state_type: type[StreamState]) -> None:
        if state_type.apply is StreamState.apply:
            raise InvalidCommand(f"{state_type.__name__} does not define apply, so its events add up to nothing")
        self._state_type: Final = state_type
        self._name: Final = state_type.__name__
        self.key: Final = StateKey(_key_of(state_type), state_type.state_version)
        try:
            self.read: Final[Callable[[bytes], StreamState]] = msgspec.json.Decoder(state_type, dec_hook=read_stream_id).decode
        except (TypeError, NotImplementedError, NameError) as error:
            raise InvalidCommand(f"{self._name} cannot be read back: {error}; use types that events may have") from error
        self._scalars: Final = _scalar_fields(state_type)
        self._first: Final = self.kept(state_type(), 0, "", 0)

    def kept(self, state: StreamState, version: int, event_id: str, position: int, stored_version: int = 0) -> KeptState:
        """A state to keep; ``state`` may be changed afterwards.

        Raises:
            InvalidCommand: as ``encode`` does.
        """
        if self._scalars and (size := _size_of_scalars(state, self._scalars)):
            return KeptState(self._state_type, version, event_id, position, b"", stored_version, _copy(state), size)
        return KeptState(self._state_type, version, event_id, position, self.encode(state), stored_version)

    def new(self) -> StreamState:
        """The state before the first event. The class does not make it: its default values may be shared and changed."""
        return self.copy(self._first)

    def copy(self, kept: KeptState) -> StreamState:
        """A new copy of a kept state.

        Raises:
            InvalidCommand: as ``decode`` does.
        """
        return self.decode(kept.data) if kept.whole is None else _copy(kept.whole)

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
# Not `__copy__` of the class, which may be its own.
_copy: Final[Callable[[Any], Any]] = msgspec.Struct.__copy__  # type: ignore[attr-defined]  # its stubs leave it out
# What nothing can change, and what JSON gives back as it was. Members of collections would have to be looked at one by one,
# which takes longer than JSON.
_SCALARS: Final = frozenset({int, float, str, bool, bytes, StreamId, datetime, date, Decimal, UUID, type(None)})
_LARGEST: Final = (1 << 63) - 1
_Scalars: TypeAlias = tuple[tuple[str, frozenset[type]], ...]


def _key_of(state_type: type[StreamState]) -> str:
    """The name under which states of a class are stored.

    Two classes may have one name, and JSON of one of them may be readable as the other: so the place where the class is defined
    and its fields belong to the name.
    """
    fields = [(field.name, repr(field.type)) for field in msgspec.structs.fields(state_type)]
    # It loads OpenSSL, which only applications with states of streams need.
    from hashlib import sha256

    defined = repr((state_type.__module__, state_type.__qualname__, fields))
    return f"{state_type.__name__}-{sha256(defined.encode()).hexdigest()[:12]}"


def _scalar_fields(state_type: type[StreamState]) -> _Scalars:
    """The fields of a class, and the types of their values; empty if one of them may hold something other than a scalar."""
    if state_type.__struct_config__.dict or hasattr(state_type, "__post_init__"):
        return ()
    fields: list[tuple[str, frozenset[type]]] = []
    for field in msgspec.structs.fields(state_type):
        types = frozenset(get_args(field.type) if get_origin(field.type) in (Union, UnionType) else (field.type,))
        if not types <= _SCALARS:
            return ()
        fields.append((field.name, types))
    return tuple(fields)


def _size_of_scalars(state: StreamState, fields: _Scalars) -> int:
    """The bytes of a state; 0 if a field holds what its type does not allow, or what JSON may not give back as it was."""
    size = getsizeof(state)
    for name, types in fields:
        value: Any = getattr(state, name)
        kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # the type of Any
        if kind not in types:
            return 0
        if kind is str:
            if not value.isascii() and not _is_text(value):
                return 0
        elif value is None:
            continue  # shared by all
        elif (kind is int and not -_LARGEST <= value <= _LARGEST) or (kind is float and not isfinite(value)):
            return 0
        size += getsizeof(value)
    return size


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        snapshot_due: Callable[[StreamId, KeptState, StateKey, bytes], None],
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
        state = codec.new() if base is None else codec.copy(base)
        if not events:
            return state
        apply = state.apply
        for event in events:
            if apply(event) is not None:
                raise returned_a_value(state)
        if base is not None and len(base.data) > _BYTES_PER_EVENT * len(events):
            return state
        last, stored = events[-1], 0 if base is None else base.stored_version
        kept = codec.kept(state, last.version, last.event_id, last.position, stored)
        self._keep(stream, kept, cache_epoch)
        # A state that is not what its fields say is found by the first command that asks.
        return codec.copy(kept) if base is None else state

    def at_once(
        self, needs: Needs, states: dict[StreamId, StreamState] | None, *, speculate: bool
    ) -> tuple[dict[StreamId, int], int, bool, int, bool] | None:
        """All that a command needs that folds nothing itself, if the cache has it: the version of each stream, how many events
        were folded, whether a fold began at a kept state, the position of the last event, and whether a stream is taken for
        empty.

        Args:
            needs: what the command needs of each stream: its version, or its state.
            states: receives the command's copies of the states; ``None`` if it needs none.
            speculate: take streams of which the cache holds nothing for empty.

        Returns ``None`` if a stream is incomplete or contested by another writer, or if there are many events to fold.
        """
        cache = self._cache
        versions: dict[StreamId, int] = {}
        events = head = 0
        from_states = assumes_empty = False
        for stream, need in needs.items():
            if isinstance(need, str) or states is None:
                if cache.knows(stream):
                    versions[stream] = cache.version(stream)
                    continue
                held = None
            else:
                held = cache.state_and_tail(stream, need)
            if held is None:
                if not speculate or not cache.is_unknown(stream):
                    return None
                assumes_empty = True
                held = _NOTHING
            base, tail = held
            if tail:
                last = tail[-1]
                versions[stream], position = last.version, last.position
            elif base is not None:
                versions[stream], position = base.version, base.position
            else:
                versions[stream] = position = 0
            if isinstance(need, str) or states is None:
                continue
            if len(tail) > FOLD_AT_ONCE:
                return None
            if base is not None:
                from_states = True
            if position > head:
                head = position
            events += len(tail)
            states[stream] = self.copy(stream, need, base, tail, cache.epoch)
        return versions, events, from_states, head, assumes_empty

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
            codec = self.codec(kept.state_type)
            data = kept.data if kept.whole is None else codec.encode(kept.whole)
            self._snapshot_due(stream, kept, codec.key, data)
            kept = msgspec.structs.replace(kept, stored_version=kept.version)
        self._cache.keep(stream, kept)

    def from_snapshot(self, state_type: type[StreamState], snapshot: Snapshot, head: int) -> KeptState | None:
        """A stored state as a kept one; ``None`` if the class cannot read it."""
        codec = self.codec(state_type)
        try:
            state = codec.read(snapshot.data)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            return None
        # The position of its event is not stored. It lies at or below the head of the read.
        return codec.kept(state, snapshot.version, snapshot.event_id, head, snapshot.version)
