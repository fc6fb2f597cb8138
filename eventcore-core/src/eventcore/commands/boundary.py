"""The state of a command's whole consistency boundary: read, discovered, folded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, final

from eventcore.commands.attempt import CommandContext, discovered_streams
from eventcore.commands.command import Command
from eventcore.commands.loading import Loaded, Loader
from eventcore.errors import InvalidCommand
from eventcore.events import RecordedEvent, StreamId

_FOLD_AT_ONCE: Final = 500
_MAX_ROUNDS: Final = 100
_by_position: Final = attrgetter("position")


@final
class BoundaryState:
    """What a command decides on.

    Attributes:
        state: what the folded events give.
        versions: the version of each stream that was read.
        events: how many events were folded.
        head: nothing behind this position was read.
        one_snapshot: whether the state is one moment of the store.
        read_from_store: false when the cache answered and the store was not asked.
        cache_epoch: the epoch of the cache when the streams were read.
        load_seconds, discover_seconds: how long loading and discovery took.
    """

    __slots__ = (
        "cache_epoch",
        "discover_seconds",
        "events",
        "head",
        "load_seconds",
        "one_snapshot",
        "read_from_store",
        "state",
        "versions",
    )

    def __init__(
        self, state: Any, versions: dict[StreamId, int], events: Sequence[RecordedEvent], loaded: Loaded, *, one_snapshot: bool
    ) -> None:
        self.state = state
        self.versions = versions
        self.events = len(events)
        self.head = max(loaded.head, events[-1].position) if events else loaded.head
        self.read_from_store = loaded.read_from_store
        self.cache_epoch = loaded.cache_epoch
        self.one_snapshot = one_snapshot
        self.load_seconds = 0.0
        self.discover_seconds = 0.0


async def load_boundary(loader: Loader, context: CommandContext, *, from_cache: bool) -> BoundaryState:
    """Read the streams that the command names, and those that it then discovers; fold their events in order of position.

    With ``from_cache``, what this process knows of them will do, unless it is incomplete.

    Raises:
        InvalidCommand: discovery does not come to an end, or there is no stream at all.
    """
    streams = context.plan.streams(context.command)
    begun = perf_counter()
    boundary = await _read(loader, context, streams, from_cache)
    loaded_at = perf_counter()
    if context.plan.discovers:
        rounds = 0
        while new := discovered_streams(context, boundary.state, boundary.versions):
            rounds += 1
            if rounds > _MAX_ROUNDS:
                raise InvalidCommand(
                    f"{context.plan.name}.discover_streams names new streams after {_MAX_ROUNDS} rounds; narrow the boundary"
                )
            streams = (*streams, *new)
            # All of them again: the state must be one moment's.
            boundary = await _read(loader, context, streams, from_cache)
        if rounds:
            boundary.discover_seconds = perf_counter() - loaded_at
        if not streams:
            raise InvalidCommand(f"{context.plan.name} has no stream: its fields name none, and discover_streams found none")
    boundary.load_seconds = loaded_at - begun
    return boundary


async def _read(loader: Loader, context: CommandContext, streams: Sequence[StreamId], from_cache: bool) -> BoundaryState:
    loaded = loader.from_cache(streams) if from_cache else None
    if loaded is None:
        loaded = await loader.load(streams, context.span)
    versions: dict[StreamId, int] = {}
    one_snapshot = True
    several = len(loaded.events) > 1
    events: Sequence[RecordedEvent] = ()
    for stream, known in loaded.events.items():
        versions[stream] = len(known)
        events = known
        if several and known and known[-1].position > loaded.head:
            one_snapshot = False
    if several:
        together = [event for known in loaded.events.values() for event in known]
        together.sort(key=_by_position)
        events = together
    state = await _fold(context.command, events)
    return BoundaryState(state, versions, events, loaded, one_snapshot=one_snapshot)


async def _fold(command: Command[Any], events: Sequence[RecordedEvent]) -> Any:
    apply, state = command.apply, command.initial_state()
    if len(events) <= _FOLD_AT_ONCE:
        for event in events:
            state = apply(state, event)
        return state
    for start in range(0, len(events), _FOLD_AT_ONCE):
        for event in events[start : start + _FOLD_AT_ONCE]:
            state = apply(state, event)
        await asyncio.sleep(0)
    return state
