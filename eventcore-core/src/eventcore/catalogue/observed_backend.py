"""A backend that is watched: each call with its span, its duration and what it moved."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, final

from eventcore.catalogue.backend import BackendInstruments
from eventcore.catalogue.metrics import Operation
from eventcore.catalogue.store import StoreInstruments
from eventcore.errors import StoreError
from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.recording import Span, SpanKind, TraceContext
from eventcore.stores.base import (
    CONFLICT,
    AppendRequest,
    Backend,
    BackendPage,
    Checkpoint,
    DeadLetter,
    EventFilter,
    Lease,
    LogPage,
    ProjectionRecord,
    Purpose,
    Verdict,
)
from eventcore.telemetry import Telemetry

_MAX_LINKS: Final = 64
_CLIENT: Final[SpanKind] = "client"


@final
class ObservedBackend:
    """Implements ``Backend`` by another one, and records every call."""

    def __init__(
        self, backend: Backend, telemetry: Telemetry, instruments: StoreInstruments, backend_instruments: BackendInstruments
    ) -> None:
        self.system = backend.system
        self._backend_instruments = backend_instruments
        self._backend = backend
        self._telemetry = telemetry
        self._instruments = instruments

    async def open(self) -> None:
        """Open the other."""
        await self._backend.open()

    async def close(self, timeout: float) -> None:
        """Close the other."""
        await self._backend.close(timeout)

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """Append by the other; count what was committed, whoever still waits for it."""
        instruments = self._instruments
        instruments.batch.record(float(len(requests)))
        for request in requests:
            instruments.active.touch(request.base)
        with self._call("append", "append events", [request.origin for request in requests]) as span:
            verdicts = await self._backend.append(requests)
            accepted = [
                (request.events, verdict) for request, verdict in zip(requests, verdicts, strict=True) if verdict != CONFLICT
            ]
            written = [new for events, _ in accepted for new in events]
            head = max([verdict + len(events) for events, verdict in accepted if events], default=1) - 1
            if span.recording:
                span.set_attribute("eventcore.batch.size", len(requests))
                span.set_attribute("eventcore.events", len(written))
                if written:
                    span.set_attribute("eventcore.position", head)
        instruments.committed(written)
        if head:
            self._backend_instruments.appended(head)
        return verdicts

    async def read_streams(
        self,
        after: Mapping[StreamId, int],
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
    ) -> BackendPage:
        """Read by the other."""
        if purpose == "command":
            self._instruments.active.touch(after)
        with self._call("read_streams", "read streams", origins) as span:
            page = await self._backend.read_streams(after, up_to=up_to, origins=origins, purpose=purpose)
            events = sum(map(len, page.rows.values()))
            if span.recording:
                span.set_attribute("eventcore.streams", len(after))
                span.set_attribute("eventcore.events", events)
                span.set_attribute("eventcore.position", page.head)
        if events:
            self._instruments.read[purpose].add(events)
        return page

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """Read by the other, on behalf of the application."""
        with self._call("scan", "read streams", ()) as span:
            rows = await self._backend.scan(after, up_to, limit, wanted)
            if span.recording:
                span.set_attribute("eventcore.events", len(rows))
                span.set_attribute("eventcore.position", up_to)
        if rows:
            self._instruments.read["api"].add(len(rows))
        return rows

    async def head_position(self) -> int:
        """Ask the other."""
        with self._timed("head_position"):
            return await self._backend.head_position()

    # Calls of projections, which have spans of their own: one for each batch, whatever it takes to fill it.

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """Read by the other, on behalf of a projection."""
        with self._timed("follow"):
            page = await self._backend.follow(after, limit, wanted)
        if page.rows:
            self._instruments.read["projection"].add(len(page.rows))
        return page

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """Wait by the other; its duration would say nothing."""
        try:
            return await self._backend.wait_beyond(position, timeout)
        except StoreError as error:
            self._instruments.failed("wait_beyond", 0.0, error)
            raise

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """Ask the other."""
        with self._timed("acquire_lease"):
            return await self._backend.acquire_lease(projection, owner, seconds)

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """Ask the other."""
        with self._timed("renew_lease"):
            return await self._backend.renew_lease(lease, seconds)

    async def release_lease(self, lease: Lease) -> None:
        """Tell the other."""
        with self._timed("release_lease"):
            await self._backend.release_lease(lease)

    async def commit_checkpoint(
        self,
        lease: Lease,
        before: Checkpoint,
        after: Checkpoint,
        dead_letters: Sequence[DeadLetter] = (),
        apply: Callable[[Any], Any] | None = None,
    ) -> None:
        """Commit by the other."""
        with self._timed("commit_checkpoint"):
            await self._backend.commit_checkpoint(lease, before, after, dead_letters, apply)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """Ask the other."""
        with self._timed("projections"):
            return await self._backend.projections()

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """Ask the other."""
        with self._timed("dead_letters"):
            return await self._backend.dead_letters(projection, limit)

    async def remove_dead_letter(self, letter: DeadLetter, apply: Callable[[Any], Any] | None = None) -> bool:
        """Remove by the other."""
        with self._timed("remove_dead_letter"):
            return await self._backend.remove_dead_letter(letter, apply)

    async def reset_projection(self, projection: str) -> None:
        """Reset by the other."""
        with self._timed("reset_projection"):
            await self._backend.reset_projection(projection)

    @contextmanager
    def _timed(self, operation: Operation) -> Generator[None]:
        begun = perf_counter()
        try:
            yield
        except StoreError as error:
            self._instruments.failed(operation, perf_counter() - begun, error)
            raise
        self._instruments.succeeded(operation, perf_counter() - begun)

    @contextmanager
    def _call(self, operation: Operation, name: str, origins: Sequence[Span | None]) -> Generator[Span]:
        parent, links = _family(origins)
        begun = perf_counter()
        with self._telemetry.span(name, kind=_CLIENT, parent=parent, links=links) as span:
            if span.recording:
                span.set_attribute("db.system.name", self.system)
                span.set_attribute("db.operation.name", operation)
            try:
                yield span
            except BaseException as error:
                self._instruments.failed(operation, perf_counter() - begun, error)
                raise
        self._instruments.succeeded(operation, perf_counter() - begun)


def _family(origins: Sequence[Span | None]) -> tuple[TraceContext | None, list[TraceContext]]:
    """The parent of a call that serves several commands, the first that is sampled; and the others that are, to be linked."""
    sampled: list[TraceContext] = []
    first: Span | None = None
    for origin in origins:
        if origin is None:
            continue
        if first is None:
            first = origin
        if origin.recording:
            sampled.append(origin.context)
            if len(sampled) > _MAX_LINKS:
                break
    if sampled:
        return sampled[0], sampled[1:]
    return (None if first is None else first.context), []
