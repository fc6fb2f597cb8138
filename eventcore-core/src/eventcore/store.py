"""The store that an application holds: opening, closing, and the calls to the parts that do the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal, final

from eventcore.catalogue import (
    BackendInstruments,
    CommandInstruments,
    ObservedBackend,
    ProjectionInstruments,
    StoreInstruments,
    observe_exporters,
)
from eventcore.commands import Command, CommandExecutor, CommandResult, RetryPolicy
from eventcore.errors import StoreClosed, StoreForked, WrongEventLoop
from eventcore.events import Event, RecordedEvent, StreamId
from eventcore.events.codec import Codec
from eventcore.ground import around_fork, leave_to_parent
from eventcore.projections import Projection, ProjectionHost, RetriedDeadLetters, projection_key
from eventcore.recording import TraceContext
from eventcore.stores import SCHEMA_VERSION, Backend, DeadLetter, EventFilter, ProjectionRecord, StreamPattern
from eventcore.stores.paging import MAX_PAGE, window
from eventcore.stores.urls import as_backend
from eventcore.telemetry import ExporterReport, Telemetry

__all__ = ["EventStore", "open_store"]

_CLOSE_TIMEOUT: Final = 10.0
# Seconds that each step of closing gets, even if the steps before it have used up the timeout.
_SHORTEST_STEP: Final = 0.1


def open_store(
    url: str | Backend,
    *,
    name: str = "default",
    telemetry: Telemetry | None = None,
    exporters: Sequence[str] | None = None,
    config: Mapping[str, Any] | Path | str | None = None,
    on_config_error: Literal["raise", "log"] = "raise",
    max_event_bytes: int = 1 << 20,
    migrate: bool = True,
    timeout: float | None = None,
) -> EventStore:
    """Create a store. Use it with ``async with``, which opens it, and closes it at the end of the block.

    Nothing is connected or read before ``async with``, which therefore raises the errors of the store and of the configuration.

    Args:
        url: one of these, or a backend of your own that is not open yet (see ``eventcore.stores.Backend``):

            - ``"memory:"``
            - ``"sqlite:///relative.db"`` or ``"sqlite:////absolute.db"``, with ``?synchronous=normal`` and
              ``&busy_timeout=5`` (seconds) if wanted.
            - ``"postgresql://user:password@host:port/database"``, with ``?schema=eventcore``, ``&pool=4``
              (connections for reading), ``&timeout=10`` (seconds for one call, reconnecting included),
              ``&statement_cache=off`` (for pgbouncer in transaction mode), ``&listen=off`` (where notifications
              are not delivered), and the settings that asyncpg reads itself, such as ``&sslmode=``.

        name: the value of the label ``store`` on every metric of this store.
        telemetry: the telemetry to record to, which several stores may share. The store does not close it.
            Left out, the store creates telemetry and closes it.
        exporters: names of the exporters to load, ``"all"`` or ``"none"``. Left out, the configuration
            decides. Not allowed together with ``telemetry``.
        config: the tables of ``eventcore.toml`` as a mapping, or the path of a file to read instead of the
            default one. Not allowed together with ``telemetry``.
        on_config_error: ``"raise"``, or ``"log"`` to log faults in the configuration and go on without them.
        max_event_bytes: the largest event to accept, in bytes of JSON.
        migrate: whether opening the store may create or upgrade the schema on a server. If false, run
            ``eventcore migrate``. A backend of your own decides this itself.
        timeout: seconds for each ``execute`` that names no timeout; ``None`` for no limit.

    Raises:
        InvalidStoreUrl: the URL names no store.
        MissingDependency: the store needs a package that is not installed.
        ValueError: ``timeout`` is not more than 0, or ``telemetry`` was passed with ``exporters`` or ``config``.
        ConfigurationError: by ``async with``, if the store creates the telemetry: the configuration has faults, all of which
            are listed.
        StoreUnavailable, AccessDenied, IncompatibleStore: by ``async with``: the store cannot be reached or used.

    >>> import asyncio
    >>> class Greeted(Event):
    ...     name: str
    >>> class Greet(Command[int]):
    ...     person: StreamId
    ...     def initial_state(self):
    ...         return 0
    ...     def apply(self, state, event):
    ...         return state + 1
    ...     def handle(self, state):
    ...         yield self.person, Greeted(name=str(self.person))
    >>> async def main():
    ...     async with open_store("memory:", exporters="none") as store:
    ...         result = await store.execute(Greet(person=StreamId("person-ada")))
    ...         return result.position, [event.event_type async for event in store.read_all()]
    >>> asyncio.run(main())
    (1, ['Greeted'])
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout={timeout!r}; expected seconds, more than 0, or None")
    backend = as_backend(url, migrate=migrate)
    if telemetry is not None and (exporters is not None or config is not None):
        raise ValueError("exporters and config belong to the telemetry; give them to Telemetry(...), or leave telemetry out")
    owns_telemetry = telemetry is None
    if telemetry is None:
        telemetry = Telemetry(config=config, exporters=exporters, on_config_error=on_config_error)
    return EventStore(backend, name, telemetry, owns_telemetry=owns_telemetry, max_event_bytes=max_event_bytes, timeout=timeout)


