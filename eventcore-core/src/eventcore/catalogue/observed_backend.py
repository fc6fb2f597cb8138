"""A backend around another one that records every call: its duration, what it moved and, for calls of commands, a span."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import chain
from time import perf_counter
from types import TracebackType
from typing import Any, Final, TypeVar, cast, final

from eventcore.catalogue.backend import BackendInstruments
from eventcore.catalogue.metrics import Operation
from eventcore.catalogue.store import StoreInstruments
from eventcore.errors import StoreError
from eventcore.events import StreamId
from eventcore.events.codec import StoredEvent
from eventcore.recording import Span, SpanKind
from eventcore.stores.base import Backend, ProjectionLedger, append_hints
from eventcore.stores.judging import last_appended
from eventcore.stores.values import (
    CONFLICT,
    AppendRequest,
    BackendPage,
    Checkpoint,
    EventFilter,
    LogPage,
    Purpose,
    StateKey,
    Verdict,
    Verdicts,
    Versions,
)
from eventcore.telemetry import Telemetry

FunctionT = TypeVar("FunctionT", bound=Callable[..., Coroutine[Any, Any, Any]])
_MAX_LINKS: Final = 64
_CLIENT: Final[SpanKind] = "client"
_NO_KEYS: Final[Mapping[StreamId, StateKey]] = {}


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
        # A store in memory calls nothing that could be traced.
        self._has_io = backend.system != "memory"
        self._log = backend.log
        self.append_hints = append_hints(backend.log)
        self._telemetry = telemetry
        self._instruments = instruments
        self._backend_instruments = backend_instruments
        self.head_position = _timed(instruments, "head_position", backend.log.head_position)
        self.find_keys = _timed(instruments, "find_keys", backend.log.find_keys)
        self._follow = _timed(instruments, "follow", backend.log.follow)
        self.save_snapshots = _timed(instruments, "save_snapshots", backend.log.save_snapshots)
        self.find_event = _timed(instruments, "find_event", backend.log.find_event)
        self.redact = _timed(instruments, "redact", backend.log.redact)
        # Not timed: a process calls it every second, and what it raises is no failure.
        self.check_redactions = backend.log.check_redactions

    async def append(self, requests: Sequence[AppendRequest]) -> Sequence[Verdict]:
        """See ``EventLog.append``. Committed events are counted, also when their commands no longer wait for them."""
        instruments = self._instruments
        instruments.batch.record(float(len(requests)))
        instruments.active.touch(chain.from_iterable([request.base for request in requests]))
        with self._call("append", "append events", [request.origin for request in requests]) as span:
            # No generator as context manager: for each command it would take a microsecond.
            waiting = self._backend_instruments.append_begins()
            try:
                verdicts = await self._log.append(requests)
            except BaseException as error:
                self._backend_instruments.append_ends(waiting, error)
                raise
            self._backend_instruments.append_ends(waiting, None)
            accepted = (request for request, verdict in zip(requests, verdicts, strict=True) if verdict >= 0)
            written = [new for request in accepted for new in request.events]
            head = last_appended(requests, verdicts).position
            if span.recording:
                span.set_attribute("eventcore.batch.size", len(requests))
                span.set_attribute("eventcore.events", len(written))
                if refused := sum(verdict == CONFLICT for verdict in verdicts):
                    span.set_attribute("eventcore.batch.refused", refused)
                if written:
                    span.set_attribute("eventcore.position", head)
        instruments.committed(written)
        if isinstance(verdicts, Verdicts) and verdicts.refused is not None:
            instruments.read["command"].add(sum(map(len, verdicts.refused.rows.values())))
        if head:
            self._backend_instruments.appended(head)
        return verdicts

    async def read_streams(
        self,
        after: Versions,
        *,
        up_to: int | None = None,
        origins: Sequence[Any] = (),
        purpose: Purpose = "command",
        snapshots: Mapping[StreamId, StateKey] = _NO_KEYS,
    ) -> BackendPage:
        """See ``EventLog.read_streams``."""
        if purpose == "command":
            self._instruments.active.touch(after)
        with self._call("read_streams", "read streams", origins) as span:
            page = await self._log.read_streams(after, up_to=up_to, origins=origins, purpose=purpose, snapshots=snapshots)
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

    async def follow(self, after: Checkpoint, limit: int, wanted: EventFilter) -> LogPage:
        """See ``EventLog.follow``."""
        page = await self._follow(after, limit, wanted)
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

    def _call(self, operation: Operation, name: str, origins: Sequence[Span | None]) -> _Call:
        parent, links = _family(origins)
        correlation_id = causation_id = None
        if parent is not None:
            # The command's own ids: this task belongs to the store, and has no span of the command around it.
            correlation_id, causation_id = parent.correlation_id, parent.causation_id
        call = _Call(self._instruments, operation, self._has_io)
        call.span = span = self._telemetry.span(
            name, kind=_CLIENT, parent=parent, correlation_id=correlation_id, causation_id=causation_id
        )
        if span.recording:
            if links:
                span.take_links(links)
            span.set_attribute("db.system.name", self._system)
            span.set_attribute("db.operation.name", operation)
        return call


@final
class _Call:
    """One call of a backend: its span is current in the block, and its duration is recorded at the end.

    A class, because each command makes such a call: a generator as context manager takes a microsecond longer.
    """

    __slots__ = ("_begun", "_has_io", "_instruments", "_operation", "span")

    span: Span

    def __init__(self, instruments: StoreInstruments, operation: Operation, has_io: bool) -> None:
        self._instruments = instruments
        self._operation: Final = operation
        self._has_io = has_io
        self._begun = perf_counter()

    def __enter__(self) -> Span:
        span = self.span.__enter__()
        if self._has_io:
            span.connect(own_io=True)
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            self._instruments.failed(self._operation, perf_counter() - self._begun, error)
        self.span.__exit__(kind, error, traceback)
        if error is None:
            self._instruments.succeeded(self._operation, perf_counter() - self._begun)


@final
class ObservedLedger:
    """Implements ``ProjectionLedger`` by another one. Its calls have no spans, like the calls of projections to the log."""

    def __init__(self, ledger: ProjectionLedger, instruments: StoreInstruments) -> None:
        self.acquire_lease = _timed(instruments, "acquire_lease", ledger.acquire_lease)
        self.renew_lease = _timed(instruments, "renew_lease", ledger.renew_lease)
        self.release_lease = _timed(instruments, "release_lease", ledger.release_lease)
        self.save_run_state = _timed(instruments, "save_run_state", ledger.save_run_state)
        self.commit_checkpoint = _timed(instruments, "commit_checkpoint", ledger.commit_checkpoint)
        self.projections = _timed(instruments, "projections", ledger.projections)
        self.dead_letters = _timed(instruments, "dead_letters", ledger.dead_letters)
        self.remove_dead_letter = _timed(instruments, "remove_dead_letter", ledger.remove_dead_letter)
        self.reset_projection = _timed(instruments, "reset_projection", ledger.reset_projection)


def _timed(instruments: StoreInstruments, operation: Operation, function: FunctionT) -> FunctionT:
    """The same function, which also records its duration and outcome."""

    async def timed(*args: Any, **kwargs: Any) -> Any:
        begun = perf_counter()
        try:
            result = await function(*args, **kwargs)
        except StoreError as error:
            instruments.failed(operation, perf_counter() - begun, error)
            raise
        instruments.succeeded(operation, perf_counter() - begun)
        return result

    return cast(FunctionT, timed)


def _family(origins: Sequence[Span | None]) -> tuple[Span | None, list[Span]]:
    """The parent of a call that serves several commands, and the spans to link: the first sampled one, and the others."""
    sampled: list[Span] = []
    first: Span | None = None
    for origin in origins:
        if origin is None:
            continue
        if first is None:
            first = origin
        if origin.recording:
            sampled.append(origin)
            if len(sampled) > _MAX_LINKS:
                break
    if sampled:
        return sampled[0], sampled[1:]
    return first, []
