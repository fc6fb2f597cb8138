"""A backend around another one that records every call: its duration, what it moved and, for calls of commands, a span."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, TypeVar, final

from eventcore.catalogue.backend import BackendInstruments
from eventcore.catalogue.metrics import Operation
from eventcore.catalogue.store import StoreInstruments
from eventcore.errors import StoreError
from eventcore.events.codec import StoredEvent
from eventcore.recording import Span, SpanKind, TraceContext
from eventcore.stores.base import (
    CONFLICT,
    AppendRequest,
    Apply,
    Backend,
    BackendPage,
    Checkpoint,
    DeadLetter,
    EventFilter,
    Lease,
    LogPage,
    ProjectionLedger,
    ProjectionRecord,
    Purpose,
    Verdict,
    Versions,
)
from eventcore.stores.judging import last_appended
from eventcore.telemetry import Telemetry

T = TypeVar("T")
_MAX_LINKS: Final = 64
_CLIENT: Final[SpanKind] = "client"


@final
class ObservedBackend:
    """Implements ``Backend`` by another one, and records every call of its log and its ledger."""

    def __init__(
        self, backend: Backend, telemetry: Telemetry, instruments: StoreInstruments, backend_instruments: BackendInstruments
    ) -> None:
        self.system = backend.system
        self.open = backend.open
        self.close = backend.close
        self.log = ObservedLog(backend, telemetry, instruments, backend_instruments)
        self.ledger = ObservedLedger(backend.ledger, instruments)


@final
class ObservedLog:
    """Implements ``EventLog`` by that of a backend.

    Calls of commands and of the application have a span. Calls of projections have none: a projection has one span for each
    batch that it applies.
    """

    def __init__(
        self, backend: Backend, telemetry: Telemetry, instruments: StoreInstruments, backend_instruments: BackendInstruments
    ) -> None:
        self._system = backend.system
        self._log = backend.log
        self._telemetry = telemetry
        self._instruments = instruments
        self._backend_instruments = backend_instruments

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """See ``EventLog.append``. Committed events are counted, also when their commands no longer wait for them."""
        instruments = self._instruments
        instruments.batch.record(float(len(requests)))
        for request in requests:
            instruments.active.touch(request.base)
        with self._call("append", "append events", [request.origin for request in requests]) as span:
            verdicts = await self._log.append(requests)
            written = [
                new
                for request, verdict in zip(requests, verdicts, strict=True)
                if verdict != CONFLICT
                for new in request.events
            ]
            head = last_appended(requests, verdicts).position
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
        self, after: Versions, *, up_to: int | None = None, origins: Sequence[Any] = (), purpose: Purpose = "command"
    ) -> BackendPage:
        """See ``EventLog.read_streams``."""
        if purpose == "command":
            self._instruments.active.touch(after)
        with self._call("read_streams", "read streams", origins) as span:
            page = await self._log.read_streams(after, up_to=up_to, origins=origins, purpose=purpose)
            events = sum(map(len, page.rows.values()))
            if span.recording:
                span.set_attribute("eventcore.streams", len(after))
                span.set_attribute("eventcore.events", events)
                span.set_attribute("eventcore.position", page.head)
        if events:
            self._instruments.read[purpose].add(events)
        return page

    async def scan(self, after: int, up_to: int, limit: int, wanted: EventFilter) -> Sequence[StoredEvent]:
        """See ``EventLog.scan``."""
        with self._call("scan", "read streams", ()) as span:
            rows = await self._log.scan(after, up_to, limit, wanted)
            if span.recording:
                span.set_attribute("eventcore.events", len(rows))
                span.set_attribute("eventcore.position", up_to)
        if rows:
            self._instruments.read["api"].add(len(rows))
        return rows

    async def head_position(self) -> int:
        """See ``EventLog.head_position``."""
        return await _timed(self._instruments, "head_position", self._log.head_position())

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``EventLog.follow``."""
        page = await _timed(self._instruments, "follow", self._log.follow(after, limit, wanted))
        if page.rows:
            self._instruments.read["projection"].add(len(page.rows))
        return page

    async def wait_beyond(self, position: int, timeout: float) -> int:
        """See ``EventLog.wait_beyond``. Only failures are recorded: the duration is the time until the next event."""
        try:
            return await self._log.wait_beyond(position, timeout)
        except StoreError as error:
            self._instruments.failed("wait_beyond", 0.0, error)
            raise

    @contextmanager
    def _call(self, operation: Operation, name: str, origins: Sequence[Span | None]) -> Generator[Span]:
        parent, links = _family(origins)
        begun = perf_counter()
        with self._telemetry.span(name, kind=_CLIENT, parent=parent, links=links) as span:
            if span.recording:
                span.set_attribute("db.system.name", self._system)
                span.set_attribute("db.operation.name", operation)
            try:
                yield span
            except BaseException as error:
                self._instruments.failed(operation, perf_counter() - begun, error)
                raise
        self._instruments.succeeded(operation, perf_counter() - begun)