@final
class _Instruments:
    """The metrics of one store, by the part that records them."""

    def __init__(self, telemetry: Telemetry, name: str, backend: Backend) -> None:
        self.store = StoreInstruments(telemetry, name, backend.system, SCHEMA_VERSION)
        self.commands = CommandInstruments(telemetry, name)
        self.backend = BackendInstruments(telemetry, name, backend)
        self.projections = ProjectionInstruments(telemetry, name)

    def closed(self) -> None:
        self.store.closed()
        self.backend.closed()
        self.projections.closed()


@final
class EventStore:
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
    ) -> None:
        self.name: Final = name
        self.telemetry: Final = telemetry
        self._owns_telemetry = owns_telemetry
        self._instruments = _Instruments(telemetry, name, backend)
        self._backend = ObservedBackend(backend, telemetry, self._instruments.store, self._instruments.backend)
        self._codec = Codec(max_event_bytes, self._instruments.store.codec_failed)
        self._executor = CommandExecutor(self._backend.log, self._codec, telemetry, self._instruments.commands, timeout)
        self._projections = ProjectionHost(self._backend, self._codec, self._instruments.projections, telemetry)
        # The loop that opened the store; `None` before the store is opened and after it is closed.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used = False
        self._forked = False
        self._closing: asyncio.Task[None] | None = None
        self._stop_yielding: Callable[[], None] = lambda: None
        around_fork(self, after_in_child=EventStore._forget_parent)

    async def __aenter__(self) -> EventStore:
        if self._used:
            raise self._not_open() if self._forked else StoreClosed("a store is opened once; call open_store again")
        self._used = True
        observe_exporters(self.telemetry)
        try:
            if self._owns_telemetry:
                await self.telemetry.start()
            await self._backend.open()
        except BaseException:
            # `BaseException`, since a cancelled opening must not leave exporters running either.
            self._instruments.closed()
            if self._owns_telemetry:
                await self.telemetry.shutdown()
            raise
        # Nothing awaits from here on: a store is either open with all its tasks, or not at all.
        self._executor.start()
        self._instruments.store.opened()
        self._instruments.backend.opened()
        self._stop_yielding = self.telemetry.yield_from_loop()
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Commit waiting commands, stop projections, close the backend, and shut down the telemetry if the store owns it.

        A second call waits until the first one has ended.

        Args:
            timeout: seconds for all of it. Commands that are not committed by then fail.
        """
        if self._loop is not None:
            self._loop = None
            self._closing = asyncio.ensure_future(self._close(timeout))
        if self._closing is not None:
            # Shielded: if this caller is cancelled, closing goes on, and another call can wait for it.
            await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> None:
        deadline = monotonic() + timeout

        def remaining() -> float:
            return max(_SHORTEST_STEP, deadline - monotonic())

        try:
            await self._instruments.backend.stop()
            # Projections and commands use the backend, so both end before it.
            await self._projections.close(timeout)
            await self._executor.close(remaining())
            await self._backend.close(remaining())
        finally:
            self._instruments.closed()
            try:
                if self._owns_telemetry:
                    await self.telemetry.shutdown(remaining())
            finally:
                self._stop_yielding()

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
    ) -> CommandResult:
        """Read the streams of a command, let it decide, and append its events if no stream has changed since.

        Cancelling the call withdraws the command, unless its append has been sent.

        Args:
            command: an instance of a class derived from ``Command``.
            retry: how often to retry when other writers change the streams; left out, 10 attempts in all.
            timeout: seconds for all attempts together; left out, the store's timeout.
            parent: the remote span that caused the command; left out, the enclosing span.
            correlation_id: stored with the events, 1 to 128 characters; left out, that of the enclosing span.
            causation_id: like ``correlation_id``.
            headers: stored with the events: up to 32, with keys of 128 and values of 1,024 characters at most.

        Raises:
            BusinessRuleViolation: the command refused.
            ConcurrencyConflict: other writers changed the streams in every attempt.
            CommandTimeout: no answer in time; ``may_have_committed`` says whether the events may be stored.
            InvalidCommand, InvalidEvent, InvalidMetadata: an argument or the decision is not usable.
            UnknownEventType, CorruptEvent: a stream of the command cannot be read.
            StoreUnavailable, StoreClosed, WrongEventLoop: the store cannot serve.
        """
        self._check_open()
        return await self._executor.execute(
            command,
            retry=retry,
            timeout=timeout,
            parent=parent,
            correlation_id=correlation_id,
            causation_id=causation_id,
            headers=headers,
        )

    async def read(self, stream: StreamId, *, after_version: int = 0, limit: int | None = None) -> AsyncIterator[RecordedEvent]:
        """Iterate over the events of one stream in order of version.

        Events that are appended during the iteration are included.

        Args:
            stream: a stream id. A stream that does not exist has no events.
            after_version: skip events up to this version, 0 or more.
            limit: the largest number of events, 0 or more; ``None`` for all.

        Raises:
            ValueError: an argument is out of its range.
            UnknownEventType, CorruptEvent: an event cannot be read.
        """
        self._check_open()
        stream = StreamId(stream)
        version, remaining = _at_least_0("after_version", after_version), _limit(limit)
        while remaining > 0:
            page = await self._backend.log.read_streams({stream: version}, purpose="api")
            rows = page.rows[stream]
            for row in rows[:remaining]:
                yield self._codec.decode(row, stream)
            version += len(rows)
            remaining -= len(rows)
            if len(rows) < page.limit:
                return

    async def read_all(
        self,
        *,
        after: int = 0,
        pattern: str | None = None,
        event_types: Iterable[str | type[Event]] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Iterate over the events of all streams in order of position, up to the head position at the first step.

        Args:
            after: skip events up to this position, 0 or more.
            pattern: only streams whose whole id matches. ``*`` stands for any characters, ``?`` for one,
                ``[0-9]`` for one of a set, ``[!0-9]`` for one outside it. Case matters.
            event_types: only events of these stored types or classes.
            limit: the largest number of matching events, 0 or more; ``None`` for all.

        Raises:
            InvalidPattern: ``pattern`` cannot be read.
            ValueError: an argument is out of its range.
            UnknownEventType, CorruptEvent: an event cannot be read.
        """
        self._check_open()
        wanted = EventFilter(
            None if pattern is None else StreamPattern.parse(pattern),
            None if event_types is None else tuple(kind if isinstance(kind, str) else kind.event_type for kind in event_types),
        )
        positions = window(wanted, MAX_PAGE)
        position, remaining = _at_least_0("after", after), _limit(limit)
        head = await self._backend.log.head_position()
        while position < head and remaining > 0:
            end = min(position + positions, head)
            page = min(MAX_PAGE, remaining)
            rows = await self._backend.log.scan(position, end, page, wanted)
            for row in rows:
                yield self._codec.decode(row, StreamId(row.stream_id))
            remaining -= len(rows)
            # A full page may have more matches behind its last row. Otherwise the whole window has been searched.
            position = rows[-1].position if len(rows) == page else end

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
        self._check_open()
        await self._projections.run(projection, lease)

    async def wait_for(self, projection: Projection | str, position: int, timeout: float = 10.0) -> None:
        """Wait until a projection, in any process, has applied all events up to ``position``.

        After that, the read model shows what a command with this ``CommandResult.position`` wrote.

        Args:
            projection: the projection or its name (``name@version`` from version 2 on).
            position: a position, 0 or more.
            timeout: seconds to wait.

        Raises:
            ProjectionTimeout: the projection has not reached the position in time.
        """
        self._check_open()
        await self._projections.wait_for(projection, _at_least_0("position", position), timeout)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """The checkpoint, lease and dead letters of every projection that was ever run on this store, by name."""
        self._check_open()
        return await self._backend.ledger.projections()

    async def dead_letters(self, projection: Projection | str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The events that a projection could not apply and skipped, in order of position: at most ``limit``."""
        self._check_open()
        return await self._backend.ledger.dead_letters(projection_key(projection), _at_least_0("limit", limit))

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
            LeadershipLost: the projection is running: stop it first.
        """
        self._check_open()
        await self._backend.ledger.reset_projection(projection_key(projection))

    def register_exporter(self, exporter: object, *, name: str | None = None) -> str:
        """Add an exporter, at any time; see ``Telemetry.register_exporter``."""
        return self.telemetry.register_exporter(exporter, name=name)

    async def unregister_exporter(self, name: str, timeout: float = _CLOSE_TIMEOUT) -> ExporterReport:
        """Flush and remove an exporter; see ``Telemetry.unregister_exporter``."""
        return await self.telemetry.unregister_exporter(name, timeout)

    def _forget_parent(self) -> None:
        """In a forked child: refuse every call, and leave the connections, files and tasks of an open store to the parent."""
        if self._used and not self._forked:
            self._forked = True
            # Also a store that is opening or closing: its connections belong to the parent, too.
            leave_to_parent((self._backend, self._executor, self._projections, self._loop, self._closing))
            self._loop = self._closing = None
            self._instruments.closed()

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
            raise WrongEventLoop(
                f"the store {self.name!r} was opened on another event loop; open one on each loop, or hand the call over with "
                "asyncio.run_coroutine_threadsafe"
            )


def _at_least_0(name: str, value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}={value!r}; expected an int, 0 or more")
    return value


def _limit(limit: int | None) -> int:
    return 2**62 if limit is None else _at_least_0("limit", limit)
