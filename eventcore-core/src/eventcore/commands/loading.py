"""Loading streams for commands: loads that are requested at about the same time become one call and one snapshot."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias, final

import msgspec

from eventcore.commands.cache import StreamCache
from eventcore.errors import HistoryDiverged, StoreClosed, StoreError
from eventcore.events import RecordedEvent, StreamId
from eventcore.events.codec import Codec, StoredEvent
from eventcore.ground import OwnedTask, cancel_and_wait, spawn
from eventcore.ground.gathering import answer, answer_all, until_settled
from eventcore.stores.base import BackendPage, EventLog
from eventcore.stores.failures import as_store_error, own_copy

_MAX_STREAMS: Final = 512
# Events to decode before the event loop runs once.
_DECODE_AT_ONCE: Final = 500
# Loads of one request while the history of the store keeps diverging; the last one raises.
_MAX_LOADS: Final = 5
_CLOSED: Final = StoreClosed("the store was closed while the command was reading")


@final
class Loaded(msgspec.Struct, frozen=True):
    """All events of some streams, each stream read up to position ``head`` or later.

    Attributes:
        events: the events by stream, in order.
        head: the position of the snapshot; 0 if the cache answered.
        cache_epoch: the epoch of the cache when the streams were read.
        read_from_store: false if the cache answered, which may be behind the store.
    """

    events: dict[StreamId, Sequence[RecordedEvent]]
    head: int
    cache_epoch: int
    read_from_store: bool = True


class _FirstPage(msgspec.Struct, eq=False):
    """The answer of one call to the backend, shared by all loads that the call served.

    Attributes:
        page: the rows, and the position of the snapshot.
        after: the version behind which each stream was read.
        cache_epoch: the epoch of the cache before the call.
        decoded: the decoded rows by stream.
        failures: the streams that could not be decoded.
    """

    page: BackendPage
    after: Mapping[StreamId, int]
    cache_epoch: int
    decoded: dict[StreamId, list[RecordedEvent]] = {}
    failures: dict[StreamId, StoreError] = {}


_Answer: TypeAlias = _FirstPage | StoreError


class _Request(msgspec.Struct, eq=False):
    streams: Sequence[StreamId]
    origin: Any
    future: asyncio.Future[_Answer]


@final
class Loader:
    """Reads streams through the cache.

    A load asks the backend only for events behind the cached version, so its result is right even if other processes write.
    ``from_cache`` saves that call for a command that is going to write: its append then checks that the cache was right.

    ``load`` runs in the callers' tasks, the calls to the backend in the loader's task, all on the store's event loop.
    """

    def __init__(self, log: EventLog, codec: Codec, cache: StreamCache) -> None:
        self._log = log
        self._codec = codec
        self._cache = cache
        self._queue: deque[_Request] = deque()
        self._wake = asyncio.Event()
        self._task: OwnedTask[None] | None = None
        self._serving: list[_Request] = []
        self._closed = False

    def start(self) -> None:
        """Start the loader's task on the running loop."""
        self._task = spawn(self._run(), "eventcore-loader")

    async def close(self) -> None:
        """Stop; waiting loads fail with ``StoreClosed``."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None

    def from_cache(self, streams: Sequence[StreamId]) -> Loaded | None:
        """The cached streams; ``None`` if one of them is incomplete or contested by another writer."""
        events: dict[StreamId, Sequence[RecordedEvent]] = {}
        current = self._cache.current
        for stream in streams:
            cached = current(stream)
            if cached is None:
                return None
            events[stream] = cached
        return Loaded(events, 0, self._cache.epoch, read_from_store=False)

    async def load(self, streams: Sequence[StreamId], origin: Any = None) -> Loaded:
        """All events of ``streams``: up to one snapshot of the store, and what this process has committed since.

        Raises:
            StoreError: the store cannot be read, or was closed.
        """
        if not streams:
            return Loaded({}, 0, self._cache.epoch)
        for _ in range(_MAX_LOADS - 1):
            with suppress(HistoryDiverged):
                return await self._load(streams, origin)
        return await self._load(streams, origin)

    async def _load(self, streams: Sequence[StreamId], origin: Any) -> Loaded:
        if self._closed:
            raise own_copy(_CLOSED)
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(streams, origin, future))
        self._wake.set()
        # Cancellation point: it cancels this request only, not the call that it shares with others.
        first = await future
        if isinstance(first, StoreError):
            raise own_copy(first)
        events: dict[StreamId, Sequence[RecordedEvent]] = {}
        for stream in streams:
            if failure := first.failures.get(stream):
                raise own_copy(failure)
            # Most streams end within the first page; the cache holds them now, and perhaps newer events.
            cached = self._cache.events(stream) if len(first.page.rows[stream]) < first.page.limit else None
            events[stream] = cached if cached is not None else await self._read_on(stream, first)
        return Loaded(events, first.page.head, first.cache_epoch)

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await until_settled(self._queue, _MAX_STREAMS)
                    self._serving = self._take()
                    await self._serve(self._serving)
        finally:
            # However this task ends, answer every waiting load.
            self._closed = True
            for request in (*self._serving, *self._queue):
                answer(request.future, _CLOSED)

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        streams = 0
        while self._queue and streams < _MAX_STREAMS:
            request = self._queue.popleft()
            if not request.future.done():
                taken.append(request)
                streams += len(request.streams)
        return taken

    async def _serve(self, requests: list[_Request]) -> None:
        """Read the streams of all requests in one call, so in one snapshot, and answer the requests with it."""
        # Read the epoch before the call: if the store goes back in time during it, the result must not enter the cache.
        cache_epoch, cached = self._cache.epoch, self._cache.events
        after = {stream: len(cached(stream) or ()) for request in requests for stream in request.streams}
        if not after:
            return
        result: _Answer
        try:
            page = await self._read(after, None, cache_epoch, [request.origin for request in requests])
            result = _FirstPage(page, after, cache_epoch)
            for stream in after:
                await self._learn(result, stream)
        except Exception as error:  # noqa: BLE001  # becomes the answer of each request
            result = as_store_error(error)
        await answer_all(deque([(request.future, result) for request in requests]))

    async def _learn(self, first: _FirstPage, stream: StreamId) -> None:
        """Decode the rows of one stream, and add them to the cache."""
        version = first.after[stream]
        try:
            events = await self._decode(stream, first.page.rows[stream])
        except StoreError as error:  # fails only the loads of this stream
            first.failures[stream] = error
            return
        first.decoded[stream] = events
        if first.cache_epoch != self._cache.epoch:
            return
        # News in a stream that was cached, and that this process has not appended meanwhile: another process writes there.
        contested = bool(events) and version > 0 and self._cache.version(stream) < events[-1].version
        self._cache.extend(stream, events, version)
        if contested:
            self._cache.contest(stream)

    async def _decode(self, stream: StreamId, rows: Sequence[StoredEvent]) -> list[RecordedEvent]:
        events: list[RecordedEvent] = []
        for start in range(0, len(rows), _DECODE_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            events += [self._codec.decode(row, stream) for row in rows[start : start + _DECODE_AT_ONCE]]
        return events

    async def _read_on(self, stream: StreamId, first: _FirstPage) -> list[RecordedEvent]:
        """Read the pages of a long stream behind the first page, up to the snapshot of the first page."""
        version = first.after[stream]
        events = list(self._cache.events(stream) or ())[:version] if version else []
        if len(events) < version:
            # The first page lies behind events that the cache has evicted since: read from the beginning.
            events, version, decoded, full = [], 0, [], True
        else:
            decoded, full = first.decoded[stream], len(first.page.rows[stream]) >= first.page.limit
        while True:
            events += decoded
            if first.cache_epoch == self._cache.epoch:
                self._cache.extend(stream, decoded, version)
            version += len(decoded)
            if not full:
                return events
            page = await self._read({stream: version}, first.page.head, first.cache_epoch)
            decoded = await self._decode(stream, page.rows[stream])
            full = len(decoded) >= page.limit

    async def _read(
        self, after: Mapping[StreamId, int], up_to: int | None, cache_epoch: int, origins: Sequence[Any] = ()
    ) -> BackendPage:
        try:
            return await self._log.read_streams(after, up_to=up_to, origins=origins)
        except HistoryDiverged:
            self._cache.forget(cache_epoch)
            raise