@final
class ObservedLedger:
    """Implements ``ProjectionLedger`` by another one. Its calls have no spans, as those of projections to the log."""

    def __init__(self, ledger: ProjectionLedger, instruments: StoreInstruments) -> None:
        self._ledger = ledger
        self._instruments = instruments

    async def acquire_lease(self, projection: str, owner: str, seconds: float) -> Lease | None:
        """See ``ProjectionLedger.acquire_lease``."""
        return await self._timed("acquire_lease", self._ledger.acquire_lease(projection, owner, seconds))

    async def renew_lease(self, lease: Lease, seconds: float) -> bool:
        """See ``ProjectionLedger.renew_lease``."""
        return await self._timed("renew_lease", self._ledger.renew_lease(lease, seconds))

    async def release_lease(self, lease: Lease) -> None:
        """See ``ProjectionLedger.release_lease``."""
        await self._timed("release_lease", self._ledger.release_lease(lease))

    async def commit_checkpoint(
        self, lease: Lease, before: Checkpoint, after: Checkpoint, dead_letters: Sequence[DeadLetter] = (), apply: Apply = None
    ) -> None:
        """See ``ProjectionLedger.commit_checkpoint``."""
        call = self._ledger.commit_checkpoint(lease, before, after, dead_letters, apply)
        await self._timed("commit_checkpoint", call)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """See ``ProjectionLedger.projections``."""
        return await self._timed("projections", self._ledger.projections())

    async def dead_letters(self, projection: str, limit: int) -> Sequence[DeadLetter]:
        """See ``ProjectionLedger.dead_letters``."""
        return await self._timed("dead_letters", self._ledger.dead_letters(projection, limit))

    async def remove_dead_letter(self, letter: DeadLetter, apply: Apply = None) -> bool:
        """See ``ProjectionLedger.remove_dead_letter``."""
        return await self._timed("remove_dead_letter", self._ledger.remove_dead_letter(letter, apply))

    async def reset_projection(self, projection: str) -> None:
        """See ``ProjectionLedger.reset_projection``."""
        await self._timed("reset_projection", self._ledger.reset_projection(projection))

    def _timed(self, operation: Operation, call: Awaitable[T]) -> Awaitable[T]:
        return _timed(self._instruments, operation, call)


async def _timed(instruments: StoreInstruments, operation: Operation, call: Awaitable[T]) -> T:
    """Await a call and record its duration and outcome."""
    begun = perf_counter()
    try:
        result = await call
    except StoreError as error:
        instruments.failed(operation, perf_counter() - begun, error)
        raise
    instruments.succeeded(operation, perf_counter() - begun)
    return result


def _family(origins: Sequence[Span | None]) -> tuple[TraceContext | None, list[TraceContext]]:
    """The parent and the links of a call that serves several commands: the first sampled span, and the other sampled ones."""
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
