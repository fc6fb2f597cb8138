"""The consistency boundary of a command: its streams are read, discovered and folded to a state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, final

import msgspec

from eventcore.commands.command import Command
from eventcore.commands.context import CommandContext
from eventcore.commands.loading import Loader
from eventcore.errors import InvalidCommand
from eventcore.events import RecordedEvent, StreamId

# Events to fold before the event loop runs once.
_FOLD_AT_ONCE: Final = 500
_MAX_ROUNDS: Final = 100
_by_position: Final = attrgetter("position")


@final
class BoundaryState(msgspec.Struct, eq=False):
    """What a command decides on.

    Attributes:
        state: the folded events.
        versions: the version of each stream that the state has seen.
        events: how many events were folded.
        head: the position up to which the streams were read.
        read_from_store: false if the cache answered. The state may then be behind the store, which only an append shows.
        one_snapshot: whether the state existed at one moment of the store. If not, a decision without events is checked, too.
        cache_epoch: the epoch of the cache when the streams were read.
        load_seconds: how long the first load took.
        discover_seconds: how long discovery took, with the loads of the discovered streams.
    """

    state: Any
    versions: dict[StreamId, int]
    events: int
    head: int
    read_from_store: bool
    one_snapshot: bool
    cache_epoch: int
    load_seconds: float = 0.0
    discover_seconds: float = 0.0


async def load_boundary(loader: Loader, context: CommandContext, *, from_cache: bool) -> BoundaryState:
    """Read the streams that a command names, then those that it discovers, and fold their events in order of position.

    With ``from_cache``, the cache answers if it holds all streams completely; otherwise the store does.

    Raises:
        InvalidCommand: discovery does not end, or the command has no stream.
    """
    name = context.plan.name
    streams = context.plan.streams(context.command)
    begun = perf_counter()
    boundary = await _read(loader, context, streams, from_cache)
    loaded_at = perf_counter()
    if context.plan.discovers:
        rounds = 0
        while new := _discover(context, boundary):
            rounds += 1
            if rounds > _MAX_ROUNDS:
                raise InvalidCommand(
                    f"{name}.discover_streams names new streams after {_MAX_ROUNDS} rounds; narrow the boundary"
                )
            streams = (*streams, *new)
            # Read all streams again, not only the new ones: the state must be of one snapshot.
            boundary = await _read(loader, context, streams, from_cache)
        if rounds:
            boundary.discover_seconds = perf_counter() - loaded_at
        if not streams:
            raise InvalidCommand(f"{name} has no stream: its fields name none, and discover_streams found none")
    boundary.load_seconds = loaded_at - begun
    return boundary


def _discover(context: CommandContext, boundary: BoundaryState) -> Sequence[StreamId]:
    entered = context.span.enter()
    try:
        return context.discover(boundary.state, boundary.versions)
    finally:
        context.span.leave(entered)


async def _read(loader: Loader, context: CommandContext, streams: Sequence[StreamId], from_cache: bool) -> BoundaryState:
    loaded = loader.from_cache(streams) if from_cache else None
    if loaded is None:
        loaded = await loader.load(streams, context.span)
    versions = {stream: len(events) for stream, events in loaded.events.items()}
    head, one_snapshot = loaded.head, True
    together: Sequence[RecordedEvent] = ()
    if len(versions) == 1:
        (together,) = loaded.events.values()
    else:
        # The cache may have learned newer events of one stream while the snapshot of the others was read.
        one_snapshot = all(not events or events[-1].position <= head for events in loaded.events.values())
        together = sorted([event for events in loaded.events.values() for event in events], key=_by_position)
    if together:
        head = max(head, together[-1].position)
    entered = context.span.enter()
    try:
        state = await _fold(context.command, together)
    finally:
        context.span.leave(entered)
    return BoundaryState(state, versions, len(together), head, loaded.read_from_store, one_snapshot, loaded.cache_epoch)


async def _fold(command: Command[Any], events: Sequence[RecordedEvent]) -> Any:
    apply, state = command.apply, command.initial_state()
    for start in range(0, len(events), _FOLD_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        for event in events[start : start + _FOLD_AT_ONCE]:
            state = apply(state, event)
    return state
