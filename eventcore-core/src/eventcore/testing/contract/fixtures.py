"""The fixtures of the contract: the tested store as backends, and as an application opens it; and requests to a backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeAlias

import pytest
import pytest_asyncio

from eventcore.events import EventMetadata, RecordedEvent, StreamId
from eventcore.events.codec import Codec, StoredEvent
from eventcore.projections import Projection
from eventcore.recording import IdGenerator
from eventcore.store import EventStore, open_store
from eventcore.stores import AppendRequest, Backend, EventFilter, NewEvent, StreamPattern
from eventcore.testing.contract.accounts import Deposited

MakeBackend: TypeAlias = Callable[[], Backend]
"""Returns a backend that is not open yet. All backends of one function share one store, which is empty at first."""

Run: TypeAlias = Callable[..., "asyncio.Task[None]"]

_CLOSE: Final = 10.0


class ReadModel(Protocol):
    """A table of positions in the database of the store. The author of the test class creates it."""

    def write(self, transaction: Any, position: int) -> Awaitable[None] | None:
        """Insert a row through a transaction of the store: ``async def`` if the store awaits its handlers, else ``def``."""
        ...

    async def positions(self) -> Sequence[int]:
        """The rows in the order of insertion, read through another connection."""
        ...


@asynccontextmanager
async def opened_store(backend: Backend, **settings: Any) -> AsyncGenerator[EventStore]:
    """An open store without exporters; ``settings`` are further arguments of ``open_store``."""
    async with open_store(backend, name="contract", config={}, exporters="none", timeout=30.0, **settings) as store:
        yield store


class ContractFixtures:
    """A test class must override ``make_backend``, and may override ``read_model``."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """A function without arguments; see ``MakeBackend``."""
        raise NotImplementedError(
            f"{type(self).__name__} inherits the contract of stores: override its fixture make_backend so that it returns a "
            "function without arguments, which returns a backend that is not open yet. All backends share one store, which is "
            "empty at first and used by this test only"
        )

    @pytest.fixture
    def read_model(self) -> ReadModel | None:
        """A table in the store's database; ``None`` if the store gives handlers no transaction."""
        return None

    @pytest_asyncio.fixture
    async def backend(self, make_backend: MakeBackend) -> AsyncIterator[Backend]:
        backend = make_backend()
        await backend.open()
        yield backend
        await backend.close(_CLOSE)

    @pytest_asyncio.fixture
    async def another_backend(self, make_backend: MakeBackend, backend: Backend) -> AsyncIterator[Backend]:
        """A second backend of the store of ``backend``, as another process has it."""
        another = make_backend()
        await another.open()
        yield another
        await another.close(_CLOSE)

    @pytest_asyncio.fixture
    async def store(self, make_backend: MakeBackend) -> AsyncIterator[EventStore]:
        async with opened_store(make_backend()) as store:
            yield store

    @pytest_asyncio.fixture
    async def another_store(self, make_backend: MakeBackend, store: EventStore) -> AsyncIterator[EventStore]:
        """A second store on the data of ``store``, as another process has it."""
        async with opened_store(make_backend()) as another:
            yield another

    @pytest_asyncio.fixture
    async def run(self) -> AsyncIterator[Run]:
        """A function that starts a projection. Its task is cancelled when the test ends."""
        tasks: list[asyncio.Task[None]] = []

        def run(store: EventStore, projection: Projection, *, lease: float = 5.0) -> asyncio.Task[None]:
            tasks.append(asyncio.create_task(store.run(projection, lease=lease)))
            return tasks[-1]

        yield run
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE)


# How the contract talks to a backend directly: requests to append, and what the log holds afterwards.

EVERYTHING: Final = EventFilter()

LARGEST_PAGE: Final = 8 << 20
"""The bytes that a page may have, if it has more than one event."""

_codec: Final = Codec()
_ids: Final = IdGenerator()
_TIME: Final = 1_700_000_000_123_456_789


def new_event(
    stream: StreamId,
    version: int,
    *,
    data: bytes | None = None,
    event_type: str = Deposited.event_type,
    metadata: bytes = b"{}",
) -> NewEvent:
    """A new event. ``data`` and ``event_type`` need not belong to an event class."""
    encoded, event = _codec.encode(Deposited(amount=1))
    recorded = RecordedEvent(stream, version, 0, event, EventMetadata(), _ids.hex32(), event_type, _TIME)
    return NewEvent(recorded, encoded if data is None else data, metadata)


def request(read: Mapping[StreamId, int], *writes: StreamId, expected: Mapping[StreamId, int] | None = None) -> AppendRequest:
    """A request that writes one event to each of ``writes``.

    Args:
        read: the versions of its streams when the call begins.
        expected: the versions after the earlier requests of the call; left out, ``read``.
    """
    before = dict(read if expected is None else expected)
    now = dict(before)
    events: list[NewEvent] = []
    for stream in writes:
        now[stream] += 1
        events.append(new_event(stream, now[stream]))
    return AppendRequest(read, before, events)


async def fill(backend: Backend, *streams: StreamId) -> None:
    """Append one event to each of ``streams`` of an empty store."""
    assert await backend.log.append([request(dict.fromkeys(streams, 0), *streams)]) == [1], (
        "an empty store must accept the first append"
    )


async def everything(backend: Backend) -> list[StoredEvent]:
    rows: list[StoredEvent] = []
    while page := await backend.log.scan(rows[-1].position if rows else 0, 1 << 40, 1 << 20, EVERYTHING):
        rows += page
    return rows


async def fill_large(backend: Backend, streams: Iterable[StreamId], count: int, size: int) -> None:
    """Append ``count`` events to each of ``streams`` of an empty store, in turns; each has ``size`` bytes of data."""
    data = b'{"amount":1,"note":"' + b"x" * (size - 22) + b'"}'
    for version in range(1, count + 1):
        for stream in streams:
            new = [new_event(stream, version, data=data)]
            await backend.log.append([AppendRequest({stream: version - 1}, {stream: version - 1}, new)])


def check_size(rows: Iterable[StoredEvent]) -> None:
    sizes = [len(row.data) for row in rows]
    assert len(sizes) <= 1 or sum(sizes) <= LARGEST_PAGE, "a page must be bounded in bytes, whatever the size of its events"


async def log(backend: Backend) -> list[tuple[int, str, int]]:
    """Position, stream and version of every event, by position."""
    return [(row.position, row.stream_id, row.version) for row in await everything(backend)]


def positions(rows: Iterable[StoredEvent]) -> list[int]:
    return [row.position for row in rows]


def matching(pattern: str | None = None, *event_types: str) -> EventFilter:
    return EventFilter(None if pattern is None else StreamPattern.parse(pattern), event_types or None)
