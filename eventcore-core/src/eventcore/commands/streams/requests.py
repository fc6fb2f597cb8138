"""What is asked of the loader, and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import msgspec

from eventcore.commands.fields import Need, Needs
from eventcore.commands.streams.cached_stream import KeptState
from eventcore.commands.streams.folding import CommandFold, StateFold
from eventcore.commands.streams.paged_read import PagedRead
from eventcore.errors import StoreError
from eventcore.events import RecordedEvent, StreamId
from eventcore.stores.values import BackendPage


@final
class LoadedStream(msgspec.Struct, frozen=True, gc=False):
    """What a command needs of one stream.

    Attributes:
        version: the version up to which it was read.
        position: the position of the last event, or of a later one up to which the stream has no further event.
        events: the events to fold: all of them, or those behind ``base``.
        base: the state from which to fold.
        folded: how many events the load has folded already, so that ``base`` is the newest state.
    """

    version: int
    position: int = 0
    events: Sequence[RecordedEvent] = ()
    base: KeptState | None = None
    folded: int = 0


@final
class Loaded(msgspec.Struct, frozen=True):
    """Some streams, each read up to position ``head`` or later.

    Attributes:
        streams: by stream, what the command needs of it.
        head: the position of the snapshot; 0 if the cache answered.
        cache_epoch: the epoch of the cache when the streams were read.
        read_from_store: false if the cache answered, which may be behind the store.
        assumes_empty: whether some of the streams were not read, and are taken for empty.
        fold: the command's own fold, if the load has fed it with all events.
    """

    streams: dict[StreamId, LoadedStream]
    head: int
    cache_epoch: int
    read_from_store: bool = True
    assumes_empty: bool = False
    fold: CommandFold | None = None


class FirstPage(msgspec.Struct, eq=False):
    """The answer of one call to the backend, shared by all loads that the call served.

    Attributes:
        cache_epoch: the epoch of the cache before the call.
        needs: what is needed of each stream.
        after: the version behind which each stream is read; then, the version behind which its rows begin.
        bases: the state from which the events of a stream lead on.
        known: the cached events of a stream: all of them, or those behind its state.
        page: the position of the snapshot, and the rows until they are decoded.
        ends: the version of each stream behind its rows.
        decoded: the decoded rows by stream.
        failures: the streams that could not be decoded, or whose stored state could not.
        reads: the streams that go on behind the page, or have many events to fold.
        folds: the folds of stream states that these reads feed.
    """

    cache_epoch: int
    needs: dict[StreamId, set[Need]] = {}
    after: dict[StreamId, int] = {}
    bases: dict[tuple[StreamId, Need], KeptState] = {}
    known: dict[tuple[StreamId, Need], Sequence[RecordedEvent]] = {}
    page: BackendPage = BackendPage({}, 0)
    ends: dict[StreamId, int] = {}
    decoded: dict[StreamId, list[RecordedEvent]] = {}
    failures: dict[StreamId, StoreError] = {}
    unreadable: set[StreamId] = set()
    reads: dict[StreamId, PagedRead] = {}
    folds: dict[tuple[StreamId, Need], StateFold] = {}

    def events(self, stream: StreamId, need: Need) -> Sequence[RecordedEvent]:
        """The events of a stream up to the end of the page: all of them, or those behind its state in ``bases``."""
        known, decoded = self.known.get((stream, need), ()), self.decoded.get(stream, [])
        if known:
            seen = known[-1].version
        else:
            # The rows begin where the request that knew least of the stream needed them: a state has seen some of them.
            base = self.bases.get((stream, need))
            seen = 0 if base is None else base.version
        unseen = decoded[max(0, seen - self.after[stream]) :]
        return [*known, *unseen] if known else unseen


Answer: TypeAlias = FirstPage | StoreError | None
"""``None``: one of the streams is being read since the request was queued; the request must be made again."""


class Request(msgspec.Struct, eq=False):
    """A load that waits for its call.

    Attributes:
        needs: what the command needs of each stream.
        new_fold: makes the command's own fold; ``None`` if it has none.
        use_snapshots: whether stored states may be used.
        origin: the command's span.
        future: receives the answer.
        fold: the fold that a paged read feeds for the command.
        is_abandoned: whether the command no longer waits.
    """

    needs: Needs
    new_fold: Callable[[], CommandFold] | None
    use_snapshots: bool
    origin: Any
    future: asyncio.Future[Answer]
    fold: CommandFold | None = None
    is_abandoned: bool = False
