"""Reading streams that do not fit into one page: page after page, folded as it comes, and shared by all that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol, final

import msgspec

from eventcore.commands.streams.folding import FOLD_AT_ONCE
from eventcore.errors import StoreClosed, StoreError
from eventcore.events import RecordedEvent, StreamId
from eventcore.ground import OwnedTask, spawn
from eventcore.stores.failures import as_store_error, own_copy

_by_position: Final = attrgetter("position")


class Consumer(Protocol):
    """What takes the events of a read: a fold."""

    def feed(self, events: Sequence[RecordedEvent], /) -> None:
        """Take the next events, all streams together in order of position."""
        ...


class Page(msgspec.Struct, frozen=True, gc=False):
    """The next events of some streams.

    Attributes:
        events: by stream, in order of version; empty lists for streams of which only the version is wanted.
        versions: the version of each stream behind the page.
        more: the streams that go on.
    """

    events: dict[StreamId, list[RecordedEvent]]
    versions: dict[StreamId, int]
    more: frozenset[StreamId]


ReadPage = Callable[[dict[StreamId, int]], Coroutine[Any, Any, Page]]


@final
class PagedRead:
    """Reads one or several streams to their end, and feeds folds with their events in order of position.

    Never more than a page of each stream is held, besides what the cache holds of them.

    Args:
        first: the first page.
        read: reads the next page behind the given versions.
        pages: as many pages as all reads of a store may hold at once.

    Attributes:
        versions: the version of each stream that was read so far.
    """

    def __init__(self, first: Page, read: ReadPage, pages: asyncio.Semaphore) -> None:
        self._read = read
        self._pages = pages
        self._waiting = {stream: list(events) for stream, events in first.events.items()}
        self._more = first.more
        self._failure: StoreError | None = None
        self._consumers: list[tuple[Consumer, Callable[[], bool]]] = []
        self._broken: dict[int, tuple[BaseException, Any]] = {}
        self._done = asyncio.Event()
        self.versions = dict(first.versions)

    def add(self, consumer: Consumer, is_wanted: Callable[[], bool]) -> None:
        """Feed another fold. Only before ``start``."""
        self._consumers.append((consumer, is_wanted))

    def start(self, ended: Callable[[], object]) -> OwnedTask[None]:
        """Start to read. ``ended`` is called at the end, however it comes."""
        return spawn(self._run(ended), "eventcore-paged-read")

    async def wait(self, consumer: Consumer | None = None) -> None:
        """Wait until all is read.

        Raises:
            StoreError: the store cannot be read, or was closed.
            Exception: the fold ``consumer`` has raised it.
        """
        await self._done.wait()
        if self._failure is not None:
            raise own_copy(self._failure)
        if consumer is not None and (broken := self._broken.get(id(consumer))) is not None:
            error, traceback = broken
            # Several callers may raise it; each begins with the traceback of the fold.
            raise error.with_traceback(traceback)

    async def ended(self) -> None:
        """Wait until the read has ended, well or not."""
        await self._done.wait()

    async def read_all(self) -> None:
        """Read in the caller's task, instead of ``start``.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            await self._read_all()
        finally:
            self._end()

    async def _run(self, ended: Callable[[], object]) -> None:
        try:
            # What is raised if this task is cancelled.
            self._failure = StoreClosed("the store was closed while the command was reading")
            await self._read_all()
            self._failure = None
        except Exception as error:  # noqa: BLE001  # raised to all that wait
            self._failure = as_store_error(error)
        finally:
            ended()
            self._end()

    def _end(self) -> None:
        # The folds and `_read` hold the commands and the first page, which in turn hold this object. Events in such a cycle
        # would stay in memory until the garbage collector finds them.
        del self._read
        self._waiting.clear()
        self._consumers.clear()
        self._done.set()

    async def _read_all(self) -> None:
        await self._feed(self._ready())
        while self._more:
            async with self._pages:
                await self._read_page()

    async def _read_page(self) -> None:
        wanted = {stream: self.versions[stream] for stream in self._more if not self._waiting[stream]}
        page = await self._read(wanted)
        for stream in wanted:
            self._waiting[stream] = page.events[stream]
            self.versions[stream] = page.versions[stream]
        self._more = (self._more - wanted.keys()) | page.more
        await self._feed(self._ready())

    def _ready(self) -> list[RecordedEvent]:
        """Take the events that no event of a later page can precede."""
        waiting = self._waiting
        if len(waiting) == 1:
            ((stream, events),) = waiting.items()
            waiting[stream] = []
            return events
        bounds = [waiting[stream][-1].position if waiting[stream] else 0 for stream in self._more]
        bound = min(bounds, default=None)
        ready: list[RecordedEvent] = []
        for stream, events in waiting.items():
            count = len(events) if bound is None else sum(1 for event in events if event.position <= bound)
            ready += events[:count]
            waiting[stream] = events[count:]
        ready.sort(key=_by_position)
        return ready

    async def _feed(self, events: Sequence[RecordedEvent]) -> None:
        for start in range(0, len(events), FOLD_AT_ONCE):
            part = events[start : start + FOLD_AT_ONCE]
            for consumer, is_wanted in self._consumers:
                if id(consumer) in self._broken or not is_wanted():
                    continue
                # The fold runs code of the command. Its exception is for those that wait for this fold only.
                try:
                    consumer.feed(part)
                except BaseException as error:  # noqa: BLE001  # see above
                    self._broken[id(consumer)] = error, error.__traceback__
                await asyncio.sleep(0)
