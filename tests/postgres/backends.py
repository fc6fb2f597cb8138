"""What tests of the backend say to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

from eventcore import RecordedEvent, StreamId
from eventcore.errors import StoreUnavailable
from eventcore.events import EventMetadata
from eventcore.events.codec import Codec, StoredEvent
from eventcore.recording import IdGenerator
from eventcore.stores import AppendRequest, Backend, EventFilter, NewEvent
from tests.real_parts.postgres import ForeignPostgres, PostgresServer
from tests.store.bank import Deposited

T = TypeVar("T")
Server: TypeAlias = PostgresServer | ForeignPostgres


class OpenBackend(Protocol):
    """The type of the fixture ``open_backend``."""

    async def __call__(self, url: str) -> Backend:
        """Open the backend of a URL."""


_codec = Codec()
_ids = IdGenerator()


def new_event(stream: str, version: int, amount: int = 1) -> NewEvent:
    data, event = _codec.encode(Deposited(amount=amount))
    recorded = RecordedEvent(
        StreamId(stream), version, 0, event, EventMetadata(), _ids.hex32(), "bank.Deposited", 1_700_000_000_000_000_000
    )
    return NewEvent(recorded, data, b"{}")


def request(
    read: Mapping[str, int], *writes: str, base: Mapping[str, int] | None = None, events: Sequence[NewEvent] = ()
) -> AppendRequest:
    """A request that has seen these versions (when the call began: ``base``) and writes an event into each of ``writes``."""
    expected = {StreamId(stream): version for stream, version in read.items()}
    began = expected if base is None else {StreamId(stream): version for stream, version in base.items()}
    now = dict(read)
    made = list(events)
    for stream in writes:
        now[stream] += 1
        made.append(new_event(stream, now[stream]))
    return AppendRequest(began, expected, made)


async def as_soon_as_it_answers(call: Callable[[], Awaitable[T]], timeout: float = 10) -> T:
    """Make a call until it does not raise StoreUnavailable: a probe finds within about a second that a server is back."""
    async with asyncio.timeout(timeout):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.02)


async def everything(backend: Backend) -> Sequence[StoredEvent]:
    return await backend.log.scan(0, 1 << 40, 100_000, EventFilter())


async def log(backend: Backend) -> list[tuple[int, str, int]]:
    """Position, stream and version of every event."""
    return [(row.position, row.stream_id, row.version) for row in await everything(backend)]
