"""The consistency boundary of a command: its streams are read, discovered and folded to a state."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, final

import msgspec

from eventcore.commands.context import CommandContext
from eventcore.commands.fields import Needs
from eventcore.commands.streams.folding import FOLD_AT_ONCE, CommandFold, States, fold_all
from eventcore.commands.streams.loading import Loader
from eventcore.commands.streams.requests import Loaded
from eventcore.errors import InvalidCommand
from eventcore.events import RecordedEvent, StreamId, StreamState

_MAX_ROUNDS: Final = 100
_by_position: Final = attrgetter("position")


@final
class StreamStates(dict[StreamId, StreamState]):
    """The states of the streams of one command: its own copies."""

    def __missing__(self, stream: StreamId) -> StreamState:
        known = ", ".join(sorted(self)[:10]) or "none"
        raise InvalidCommand(
            f"the stream {stream!r} has no state in this command; annotate its field, Annotated[StreamId, …], or return it "
            f"with the class of its state from discover_streams (streams with a state are: {known})"
        )


@final
class BoundaryState(msgspec.Struct, eq=False):
    """What a command decides on.

    Attributes:
        state: the folded events.
        versions: the version of each stream that the state has seen.
        events: how many events were folded.
        from_states: whether the fold of a stream began at a kept or stored state.
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
    from_states: bool
    head: int
    read_from_store: bool
    one_snapshot: bool
    cache_epoch: int
    load_seconds: float = 0.0
    discover_seconds: float = 0.0


async def load_boundary(loader: Loader, states: States, context: CommandContext, *, from_cache: bool) -> BoundaryState:
    """Read the streams that a command names, then those that it discovers, and fold their events.

    With ``from_cache``, the cache answers if it holds all that is needed; otherwise the store does.

    Raises:
        InvalidCommand: discovery does not end, or the command has no stream.
    """
    name = context.plan.name
    streams = context.plan.streams(context.command)
    begun = perf_counter()
    boundary = await _read(loader, states, context, streams, from_cache)
    loaded_at = perf_counter()
    if context.plan.discovers:
        rounds = 0
        while new := context.discover(boundary.state, boundary.versions):
            rounds += 1
            if rounds > _MAX_ROUNDS:
                raise InvalidCommand(
                    f"{name}.discover_streams names new streams after {_MAX_ROUNDS} rounds; narrow the boundary"
                )
            streams = {**streams, **new}
            # Read all streams again, not only the new ones: the state must be of one snapshot.
            boundary = await _read(loader, states, context, streams, from_cache)
        if rounds:
            boundary.discover_seconds = perf_counter() - loaded_at
        if not streams:
            raise InvalidCommand(f"{name} has no stream: its fields name none, and discover_streams found none")
    boundary.load_seconds = loaded_at - begun
    return boundary


async def _read(loader: Loader, states: States, context: CommandContext, needs: Needs, from_cache: bool) -> BoundaryState:
    loaded = loader.from_cache(needs) if from_cache else None
    if loaded is None:
        fold = partial(CommandFold, context.command, context.surroundings) if context.plan.folds else None
        loaded = await loader.load(needs, fold, context.span)
    # This is the caller's task: the command's span is current, also in other tracing systems.
    plan = context.plan
    versions = {stream: one.version for stream, one in loaded.streams.items()}
    head = loaded.head
    # The cache may have learned newer events of one stream while the snapshot of the others was read.
    one_snapshot = len(versions) == 1 or all(one.position <= head for one in loaded.streams.values())
    state: Any = None
    events, from_states = 0, False
    if plan.folds:
        if loaded.fold is not None:
            state, events = loaded.fold.state, loaded.fold.events
        else:
            together = _together(loaded)
            events = len(together)
            if events <= FOLD_AT_ONCE:
                # Without a coroutine for what nearly all commands need.
                apply, state = context.command.apply, context.command.initial_state()
                for event in together:
                    state = apply(state, event)
            else:
                state = await fold_all(context.command, together)
            if together:
                head = max(head, together[-1].position)
    elif plan.has_states:
        state = StreamStates()
        for stream, need in needs.items():
            if not isinstance(need, str):
                one = loaded.streams[stream]
                state[stream] = states.copy(stream, need, one.base, one.events, loaded.cache_epoch)
                events += len(one.events) + one.folded
                from_states = from_states or (one.base is not None and not one.folded)
                head = max(head, one.position)
    return BoundaryState(state, versions, events, from_states, head, loaded.read_from_store, one_snapshot, loaded.cache_epoch)


def _together(loaded: Loaded) -> Sequence[RecordedEvent]:
    """The events of all streams in order of position."""
    if len(loaded.streams) == 1:
        (only,) = loaded.streams.values()
        return only.events
    return sorted([event for one in loaded.streams.values() for event in one.events], key=_by_position)
