"""The consistency boundary of a command: its streams are read, discovered and folded to a state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, TypeAlias, final

import msgspec

from eventcore.commands.context import CommandContext
from eventcore.commands.fields import VERSION, Needs
from eventcore.commands.streams.folding import FOLD_AT_ONCE, CommandFold, States, fold_all
from eventcore.commands.streams.loading import Loader
from eventcore.commands.streams.requests import Loaded, LoadedStream
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
class Round(msgspec.Struct, eq=False):
    """One call of ``discover_streams``, on fewer streams than the command has in the end.

    Attributes:
        state: the state that the call was made on, which no other call has. ``Attempt.catch_up`` updates it.
        versions: the version of each stream that the state has seen.
        found: the streams that the call added.
    """

    state: Any
    versions: Mapping[StreamId, int]
    found: frozenset[StreamId]

    def holds(self, loaded: Loaded) -> bool:
        """Whether the streams that the call was made on have not changed."""
        streams = loaded.streams
        return all(stream in streams and streams[stream].version == version for stream, version in self.versions.items())


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
        rounds: how the command's streams were discovered, before the last call of ``discover_streams`` found no more.
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
    rounds: Sequence[Round] = ()


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
    first = needs
    if take is not None:
        begun = perf_counter()
        boundary, first = await _unread(take, states, context, needs)
        if boundary is not None:
            boundary.load_seconds = perf_counter() - begun
            return boundary
    return await _read(loader, states, context, needs, first, learn=from_cache and context.speculation.looks())


async def _unread(take: _Take, states: States, context: CommandContext, needs: Needs) -> tuple[BoundaryState | None, Needs]:
    """A boundary for which nothing is read; ``None``, and what to read first, if the command has to read.

    The state may be one that never existed. So nothing that the command's code raises on it is reported: only what it raises
    on streams that were read counts.
    """
    found = _Discovery(needs)
    try:
        boundary = await found.run(take, states, context)
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException:  # noqa: BLE001  # see above
        return None, needs
    if boundary is not None and found.wanted:
        return boundary, needs
    # Streams that were found on cached ones are read together with them. Those found on a guess are rarely the right ones.
    return None, needs if found.assumes_empty else found.wanted


@final
class _Discovery:
    """Finds the streams of a command on one moment of the store: those that its fields name, those that ``discover_streams``
    names on their state, and so on. Streams that another moment has named are no part of it.

    Attributes:
        wanted: what the command needs, as far as it is known.
        rounds: the calls of ``discover_streams`` that have added to it.
        assumes_empty: whether the last streams that were taken are taken for empty.
    """

    def __init__(self, fields: Needs) -> None:
        self.wanted: Needs = fields
        self.rounds: list[Round] = []
        self.assumes_empty = False

    async def run(self, take: _Take, states: States, context: CommandContext) -> BoundaryState | None:
        """The boundary; ``None`` if ``take`` lacks some of ``wanted``."""
        while (loaded := take(self.wanted)) is not None:
            self.assumes_empty = loaded.assumes_empty
            boundary = await _folded(states, context, self.wanted, loaded)
            if not context.plan.discovers:
                return boundary
            if not (new := context.discover(boundary.state, boundary.versions)):
                # The cache may have learned events while these were folded.
                if not all(one.holds(loaded) for one in self.rounds):
                    return None
                boundary.rounds = self.rounds
                return boundary
            if len(self.rounds) == _MAX_ROUNDS:
                raise InvalidCommand(
                    f"{context.plan.name}.discover_streams names new streams after {_MAX_ROUNDS} rounds; narrow the boundary"
                )
            self.rounds.append(Round(boundary.state, boundary.versions, frozenset(new)))
            self.wanted = {**self.wanted, **new}
        return None


def _part(needs: Needs, *, loaded: Loaded, loaded_needs: Needs) -> Loaded | None:
    """What is needed of the streams that were loaded; ``None`` if something else was needed of one of them, or nothing."""
    if loaded.fold is not None:
        # The events are not there any more, so they cannot be folded without those of some streams.
        return loaded if needs == loaded_needs else None
    streams: dict[StreamId, LoadedStream] = {}
    for stream, need in needs.items():
        if loaded_needs.get(stream) == need:
            streams[stream] = loaded.streams[stream]
        elif need is VERSION and stream in loaded_needs:
            # A stream that a field names may be discovered again, with the class of its state.
            streams[stream] = LoadedStream(loaded.streams[stream].version)
        else:
            return None
    return msgspec.structs.replace(loaded, streams=streams)


async def _read(
    loader: Loader, states: States, context: CommandContext, fields: Needs, first: Needs, *, learn: bool
) -> BoundaryState:
    """Read the streams of a command: ``fields`` and what it discovers on them. Reading begins with ``first``, which has more
    than ``fields`` if the cache knew some of that.
    """
    unknown: set[StreamId] = set()
    were_empty = True
    begun = perf_counter()
    loaded_at, reads = 0.0, 0
    found, boundary = _Discovery(first), None
    while boundary is None:
        needs = found.wanted
        if learn:
            unknown.update(loader.unknown(needs))
        fold = partial(CommandFold, context.command, context.surroundings) if context.plan.folds else None
        loaded = await loader.load(needs, fold, context.span)
        reads += 1
        if reads > _MAX_ROUNDS:
            raise InvalidCommand(
                f"{context.plan.name}.discover_streams names new streams after {_MAX_ROUNDS} rounds; narrow the boundary"
            )
        for stream in unknown.intersection(needs):
            were_empty = were_empty and not loaded.streams[stream].version
        # This is another moment than that of the reads before. What they have found counts only if it is found again, or if the
        # streams on which it was found are the same.
        if loaded.fold is None:
            found = _Discovery(fields)
        elif not all(one.holds(loaded) for one in found.rounds) or not (found.rounds or needs == fields):
            found = _Discovery(fields)
            continue
        boundary = await found.run(partial(_part, loaded=loaded, loaded_needs=needs), states, context)
        loaded_at = loaded_at or perf_counter()
    if not found.wanted:
        raise InvalidCommand(f"{context.plan.name} has no stream: its fields name none, and discover_streams found none")
    if reads > 1:
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
