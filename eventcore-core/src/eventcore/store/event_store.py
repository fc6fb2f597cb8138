"""The store that an application holds: opening, closing, and the calls to the parts that do the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, final, overload

from eventcore.catalogue import CATALOGUE, Instruments, ObservedBackend, observe_exporters
from eventcore.commands import DEFAULT_CACHE_BYTES, Command, CommandExecutor, CommandResult, RetryPolicy
from eventcore.errors import HistoryDiverged, InvalidInput, StoreClosed, StoreForked, WrongEventLoop
from eventcore.events import Event, RawEvent, RecordedEvent, StreamId, Unknown
from eventcore.events.classes import stored_types
from eventcore.events.codec import Codec, StoredEvent
from eventcore.ground import around_fork, forget_earlier_raises, leave_to_parent
from eventcore.ground.arguments import LARGEST, at_least_0, check_seconds
from eventcore.health.methods import HasHealth
from eventcore.health.monitor import HealthMonitor
from eventcore.health.settings import HealthSettings
from eventcore.projections import Projection, ProjectionHost
from eventcore.recording import TraceContext
from eventcore.store.closing import Closing
from eventcore.store.patience import open_patiently
from eventcore.stores import Backend, DeadLetter, EventFilter, ProjectionRecord, Redaction, StreamPattern
from eventcore.stores.failures import check_reason
from eventcore.stores.paging import MAX_PAGE, window
from eventcore.stores.sampling import LimitsCalls
from eventcore.telemetry import ExporterReport, Telemetry

if TYPE_CHECKING:
    from eventcore.projections import RetriedDeadLetters

_CLOSE_TIMEOUT: Final = 10.0

SLOW_COMMAND: Final = 1.0
"""Seconds from which on a command is logged as slow, by default."""

KEY_SECONDS: Final = 7 * 24 * 3600
"""Seconds for which idempotency keys are kept by default."""


@final
class EventStore(HasHealth):
    """Executes commands and reads events. Made by ``open_store``; used on the event loop that opens it.

    Attributes:
        name: the value of the label ``store`` on every metric of this store.
        telemetry: where the store records its metrics and spans.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        telemetry: Telemetry,
        *,
        owns_telemetry: bool,
        max_event_bytes: int,
        timeout: float | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        idempotency_ttl: float = KEY_SECONDS,
        slow_command: float | None = SLOW_COMMAND,
        open_timeout: float = 0.0,
        close_timeout: float = _CLOSE_TIMEOUT,
        health: HealthSettings | None = None,
    ) -> None:
        self.name: Final = name
        self.telemetry: Final = telemetry
        self._owns_telemetry = owns_telemetry
        self._instruments = Instruments(telemetry, name, backend)
        self._backend = ObservedBackend(backend, telemetry, self._instruments.store, self._instruments.backend)
        telemetry.reserve_names(f"eventcore.{name}" for name in CATALOGUE)
        self._codec = Codec(max_event_bytes, self._instruments.store.codec_failed)
        commands = self._instruments.commands
        call_timeout = backend.call_timeout if isinstance(backend, LimitsCalls) else None
        self._executor = CommandExecutor(
            *(self._backend.log, self._codec, telemetry, commands, timeout, idempotency_ttl),
            *(cache_bytes, call_timeout, slow_command),
        )
        self._projections = ProjectionHost(self._backend, self._codec, self._instruments.projections, telemetry)
        settings = health or HealthSettings()
        self._monitor = HealthMonitor(name, backend, self._backend, self._instruments, telemetry, settings)
        self._limits: Final = (open_timeout, close_timeout)
        # The loop that opened the store; `None` before the store is opened and after it is closed.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used = False
        self._forked = False
        self._closing: asyncio.Task[None] | None = None
        self._parts = Closing(
            *(self._monitor, self._instruments, self._projections, self._executor, self._backend),
            telemetry if owns_telemetry else None,
        )
        around_fork(self, after_in_child=EventStore._forget_parent)

    async def __aenter__(self) -> EventStore:
        if self._used:
            raise self._not_open() if self._forked else StoreClosed("a store is opened once; call open_store again")
        self._used = True
        observe_exporters(self.telemetry)
        try:
            if self._owns_telemetry:
                await self.telemetry.start()
            await open_patiently(self._backend.open, self._limits[0], self._monitor)
        except BaseException:
            # `BaseException`, since a cancelled opening must not leave exporters running either.
            self._instruments.closed()
            self._monitor.closed()
            if self._owns_telemetry:
                await self.telemetry.shutdown()
            raise
        # Nothing awaits from here on: a store is either open with all its tasks, or not at all.
        self._executor.start()
        self._instruments.store.opened()
        self._instruments.backend.opened()
        self._parts.stop_yielding = self.telemetry.yield_from_loop()
        self._loop = asyncio.get_running_loop()
        self._monitor.opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, timeout: float | None = None) -> None:
        """Let running commands end, stop projections, close the backend, and shut down the telemetry if the store owns it.

        A second call waits until the first one has ended.

        Args:
            timeout: seconds for all of it, by default ``close_timeout``. Commands that have not ended by then fail.

        Raises:
            WrongEventLoop: the store was opened on another event loop. Nothing is changed. But once that loop is closed, the
                store's threads and files are released from any loop.
            ValueError: ``timeout`` is not a number of seconds, 0 or more.
        """
        seconds = self._limits[1] if timeout is None else timeout
        check_seconds("timeout", seconds, or_0=True)
        loop, closing = self._loop, self._closing
        if closing is not None and (not closing.done() or closing.cancelled()):
            loop = closing.get_loop()
        if loop is not None and loop is not asyncio.get_running_loop():
            if not loop.is_closed():
                raise self._wrong_loop()
            self._loop, self._closing = None, asyncio.ensure_future(self._parts.release(seconds))
        elif self._loop is not None:
            self._loop, self._closing = None, asyncio.ensure_future(self._parts.run(seconds))
        if self._closing is not None:
            # Shielded: if this caller is cancelled, closing goes on, and another call can wait for it.
            await asyncio.shield(self._closing)

    async def execute(
        self,
        command: Command[Any],
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        parent: TraceContext | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> CommandResult:
        """Read the streams of a command, let it decide, and append its events if no stream has changed since.

        Cancelling the call withdraws the command, unless its append has been sent.

        Args:
            command: an instance of a class derived from ``Command``.
            retry: how often to retry when other writers change the streams; left out, 10 attempts in all.
            timeout: seconds for all attempts together, more than 0; left out, the store's timeout.
            parent: the remote span that caused the command; left out, the enclosing span.
            correlation_id: stored with the events, 1 to 128 characters; left out, that of the enclosing span.
            causation_id: like ``correlation_id``.
            headers: stored with the events: up to 32, with keys of 128 and values of 1,024 characters at most.
            idempotency_key: 1 to 128 characters that name this command, such as the id of a request. Until the key
                expires (``idempotency_ttl`` of ``open_store``), executing the command again with the same key, in any process,
                gives the first result again. A command that is refused or fails keeps no key.

        Raises:
            BusinessRuleViolation: the command refused.
            IdempotencyKeyReused: the key belongs to another command.
            ConcurrencyConflict: other writers changed the streams in every attempt.
            CommandTimeout: no answer in time; ``may_have_committed`` says whether the events may be stored.
            InvalidCommand, InvalidEvent, InvalidMetadata: an argument or the decision is not usable.
            ValueError: ``retry``, ``timeout`` or ``parent`` is not what it should be.
            UnknownEventType, CorruptEvent: a stream of the command cannot be read.
            StoreUnavailable: the store gave no answer within the timeout of its URL; ``may_have_committed`` says whether the
                events may be stored.
            StoreDraining: this process is about to stop; see ``drain``.
            StoreClosed, WrongEventLoop: the store cannot serve.
        """
        self._check_accepting()
        if timeout is not None:
            check_seconds("timeout", timeout)
        try:
            return await self._executor.execute(
                command, retry, timeout, parent, correlation_id, causation_id, headers, idempotency_key
            )
        except BaseException as error:
            forget_earlier_raises(error)
            raise

    @overload
    def read(
        self, stream: StreamId, *, after_version: int = 0, limit: int | None = None, unknown: Literal["error"] = "error"
    ) -> AsyncIterator[RecordedEvent]: ...

    @overload
    def read(
        self, stream: StreamId, *, after_version: int = 0, limit: int | None = None, unknown: Unknown
    ) -> AsyncIterator[RecordedEvent | RawEvent]: ...

    async def read(
        self, stream: StreamId, *, after_version: int = 0, limit: int | None = None, unknown: Unknown = "error"
    ) -> AsyncIterator[Any]:
        """Iterate over the events of one stream in order of version.

        Events that are appended during the iteration are included.

        Args:
            stream: a stream id. A stream that does not exist has no events.
            after_version: skip events up to this version, 0 or more.
            limit: the largest number of events, 0 or more; ``None`` for all.
            unknown: what to do with an event whose type no class of this process has: ``"error"`` raises
                ``UnknownEventType``, ``"raw"`` gives it as a ``RawEvent``.

        Raises:
            ValueError: an argument is out of its range.
            UnknownEventType, CorruptEvent: an event cannot be read; ``stream_id``, ``version`` and ``position`` say which one.
        """
        self._check_open()
        stream = StreamId(stream)
        decode = self._decoder(unknown)
        version, remaining = (
            at_least_0("after_version", after_version),
            at_least_0("limit", LARGEST if limit is None else limit),
        )
        while remaining > 0:
            page = await self._backend.log.read_streams({stream: version}, purpose="api")
            rows = page.rows[stream]
            for row in rows[:remaining]:
                yield decode(row, stream)
            version += len(rows)
            remaining -= len(rows)
            if stream not in page.more:
                return

    @overload
    def read_all(
        self,
        *,
        after: int = 0,
        pattern: str | None = None,
        event_types: Iterable[str | type[Event]] | None = None,
        limit: int | None = None,
        unknown: Literal["error"] = "error",
    ) -> AsyncIterator[RecordedEvent]: ...

    @overload
    def read_all(
        self,
        *,
        after: int = 0,
        pattern: str | None = None,
        event_types: Iterable[str | type[Event]] | None = None,
        limit: int | None = None,
        unknown: Unknown,
    ) -> AsyncIterator[RecordedEvent | RawEvent]: ...

    async def read_all(
        self,
        *,
        after: int = 0,
        pattern: str | None = None,
        event_types: Iterable[str | type[Event]] | None = None,
        limit: int | None = None,
        unknown: Unknown = "error",
    ) -> AsyncIterator[Any]:
        """Iterate over the events of all streams in order of position, up to the head position at the first step.

        Args:
            after: skip events up to this position, 0 or more.
            pattern: only streams whose whole id matches. ``*`` stands for any characters, ``?`` for one,
                ``[0-9]`` for one of a set, ``[!0-9]`` for one outside it. Case matters.
            event_types: only events of these stored types or classes. With ``unknown="error"``, each has a class here.
            limit: the largest number of matching events, 0 or more; ``None`` for all.
            unknown: what to do with an event whose type no class of this process has: ``"error"`` raises
                ``UnknownEventType``, ``"raw"`` gives it as a ``RawEvent``.

        Raises:
            InvalidPattern: ``pattern`` cannot be read, or matches no stream id.
            InvalidInput: ``event_types`` has something that no event can have, or a type of which no class is known.
            ValueError: an argument is out of its range.
            UnknownEventType, CorruptEvent: an event cannot be read; ``stream_id``, ``version`` and ``position`` say which one.
        """
        self._check_open()
        wanted = EventFilter(
            None if pattern is None else StreamPattern.parse(pattern),
            None if event_types is None else stored_types(event_types, unknown=unknown),
        )
        decode = self._decoder(unknown)
        positions = window(wanted, MAX_PAGE)
        position, remaining = at_least_0("after", after), at_least_0("limit", LARGEST if limit is None else limit)
        head = await self._backend.log.head_position()
        stream: StreamId | None = None
        while position < head and remaining > 0:
            end = min(position + positions, head)
            page = min(MAX_PAGE, remaining)
            rows = await self._backend.log.scan(position, end, page, wanted)
            for row in rows:
                if stream is None or row.stream_id != stream:
                    # Events that follow each other are often of one stream.
                    stream = StreamId(row.stream_id)
                yield decode(row, stream)
            remaining -= len(rows)
            # There may be more matches behind the last row of a page: it is full, or its events are large.
            position = rows[-1].position if rows else end

    async def redact(self, event_id: str, *, data: Event | Mapping[str, Any], reason: str) -> Redaction:
        """Replace what an event says, for good, and leave a trace: the number, the reason and the time of the redaction.

        Type, position and metadata stay. The stored states of the event's stream are deleted in the same transaction. This
        process and others forget the old text with their next read or append, idle ones within a second. What a projection has
        written, backups and replicas that lag still hold it.

        The event is searched from the newest one on, which takes seconds in a store of millions of events.

        Args:
            event_id: the ``event_id`` of the event.
            data: what the event says from now on: an event of the same type, or the values of its fields by name as JSON has
                them; fields that are left out have their default.
            reason: why, a printable text; stored with the trace.

        Raises:
            InvalidEvent: ``data`` could not be read back as an event of this type, or is larger than allowed. Nothing changed.
            InvalidInput: no event has this id.
            UnknownEventType: no class in this process has the type of the event.
            ValueError: ``reason`` is empty or not printable.

        >>> import asyncio
        >>> from eventcore import Command, Event, StreamId, open_store
        >>> class Joined(Event):
        ...     name: str
        >>> class Join(Command[None]):
        ...     member: StreamId
        ...     def handle(self, state):
        ...         yield self.member, Joined(name="Ada Lovelace")
        >>> async def main():
        ...     async with open_store("memory:", exporters="none") as store:
        ...         [joined] = (await store.execute(Join(member=StreamId("member-1")))).events
        ...         trace = await store.redact(joined.event_id, data=Joined(name="removed"), reason="asked by the member")
        ...         return trace.number, [event.data async for event in store.read(StreamId("member-1"))]
        >>> asyncio.run(main())
        (1, [Joined(name='removed')])
        """
        self._check_open()
        check_reason(reason)
        log = self._backend.log
        # An id is printable: PostgreSQL could not even look for another text.
        row = await log.find_event(event_id) if isinstance(event_id, str) and event_id.isprintable() else None
        if row is None:
            raise InvalidInput(f"no event of the store {self.name!r} has the id {event_id!r:.80}; expected its event_id")
        encoded = self._codec.replacement(row, data)
        trace = await log.redact(event_id, encoded, reason, position=row.position)
        if trace is None:
            raise HistoryDiverged(f"the event {event_id} was at position {row.position} and is no longer there")
        return trace

    async def head_position(self) -> int:
        """The position of the last event in the store; 0 if it is empty."""
        self._check_open()
        return await self._backend.log.head_position()

    async def run(self, projection: Projection, *, lease: float = 5.0) -> None:
        """Apply events to ``projection`` from its checkpoint on, until the call is cancelled or the store closes.

        Several processes may call this for the same projection: the one that holds the lease applies events,
        the others wait to take over. While the store is unavailable, the call waits.

        Args:
            projection: an instance of a class derived from ``Projection``.
            lease: seconds after which another runner takes over if the lease is not renewed, from 0.1 to 3600.

        Raises:
            InvalidProjection: this store cannot run the projection as it is declared.
            ProjectionFailed: an event cannot be applied, and ``on_error`` says to stop.
            HistoryDiverged: the store no longer holds the event of the checkpoint: rebuild the read model.
            StoreClosed, WrongEventLoop: the store cannot serve.
            ValueError: ``lease`` is out of its range.
        """
        self._check_accepting()
        await self._projections.run(projection, lease)

    async def wait_for(self, projection: Projection | str, position: int, timeout: float = 10.0) -> None:
        """Wait until a projection, in any process, has applied all events up to ``position``.

        After that, the read model shows what a command with this ``CommandResult.position`` wrote.

        Args:
            projection: the projection or its name (``name@version`` from version 2 on).
            position: a position, 0 or more.
            timeout: seconds to wait; 0 looks once.

        Raises:
            ProjectionTimeout: the projection has not reached the position in time.
            ValueError: an argument is out of its range.
        """
        self._check_open()
        check_seconds("timeout", timeout, or_0=True)
        await self._projections.wait_for(projection, at_least_0("position", position), timeout)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """The checkpoint, lease and dead letters of every projection that was ever run on this store, by name."""
        self._check_open()
        return await self._backend.ledger.projections()

    async def dead_letters(self, projection: Projection | str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The events that a projection could not apply and skipped, in order of position: at most ``limit``.

        Raises:
            InvalidInput: neither the store nor this process has a projection of this name, or ``limit`` is out of its range.
        """
        self._check_open()
        return await self._projections.dead_letters(projection, at_least_0("limit", limit))

    async def retry_dead_letters(self, projection: Projection) -> RetriedDeadLetters:
        """Apply every dead letter of a projection again, and remove those that succeed.

        They are applied after events that came later, so the order of the events is not kept.

        Raises:
            InvalidProjection: this store cannot run the projection as it is declared.
            HistoryDiverged: the store no longer holds the event of a dead letter.
        """
        self._check_open()
        return await self._projections.retry_dead_letters(projection)

    async def reset_projection(self, projection: Projection | str) -> None:
        """Delete the checkpoint and the dead letters of a projection, so that it starts again at the first event.

        The read model is not touched: empty it yourself.

        Raises:
            InvalidInput: neither the store nor this process has a projection of this name.
            LeadershipLost: the projection is running: stop it first.
        """
        self._check_open()
        await self._projections.reset(projection)

    def register_exporter(self, exporter: object, *, name: str | None = None) -> str:
        """Add an exporter, at any time; see ``Telemetry.register_exporter``."""
        return self.telemetry.register_exporter(exporter, name=name)

    async def unregister_exporter(self, name: str, timeout: float = _CLOSE_TIMEOUT) -> ExporterReport:
        """Flush and remove an exporter; see ``Telemetry.unregister_exporter``."""
        return await self.telemetry.unregister_exporter(name, timeout)

    def _decoder(self, unknown: object) -> Callable[[StoredEvent, StreamId], Any]:
        if unknown == "error":
            return self._codec.decode
        if unknown == "raw":
            return self._codec.decode_or_raw
        raise ValueError(f'unknown={unknown!r:.80}; expected "error" or "raw"')

    def _forget_parent(self) -> None:
        """In a forked child: refuse every call, and leave the connections, files and tasks of an open store to the parent."""
        if self._used and not self._forked:
            self._forked = True
            # Also a store that is opening or closing: its connections belong to the parent, too.
            parts = (self._backend, self._executor, self._projections, self._monitor, self._loop, self._closing)
            leave_to_parent(parts)
            self._loop = self._closing = None
            self._instruments.closed()
            self._monitor.closed()

    def _ends(self) -> tuple[Callable[[float], Awaitable[bool]], ...]:
        return self._projections.stop, self._executor.wait_until_idle

    def _not_open(self) -> StoreClosed:
        if self._forked:
            return StoreForked(
                f"the store {self.name!r} was opened before this process was forked, and its connections belong to the parent; "
                "open a store in the child"
            )
        return StoreClosed(f"the store {self.name!r} is not open: use it within 'async with open_store(...) as store:'")

    def _check_open(self) -> None:
        if self._loop is None:
            raise self._not_open()
        if asyncio.get_running_loop() is not self._loop:
            raise self._wrong_loop()

    def _wrong_loop(self) -> WrongEventLoop:
        return WrongEventLoop(
            f"the store {self.name!r} was opened on another event loop; open one on each loop, or hand the call over with "
            "asyncio.run_coroutine_threadsafe"
        )
