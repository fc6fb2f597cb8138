"""The consistency boundary of a command: its streams are read, discovered and folded to a state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, TypeAlias, final

import msgspec

from eventcore.commands.context import CommandContext
from eventcore.commands.fields import Needs
from eventcore.commands.streams.folding import FOLD_AT_ONCE, CommandFold, States, fold_all
from eventcore.commands.streams.loading import Loader
from eventcore.commands.streams.requests import Loaded
from eventcore.commands.streams.speculation import Refusal
from eventcore.errors import InvalidCommand
from eventcore.events import RecordedEvent, StreamId, StreamState

_MAX_ROUNDS: Final = 100
_Take: TypeAlias = Callable[[Needs], Loaded | None]
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
        read_from_store: false if the state is not confirmed: the cache answered, or streams were taken for empty. The state may
            then be behind the store, which only an append shows.
        one_snapshot: whether the state existed at one moment of the store. If not, a decision without events is checked, too.
        cache_epoch: the epoch of the cache when the streams were read.
        assumes_empty: whether streams that the cache does not know were not read, and are taken for empty.
        were_empty: of a boundary that was read: whether the streams that the cache did not know were empty; ``None`` if it knew
            all of them, or nobody wants to learn it.
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
    assumes_empty: bool = False
    were_empty: bool | None = None
    load_seconds: float = 0.0
    discover_seconds: float = 0.0


def boundary_at_once(loader: Loader, states: States, context: CommandContext, needs: Needs) -> BoundaryState | None:
    """The boundary of a command that discovers nothing, and for which the cache has what there is: what most commands need.

    It is what ``load_boundary`` gives, without a coroutine. ``None``: load it.
    """
    begun = perf_counter()
    if not context.plan.folds:
        copies = StreamStates() if context.plan.has_states else None
        try:
            taken = states.at_once(needs, copies, speculate=context.speculation.active)
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException:  # noqa: BLE001  # as below
            return None
        if taken is None:
            return None
        versions, count, from_states, head, assumes_empty = taken
        return BoundaryState(
            *(copies, versions, count, from_states, head, False, len(versions) == 1 or not head, loader.cache.epoch),
            *(assumes_empty, None, perf_counter() - begun),
        )
    if (held := loader.cache.whole_streams(needs, FOLD_AT_ONCE, speculate=context.speculation.active)) is None:
        return None
    versions, events, assumes_empty = held
    head = 0
    try:
        state = context.command.initial_state()
        if events:
            apply = context.command.apply
            for event in events:
                state = apply(state, event)
            head = events[-1].position
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException:  # noqa: BLE001  # only what the command's code raises on streams that were read counts
        return None
    return BoundaryState(
        *(state, versions, len(events), False, head, False, len(versions) == 1 or not events, loader.cache.epoch),
        *(assumes_empty, None, perf_counter() - begun),
    )


async def load_boundary(
    loader: Loader,
    states: States,
    context: CommandContext,
    needs: Needs,
    *,
    from_cache: bool,
    refusal: Refusal | None = None,
    look: bool = True,
) -> BoundaryState:
    """Load the streams that a command names, then those that it discovers, and fold their events.

    Args:
        loader: reads streams, or takes them from the cache.
        states: the codecs of stream states.
        context: the command.
        needs: the streams that its fields name.
        from_cache: read nothing if the cache holds all that is needed, or if what it lacks may be taken for empty (see
            ``eventcore.commands.streams.speculation``). The state is then not confirmed.
        refusal: what an append has found when it refused the command. Nothing is read if that is all that is needed.
        look: whether to look into the cache; false: ``boundary_at_once`` did, and found that the streams must be read.

    Raises:
        InvalidCommand: discovery does not end, or the command has no stream.
    """
    take: _Take | None = None
    if refusal is not None:
        take = partial(loader.from_refusal, refused=refusal.found, cache_epoch=refusal.cache_epoch)
    elif from_cache and look:
        take = partial(loader.from_cache, speculate=context.speculation.active)
    if take is not None:
        begun = perf_counter()
        boundary, needs = await _unread(take, states, context, needs)
        if boundary is not None:
            boundary.load_seconds = perf_counter() - begun
            return boundary
    return await _read(loader, states, context, needs, learn=from_cache and context.speculation.looks())


async def _unread(take: _Take, states: States, context: CommandContext, needs: Needs) -> tuple[BoundaryState | None, Needs]:
    """A boundary for which nothing is read; ``None``, and what to read, if the command has to read first.

    The state may be one that never existed. So nothing that the command's code raises on it is reported: only what it raises
    on streams that were read counts.
    """
    wanted, assumes_empty = needs, False
    loaded = take(needs)
    try:
        for _ in range(_MAX_ROUNDS):
            if loaded is None:
                break
            assumes_empty = loaded.assumes_empty
            boundary = await _folded(states, context, wanted, loaded)
            if not context.plan.discovers:
                return boundary, wanted
            if not (new := context.discover(boundary.state, boundary.versions)):
                return (boundary if wanted else None), wanted
            wanted = {**wanted, **new}
            loaded = take(wanted)
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException:  # noqa: BLE001  # see above
        return None, needs
    # Streams that were found on cached ones are read together with them. Those found on a guess may be the wrong ones.
    return None, needs if assumes_empty else wanted


async def _read(loader: Loader, states: States, context: CommandContext, needs: Needs, *, learn: bool) -> BoundaryState:
    name = context.plan.name
    unknown: set[StreamId] = set()
    were_empty = True
    begun = perf_counter()
    loaded_at, rounds = 0.0, 0
    while True:
        if learn:
            unknown.update(loader.unknown(needs))
        fold = partial(CommandFold, context.command, context.surroundings) if context.plan.folds else None
        loaded = await loader.load(needs, fold, context.span)
        for stream in unknown:
            were_empty = were_empty and not loaded.streams[stream].version
        boundary = await _folded(states, context, needs, loaded)
        loaded_at = loaded_at or perf_counter()
        if not context.plan.discovers or not (new := context.discover(boundary.state, boundary.versions)):
            break
        rounds += 1
        if rounds > _MAX_ROUNDS:
            raise InvalidCommand(f"{name}.discover_streams names new streams after {_MAX_ROUNDS} rounds; narrow the boundary")
        # Read all streams again, not only the new ones: the state must be of one snapshot.
        needs = {**needs, **new}
    if not needs:
        raise InvalidCommand(f"{name} has no stream: its fields name none, and discover_streams found none")
    if rounds:
        boundary.discover_seconds = perf_counter() - loaded_at
    boundary.load_seconds = loaded_at - begun
    if unknown:
        boundary.were_empty = were_empty
    return boundary


async def _folded(states: States, context: CommandContext, needs: Needs, loaded: Loaded) -> BoundaryState:
    # This is the caller's task: the command's span is current, also in other tracing systems.
    if not context.plan.folds:
        return _with_states(states, context, needs, loaded)
    versions = {stream: one.version for stream, one in loaded.streams.items()}
    head = loaded.head
    # The cache may have learned newer events of one stream while the snapshot of the others was read.
    one_snapshot = len(versions) == 1 or all(one.position <= head for one in loaded.streams.values())
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
    return BoundaryState(
        *(state, versions, events, False, head, loaded.read_from_store, one_snapshot, loaded.cache_epoch),
        loaded.assumes_empty,
    )


def _with_states(states: States, context: CommandContext, needs: Needs, loaded: Loaded) -> BoundaryState:
    """The boundary of a command that folds nothing itself."""
    head = before = loaded.head
    versions: dict[StreamId, int] = {}
    state: StreamStates | None = StreamStates() if context.plan.has_states else None
    events, from_states, one_snapshot = 0, False, True
    for stream, one in loaded.streams.items():
        versions[stream] = one.version
        position = one.position
        if position > before:
            one_snapshot = False
        need = needs[stream]
        if state is not None and not isinstance(need, str):
            state[stream] = states.copy(stream, need, one.base, one.events, loaded.cache_epoch)
            events += len(one.events) + one.folded
            from_states = from_states or (one.base is not None and not one.folded)
            if position > head:
                head = position
    return BoundaryState(
        *(state, versions, events, from_states, head, loaded.read_from_store, one_snapshot or len(versions) == 1),
        *(loaded.cache_epoch, loaded.assumes_empty),
    )


def _together(loaded: Loaded) -> Sequence[RecordedEvent]:
    """The events of all streams in order of position."""
    if len(loaded.streams) == 1:
        (only,) = loaded.streams.values()
        return only.events
    return sorted([event for one in loaded.streams.values() for event in one.events], key=_by_position)
