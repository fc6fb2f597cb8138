"""Loading streams for commands: reads that are asked for at about the same time become one call and one snapshot."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from eventcore.commands.cache import StreamCache
from eventcore.commands.gathering import until_settled
from eventcore.errors import HistoryDiverged, StoreClosed, StoreError
from eventcore.events import RecordedEvent, StreamId
from eventcore.events.codec import Codec, StoredEvent
from eventcore.stores.base import BackendPage, EventLog
from eventcore.stores.failures import as_store_error, own_copy

_MAX_STREAMS: Final = 512
_YIELD_EVERY: Final = 500
# Each answer makes a command fold and go on: the event loop must not wait for all of them.
_ANSWER_AT_ONCE: Final = 32
# A history that diverges again and again is not read to its end.
_MAX_LOADS: Final = 5
_CLOSED: Final = StoreClosed("the store was closed while the command was reading")


@final
class Loaded:
    """The whole of some streams, each up to the snapshot at position ``head`` or later.

    ``cache_epoch`` is that of the cache when it was read. ``read_from_store`` is false for what the cache held: it may be
    behind the store.
    """

    __slots__ = ("cache_epoch", "events", "head", "read_from_store")

    def __init__(
        self, events: dict[StreamId, Sequence[RecordedEvent]], head: int, cache_epoch: int, *, read_from_store: bool = True
    ) -> None:
        self.events = events
        self.head = head
        self.cache_epoch = cache_epoch
        self.read_from_store = read_from_store


class _Request:
    __slots__ = ("future", "origin", "streams")

    def __init__(self, streams: Sequence[StreamId], origin: Any, future: asyncio.Future[_FirstPage | StoreError]) -> None:
        self.streams = streams
        self.origin = origin
        self.future = future


class _FirstPage:
    """What one call to the backend brought, for all the loads that shared it."""

    __slots__ = ("after", "cache_epoch", "decoded", "failures", "page")

    def __init__(self, page: BackendPage, after: Mapping[StreamId, int], cache_epoch: int) -> None:
        self.page = page
        self.cache_epoch = cache_epoch
        self.after = after
        self.decoded: dict[StreamId, list[RecordedEvent]] = {}
        self.failures: dict[StreamId, StoreError] = {}


@final
class Loader:
    """Reads streams through the cache.

    Each load asks the backend for what stands behind the cached version, so that it is right whoever else writes. What is
    ``from_cache`` saves that call to a command that is going to write: its append looks whether it was right.
    """

    def __init__(self, log: EventLog, codec: Codec, cache: StreamCache) -> None:
        self._log = log
        self._codec = codec
        self._cache = cache
        self._waiting: deque[_Request] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._serving: list[_Request] = []
        self._closed = False

    def start(self) -> None:
        """Begin to serve loads on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="eventcore-loader", context=contextvars.Context())

    async def close(self) -> None:
        """Stop; loads that still wait fail with ``StoreClosed``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def from_cache(self, streams: Sequence[StreamId]) -> Loaded | None:
        """The streams as this process knows them, ``None`` when it does not hold all of them or somebody else writes to one."""
        events: dict[StreamId, Sequence[RecordedEvent]] = {}
        current = self._cache.current
        for stream in streams:
            known = current(stream)
            if known is None:
                return None
            events[stream] = known
        return Loaded(events, 0, self._cache.epoch, read_from_store=False)

    async def load(self, streams: Sequence[StreamId], origin: Any = None) -> Loaded:
        """Everything that stands in ``streams``, of one snapshot or known to have been committed since by this process."""
        if not streams:
            return Loaded({}, 0, self._cache.epoch)
        for _ in range(_MAX_LOADS - 1):
            try:
                return await self._load(streams, origin)
            except HistoryDiverged:
                continue
        return await self._load(streams, origin)

    async def _load(self, streams: Sequence[StreamId], origin: Any) -> Loaded:
        if self._closed:
            raise own_copy(_CLOSED)
        future: asyncio.Future[_FirstPage | StoreError] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(streams, origin, future))
        self._wake.set()
        first = await future
        if isinstance(first, StoreError):
            raise own_copy(first)
        events: dict[StreamId, Sequence[RecordedEvent]] = {}
        for stream in streams:
            if failure := first.failures.get(stream):
                raise own_copy(failure)
            # Most streams end within the first page and are held by the cache now.
            held = self._cache.events(stream) if len(first.page.rows[stream]) < first.page.limit else None
            events[stream] = held if held is not None else await self._read_on(stream, first)
        return Loaded(events, first.page.head, first.cache_epoch)

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await until_settled(self._waiting, _MAX_STREAMS)
                    self._serving = self._take()
                    await self._serve(self._serving)
        finally:
            # Whatever ends this task, nobody may wait for ever.
            self._closed = True
            for request in (*self._serving, *self._waiting):
                if not request.future.done():
                    request.future.set_result(_CLOSED)

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        streams = 0
        while self._waiting and streams < _MAX_STREAMS:
            request = self._waiting.popleft()
            if not request.future.done():
                taken.append(request)
                streams += len(request.streams)
        return taken

    async def _serve(self, requests: list[_Request]) -> None:
        cache_epoch, complete_version = self._cache.epoch, self._cache.complete_version
        after = {stream: complete_version(stream) for request in requests for stream in request.streams}
        if not after:
            return
        answer: _FirstPage | StoreError
        try:
            page = await self._read(after, None, cache_epoch, [request.origin for request in requests])
            answer = _FirstPage(page, after, cache_epoch)
            for stream, version in after.items():
                await self._learn(answer, stream, version)
        except Exception as error:  # noqa: BLE001  # each of those who asked gets it
            answer = as_store_error(error)
        for number, request in enumerate(requests, 1):
            if not request.future.done():
                request.future.set_result(answer)
            if number % _ANSWER_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _learn(self, first: _FirstPage, stream: StreamId, version: int) -> None:
        events: list[RecordedEvent] = []
        if rows := first.page.rows[stream]:
            try:
                events = await self._decode(stream, rows)
            except StoreError as error:  # fails those only who read this stream
                first.failures[stream] = error
                return
        first.decoded[stream] = events
        if first.cache_epoch != self._cache.epoch:
            return
        others = bool(events) and version > 0 and self._cache.version(stream) < events[-1].version
        self._cache.extend(stream, events, version)
        if others:
            self._cache.contest(stream)

    async def _decode(self, stream: StreamId, rows: Sequence[StoredEvent]) -> list[RecordedEvent]:
        if len(rows) <= _YIELD_EVERY:
            return [self._codec.decode(row, stream) for row in rows]
        events: list[RecordedEvent] = []
        for start in range(0, len(rows), _YIELD_EVERY):
            events += [self._codec.decode(row, stream) for row in rows[start : start + _YIELD_EVERY]]
            await asyncio.sleep(0)
        return events

    async def _read_on(self, stream: StreamId, first: _FirstPage) -> list[RecordedEvent]:
        """The rest of a long stream, page by page, as it stood in the first page's snapshot."""
        version = first.after[stream]
        events = list(self._cache.events(stream) or ())[:version] if version else []
        if len(events) < version:  # the cache has let go of it since
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
