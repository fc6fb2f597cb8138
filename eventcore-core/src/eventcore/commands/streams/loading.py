"""Loading streams for commands: loads that are requested at about the same time become one call and one snapshot."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, final

import msgspec

from eventcore.commands.fields import EVENTS, VERSION, Need, Needs
from eventcore.commands.streams.cache import StreamCache
from eventcore.commands.streams.cached_stream import KeptState
from eventcore.commands.streams.folding import FOLD_AT_ONCE, CommandFold, States
from eventcore.commands.streams.gathering import answer, answer_all, until_settled
from eventcore.commands.streams.paged_read import Page, PagedRead
from eventcore.commands.streams.requests import (
    Answer,
    FirstPage,
    Loaded,
    LoadedStream,
    Request,
)
from eventcore.errors import HistoryDiverged, StoreClosed, StoreError
from eventcore.events import RecordedEvent, StreamId, StreamState
from eventcore.events.codec import Codec, StoredEvent
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.stores.base import EventLog
from eventcore.stores.failures import as_store_error, own_copy
from eventcore.stores.values import BackendPage, EventsRedacted, Refused

BEGIN_ANEW: Final = (HistoryDiverged, EventsRedacted)
"""Errors of the store after which nothing that was read before may be used: the cache is emptied, and all is read again."""

_MAX_STREAMS: Final = 512
# Pages that all reads of long streams hold at once, each with its rows and its events.
_PAGES: Final = 4
# Events to decode before the event loop runs once.
_DECODE_AT_ONCE: Final = 500
# Loads of one request while the history of the store keeps diverging; the last one raises.
_MAX_LOADS: Final = 5
_NOTHING: Final[Mapping[StreamId, type[StreamState]]] = {}
_EMPTY: Final = LoadedStream(0)
_CLOSED: Final = StoreClosed("the store was closed while the command was reading")


@final
class Loader:
    """Reads streams through the cache.

    A load asks the backend only for events behind the cached version, so its result is right even if other processes write.
    ``from_cache`` saves that call for a command that is going to write: its append then checks that the cache was right.

    ``load`` runs in the callers' tasks, the calls to the backend in the loader's tasks, all on the store's event loop.
    """

    def __init__(self, log: EventLog, codec: Codec, cache: StreamCache, states: States) -> None:
        self._log = log
        self._codec = codec
        self.cache: Final = cache
        self._cache = cache
        self._states = states
        self._queue: deque[Request] = deque()
        self._wake = asyncio.Event()
        self._task: OwnedTask[None] | None = None
        self._serving: list[Request] = []
        # The streams of which further pages are being read, and the tasks that do so.
        self._reads: dict[StreamId, PagedRead] = {}
        self._reading: set[OwnedTask[None]] = set()
        self._pages = asyncio.Semaphore(_PAGES)
        self._closed = False

    def start(self) -> None:
        """Start the loader's task on the running loop."""
        self._task = spawn(self._run(), "eventcore-loader")

    async def close(self) -> None:
        """Stop; waiting loads fail with ``StoreClosed``."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        for reading in list(self._reading):
            await cancel_and_wait(reading)

    def unknown(self, needs: Needs) -> list[StreamId]:
        """The streams of which the cache holds nothing."""
        return [stream for stream in needs if self._cache.is_unknown(stream)]

    def from_cache(self, needs: Needs, *, speculate: bool = False) -> Loaded | None:
        """The cached streams; ``None`` if one of them is incomplete or contested by another writer.

        Args:
            needs: what the command needs of each stream.
            speculate: take streams of which the cache holds nothing for empty.
        """
        cache = self._cache
        streams: dict[StreamId, LoadedStream] = {}
        assumes_empty = False
        for stream, need in needs.items():
            if not cache.knows(stream):
                if not speculate or not cache.is_unknown(stream):
                    return None
                streams[stream] = _EMPTY
                assumes_empty = True
                continue
            if need is EVENTS:
                if (events := cache.events(stream)) is None:
                    return None
                streams[stream] = LoadedStream(len(events), events[-1].position if events else 0, events)
                continue
            if need is VERSION:
                streams[stream] = LoadedStream(cache.version(stream))
                continue
            loaded = self._cached(stream, need)
            # Many events to fold into a state are left to a load, which folds them once for all commands that ask.
            if loaded is None or len(loaded.events) > FOLD_AT_ONCE:
                return None
            streams[stream] = loaded
        return Loaded(streams, 0, cache.epoch, read_from_store=False, assumes_empty=assumes_empty)

    def from_refusal(self, needs: Needs, refused: Refused, cache_epoch: int) -> Loaded | None:
        """What an append has found when it refused the command, which is as good as a read; ``None`` if some of it is missing.

        Args:
            needs: what the command needs of each stream.
            refused: what the append has found.
            cache_epoch: the epoch of the cache when it did.
        """
        if cache_epoch != self._cache.epoch:
            return None
        streams: dict[StreamId, LoadedStream] = {}
        for stream, need in needs.items():
            version = refused.versions.get(stream)
            if version is None:
                return None
            if need is VERSION or (not version and self._cache.is_unknown(stream)):
                streams[stream] = LoadedStream(version)
                continue
            loaded = self._cached(stream, need)
            if loaded is None or loaded.version < version or len(loaded.events) > FOLD_AT_ONCE:
                return None
            streams[stream] = loaded
        return Loaded(streams, refused.head, cache_epoch)

    async def load(self, needs: Needs, new_fold: Callable[[], CommandFold] | None = None, origin: Any = None) -> Loaded:
        """Read streams up to one snapshot of the store, and what this process has committed since.

        Args:
            needs: what the command needs of each stream.
            new_fold: makes the command's own fold, if it has one. A stream that is too large to be held is folded while it is
                read.
            origin: the command's span.

        Raises:
            StoreError: the store cannot be read, or was closed.
            InvalidCommand: a class of stream states cannot be used.
            Exception: what a fold has raised.
        """
        if not needs:
            return Loaded({}, 0, self._cache.epoch)
        for need in needs.values():
            if not isinstance(need, str):
                self._states.codec(need)
        for _ in range(_MAX_LOADS - 1):
            with suppress(*BEGIN_ANEW):
                return await self._load(needs, new_fold, origin)
        return await self._load(needs, new_fold, origin)

    async def _load(self, needs: Needs, new_fold: Callable[[], CommandFold] | None, origin: Any) -> Loaded:
        use_snapshots = True
        while True:
            # Streams that are being read will be in the cache, or else are read again for all that waited meanwhile.
            for stream in needs:
                while (reading := self._reads.get(stream)) is not None:
                    await reading.ended()
            if self._closed:
                raise own_copy(_CLOSED)
            request = Request(needs, new_fold, use_snapshots, origin, asyncio.get_running_loop().create_future())
            self._queue.append(request)
            self._wake.set()
            try:
                # Cancellation point: it cancels this request only, not the call that it shares with others.
                first = await request.future
                if first is None:
                    continue
                if isinstance(first, StoreError):
                    raise own_copy(first)
                loaded = await self._finish(request, first)
            finally:
                request.is_abandoned = True
            if loaded is not None:
                return loaded
            use_snapshots = use_snapshots and not first.unreadable.intersection(needs)

    async def _finish(self, request: Request, first: FirstPage) -> Loaded | None:
        """What the request asked for, once its streams are read to their ends; ``None`` if it must be asked again."""
        needs, page = request.needs, first.page
        for stream, need in needs.items():
            if need is not VERSION and (failure := first.failures.get(stream)):
                raise own_copy(failure)
        if first.unreadable.intersection(needs):
            return None
        reads = {stream: read for stream in needs if (read := first.reads.get(stream))}
        for stream, read in reads.items():
            await read.wait(request.fold or first.folds.get((stream, needs[stream])))
        if request.new_fold is not None and reads:
            if request.fold is not None:
                streams = {stream: LoadedStream(read.versions[stream], page.head) for stream, read in reads.items()}
                return Loaded(streams, page.head, first.cache_epoch, fold=request.fold)
            if all(map(self._cache.begins, needs)):
                return None
            return await self._fold_together(needs, request.new_fold(), first)
        loaded: dict[StreamId, LoadedStream] = {}
        for stream, need in needs.items():
            if (read := reads.get(stream)) is None:
                loaded[stream] = self._assembled(stream, need, first)
            elif (fold := first.folds.get((stream, need))) is not None:
                kept = self._states.keep(stream, fold, first.cache_epoch)
                loaded[stream] = LoadedStream(kept.version, kept.position, (), kept, fold.events)
            else:
                loaded[stream] = LoadedStream(read.versions[stream])
        return Loaded(loaded, page.head, first.cache_epoch)

    async def _fold_together(self, needs: Needs, fold: CommandFold, first: FirstPage) -> Loaded:
        """Fold several streams of which one is too large to be held, page by page in order of position."""
        begun = Page(
            {stream: list(first.events(stream, EVENTS)) for stream in needs},
            {stream: first.ends[stream] for stream in needs},
            first.page.more.intersection(needs),
        )
        together = PagedRead(begun, lambda after: self._read_on(after, first, learn=False), self._pages)
        together.add(fold, lambda: True)
        await together.read_all()
        await together.wait(fold)
        head = first.page.head
        streams = {stream: LoadedStream(together.versions[stream], head) for stream in needs}
        return Loaded(streams, head, first.cache_epoch, fold=fold)

    def _assembled(self, stream: StreamId, need: Need, first: FirstPage) -> LoadedStream:
        """What a command needs of a stream that ended within the first page."""
        version = first.ends[stream]
        if need is VERSION:
            return LoadedStream(version)
        if first.cache_epoch == self._cache.epoch:
            # The cache holds the page now, and perhaps newer events.
            cached = self._cached(stream, need)
            if cached is not None and cached.version >= version:
                return cached
        events, base = first.events(stream, need), first.bases.get((stream, need))
        position = events[-1].position if events else base.position if base is not None else 0
        return LoadedStream(version, position, events, base)

    def _cached(self, stream: StreamId, need: Need) -> LoadedStream | None:
        """What a command needs of a stream, from the cache; ``None`` if the cache lacks it."""
        base: KeptState | None = None
        if need is EVENTS:
            events = self._cache.events(stream)
        elif not isinstance(need, str) and (base := self._cache.state(stream, need)) is not None:
            events = self._cache.tail(stream, base.version)
        else:
            events = self._cache.tail(stream, 0) if self._cache.begins(stream) else None
        if events is None:
            return None
        if events:
            return LoadedStream(events[-1].version, events[-1].position, events, base)
        return LoadedStream(base.version, base.position, (), base) if base is not None else LoadedStream(0)

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await until_settled(self._queue, _MAX_STREAMS)
                    self._serving = self._take()
                    await self._serve(self._serving)
                    self._serving = []
        finally:
            # However this task ends, answer every waiting load.
            self._closed = True
            for request in (*self._serving, *self._queue):
                answer(request.future, _CLOSED)

    def _take(self) -> list[Request]:
        taken: list[Request] = []
        streams = 0
        while self._queue and streams < _MAX_STREAMS:
            request = self._queue.popleft()
            if not self._reads.keys().isdisjoint(request.needs):
                # The read has begun since this request was queued: the request waits for it, as later ones do.
                answer(request.future, None)
            elif not request.future.done():
                taken.append(request)
                streams += len(request.needs)
        return taken

    async def _serve(self, requests: list[Request]) -> None:
        """Read the streams of all requests in one call, so in one snapshot, and answer the requests with it."""
        if not requests:
            return
        # Read the epoch before the call: if the store goes back in time during it, the result must not enter the cache.
        first = FirstPage(self._cache.epoch)
        keys = self._prepare(first, requests)
        result: Answer = first
        try:
            origins = [request.origin for request in requests]
            first.page = await self._read(first.after, None, first.cache_epoch, origins, keys)
            if first.cache_epoch == self._cache.epoch:
                self._cache.redactions = first.page.redactions
            self._take_snapshots(first, keys)
            for stream, rows in first.page.rows.items():
                await self._learn(first, stream, rows)
                first.ends[stream] = first.after[stream] + len(rows)
            # Only the decoded events are held on.
            first.page = msgspec.structs.replace(first.page, rows={})
            self._read_further(first, requests)
        except Exception as error:  # noqa: BLE001  # becomes the answer of each request
            result = as_store_error(error)
        await answer_all(deque([(request.future, result) for request in requests]))

    def _prepare(self, first: FirstPage, requests: Sequence[Request]) -> dict[StreamId, type[StreamState]]:
        """Note what the requests need, and what of it is known. Returns the streams whose stored states are wanted."""
        wanted: dict[StreamId, type[StreamState]] = {}
        for request in requests:
            for stream, need in request.needs.items():
                needs = first.needs.setdefault(stream, set())
                if need in needs:
                    continue
                needs.add(need)
                version = self._known(first, stream, need)
                first.after[stream] = min(version, first.after.get(stream, version))
                if not isinstance(need, str) and not version and request.use_snapshots and need.snapshot_every is not None:
                    wanted[stream] = need
        # Rows that begin behind a stored state are of use only to those that need the same state, or no events at all.
        return {stream: kind for stream, kind in wanted.items() if first.needs[stream] <= {kind, VERSION}}

    def _known(self, first: FirstPage, stream: StreamId, need: Need) -> int:
        """Note what the cache holds of a stream. Returns its version."""
        if need is VERSION:
            return self._cache.version(stream)
        cached = self._cached(stream, need)
        if cached is None:
            return 0
        if cached.base is not None:
            first.bases[stream, need] = cached.base
        first.known[stream, need] = cached.events
        return cached.version

    def _take_snapshots(self, first: FirstPage, wanted: Mapping[StreamId, type[StreamState]]) -> None:
        """Take the stored states, from which the rows lead on, into the cache."""
        page = first.page
        for stream, kind in wanted.items():
            snapshot = page.snapshots.get(stream)
            if snapshot is None:
                self._states.count_read("miss")
                continue
            first.after[stream] = snapshot.version
            kept = self._states.from_snapshot(kind, snapshot, page.head)
            if kept is None:
                self._states.count_read("error")
                first.unreadable.add(stream)
            elif first.cache_epoch != self._cache.epoch:
                self._states.count_read("stale")
                first.unreadable.add(stream)
            else:
                self._states.count_read("hit")
                first.bases[stream, kind] = kept
                self._cache.keep(stream, kept)

    async def _learn(self, first: FirstPage, stream: StreamId, rows: Sequence[StoredEvent]) -> None:
        """Decode the rows of one stream, and add them to the cache."""
        begin = first.after[stream]
        if stream in first.unreadable:
            return
        if first.needs[stream] == {VERSION} and not self._cache.knows(stream):
            # Only the number of the rows is of interest.
            if stream not in first.page.more and first.cache_epoch == self._cache.epoch:
                self._cache.know(stream, begin + len(rows))
            return
        try:
            events, sizes = await self._decode(stream, rows)
        except StoreError as error:  # fails only the loads that need the events of this stream
            first.failures[stream] = error
            return
        first.decoded[stream] = events
        if first.cache_epoch != self._cache.epoch:
            return
        # News in a stream that was cached, and that this process has not appended: another process writes there.
        contested = bool(events) and 0 < self._cache.version(stream) < events[-1].version and stream not in first.page.snapshots
        contested = contested and stream not in self._cache.appending
        self._cache.extend(stream, events, sizes, begin)
        if contested:
            self._cache.contest(stream)

    async def _decode(self, stream: StreamId, rows: Sequence[StoredEvent]) -> tuple[list[RecordedEvent], list[int]]:
        """The events of some rows, and the memory that each takes."""
        events: list[RecordedEvent] = []
        sizes: list[int] = []
        size_of, metadata = self._cache.sizes.of, None
        for number, row in enumerate(rows):
            if number and number % _DECODE_AT_ONCE == 0:
                await asyncio.sleep(0)
            event = self._codec.decode(row, stream)
            events.append(event)
            sizes.append(size_of(event, len(row.data), metadata))
            metadata = event.metadata
        return events, sizes

    def _read_further(self, first: FirstPage, requests: Sequence[Request]) -> None:
        """Start to read streams that go on behind the page, and to fold states that many events lead to."""
        # Of more than 500 events, at least half are in the rows or in the cache: nearly all streams are passed over here.
        half = FOLD_AT_ONCE // 2
        long = [stream for stream, end in first.ends.items() if end - first.after[stream] >= half]
        known = [stream for (stream, need), events in first.known.items() if need is not EVENTS and len(events) >= half]
        for stream in {*first.page.more, *long, *known}:
            needs = first.needs[stream]
            if stream in first.failures or stream in first.unreadable:
                continue
            kinds = [need for need in needs if not isinstance(need, str)]
            folded = max((first.events(stream, kind) for kind in kinds), key=len, default=())
            goes_on = stream in first.page.more
            if not goes_on and len(folded) <= FOLD_AT_ONCE:
                continue
            initial = first.events(stream, EVENTS) if EVENTS in needs else folded
            more = frozenset((stream,)) if goes_on else frozenset[StreamId]()
            decode = needs != {VERSION}
            begun = Page({stream: list(initial)}, {stream: first.ends[stream]}, more)
            read = PagedRead(begun, partial(self._read_on, first=first, decode=decode), self._pages)
            for kind in kinds:
                fold = first.folds[stream, kind] = self._states.fold(kind, first.bases.get((stream, kind)))
                read.add(fold, lambda: True)
            if goes_on:
                for request in requests:
                    if list(request.needs) == [stream] and request.new_fold is not None:
                        # If it cannot be made, the command will find out by itself.
                        with suppress(Exception):
                            request.fold = request.new_fold()
                            read.add(request.fold, partial(_is_waiting, request))
            first.reads[stream] = self._reads[stream] = read
            reading = read.start(partial(self._reads.pop, stream))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)

    async def _read_on(self, after: dict[StreamId, int], first: FirstPage, *, decode: bool = True, learn: bool = True) -> Page:
        """Read the next page of some streams, up to the snapshot of the first page."""
        page = await self._read(after, first.page.head, first.cache_epoch)
        events: dict[StreamId, list[RecordedEvent]] = {}
        versions: dict[StreamId, int] = {}
        for stream, version in after.items():
            rows = page.rows[stream]
            versions[stream] = version + len(rows)
            events[stream] = []
            is_known = learn and first.cache_epoch == self._cache.epoch
            if decode:
                events[stream], sizes = await self._decode(stream, rows)
                if is_known:
                    self._cache.extend(stream, events[stream], sizes, version)
            elif is_known and stream not in page.more:
                self._cache.know(stream, versions[stream])
        return Page(events, versions, page.more)

    async def _read(
        self,
        after: Mapping[StreamId, int],
        up_to: int | None,
        cache_epoch: int,
        origins: Sequence[Any] = (),
        wanted: Mapping[StreamId, type[StreamState]] = _NOTHING,
    ) -> BackendPage:
        keys = {stream: self._states.codec(kind).key for stream, kind in wanted.items()}
        try:
            return await self._log.read_streams(after, up_to=up_to, origins=origins, snapshots=keys)
        except BEGIN_ANEW:
            self._cache.forget(cache_epoch)
            raise


def _is_waiting(request: Request) -> bool:
    return not request.is_abandoned
