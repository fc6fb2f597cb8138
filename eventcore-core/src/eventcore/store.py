"""The store that an application holds: everything below it, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
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
from eventcore.commands.batching import Batcher
from eventcore.commands.cache import StreamCache
from eventcore.commands.loading import Loader
from eventcore.errors import StoreClosed, WrongEventLoop
from eventcore.events import Event, RecordedEvent, StreamId
from eventcore.events.codec import Codec
from eventcore.exporting.delivery.report import ExporterReport
from eventcore.projections import Projection, ProjectionHost, RetriedDeadLetters
from eventcore.recording import IdGenerator, TraceContext
from eventcore.stores import SCHEMA_VERSION, Backend, DeadLetter, EventFilter, ProjectionRecord, StreamPattern
from eventcore.stores.urls import as_backend
from eventcore.telemetry import Telemetry

__all__ = ["EventStore", "open_store"]

_CLOSE_TIMEOUT: Final = 10.0
_PAGE: Final = 500
# A filter looks at so many positions in one call, whether or not anything there is wanted.
_WINDOW: Final = 10_000


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
    """The store that ``url`` names, or is; use it with ``async with``, which opens and closes it.

    Args:
        url: ``"memory:"``, ``"sqlite:///relative.db"``, ``"sqlite:////absolute.db"`` or
            ``"postgresql://user:password@host:port/database"``. SQLite takes ``?synchronous=normal`` and ``&busy_timeout=5``
            (seconds). PostgreSQL takes ``?schema=eventcore``, ``&pool=4`` (connections for reading), ``&timeout=10`` (seconds
            for one call, reconnecting included), ``&statement_cache=off`` (behind pgbouncer in transaction mode),
            ``&listen=off`` (where notifications do not come through), and what asyncpg reads itself, as ``&sslmode=``. In place
            of a URL, a backend of your own that is not open yet: ``eventcore.stores.Backend`` says what it has to do.
        name: the label ``store`` on everything measured of it.
        telemetry: one to share between stores; it is not closed with this one. Left out, the store makes and closes its own.
        exporters: names of the exporters to load, ``"all"`` or ``"none"``; left out, the configuration decides. Not together
            with ``telemetry``.
        config: the tables of ``eventcore.toml`` as a mapping, or the path of a file to read in place of the default one. Not
            together with ``telemetry``.
        on_config_error: ``"raise"``, or ``"log"`` to go on with what is right in the configuration.
        max_event_bytes: the largest event that is accepted, in bytes of JSON.
        migrate: whether opening may create the schema on a server, or bring it up to date; if not, ``eventcore migrate`` does.
            A backend of your own decides that itself.
        timeout: seconds that ``execute`` takes at most when it is not told otherwise; ``None`` is without limit.

    Raises:
        InvalidStoreUrl: there is no such store.
        MissingDependency: it needs a package that is not installed.
        ConfigurationError: the configuration has faults; all of them are listed.

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
class EventStore:
    """An open store: executes commands and reads events. Made by ``open_store``; belongs to the event loop that opens it."""

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
        self._timeout = timeout
        self.telemetry: Final = telemetry
        self._owns_telemetry = owns_telemetry
        self._instruments = StoreInstruments(telemetry, name, backend.system, SCHEMA_VERSION)
        self._commands = CommandInstruments(telemetry, name)
        self._backend_instruments = BackendInstruments(telemetry, name, backend)
        self._projection_instruments = ProjectionInstruments(telemetry, name)
        self._backend = ObservedBackend(backend, telemetry, self._instruments, self._backend_instruments)
        self._codec = Codec(max_event_bytes, self._instruments.codec_failed)
        cache = StreamCache()
        self._loader = Loader(self._backend, self._codec, cache)
        self._batcher = Batcher(self._backend, cache)
        self._executor = CommandExecutor(self._loader, self._batcher, self._codec, IdGenerator(), telemetry, self._commands)
        self._projections = ProjectionHost(self._backend, self._codec, self._projection_instruments, telemetry)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: Literal["new", "open", "closed"] = "new"
        self._closing: asyncio.Task[None] | None = None
        self._stop_yielding: Callable[[], None] = lambda: None

    async def __aenter__(self) -> EventStore:
        if self._state != "new":
            raise StoreClosed("a store is opened once; call open_store again")
        self._state = "closed"
        observe_exporters(self.telemetry)
        try:
            if self._owns_telemetry:
                await self.telemetry.start()
            await self._backend.open()
        except BaseException:
            self._hide()
            if self._owns_telemetry:
                await self.telemetry.shutdown()
            raise
        self._loader.start()
        self._batcher.start()
        self._instruments.opened()
        self._backend_instruments.opened()
        self._loop = asyncio.get_running_loop()
        self._stop_yielding = self.telemetry.yield_from_loop()
        self._state = "open"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Commit what waits, let go of the backend, and shut the telemetry down if it is the store's own; again, nothing
        happens.

        Args:
            timeout: seconds for all of it. Commands that are not done by then fail.
        """
        if self._state == "open":
            self._state = "closed"
            self._closing = asyncio.ensure_future(self._close(timeout))
        if self._closing is not None:
            # A caller that gives up leaves the closing to its end; another call waits for it again.
            await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        try:
            await self._backend_instruments.stop()
            await self._projections.close(timeout)
            await self._batcher.close(max(0.1, deadline - monotonic()))
            await self._loader.close()
            await self._backend.close(max(0.1, deadline - monotonic()))
        finally:
            self._hide()
            try:
                if self._owns_telemetry:
                    await self.telemetry.shutdown(max(0.1, deadline - monotonic()))
            finally:
                self._stop_yielding()

    def _hide(self) -> None:
        self._instruments.closed()
        self._backend_instruments.closed()
        self._projection_instruments.closed()

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
        """Carry out a command: read its streams, let it decide, and append its events if no stream has changed since.

        Cancelling the call withdraws the command as long as its append is not on its way.

        Args:
            command: an instance of a class derived from ``Command``.
            retry: how often to try when others change its streams; 10 attempts when left out.
            timeout: seconds for all attempts together; left out, the store's.
            parent: the remote span that asks for it; left out, the enclosing span.
            correlation_id, causation_id: stored with the events, up to 128 characters; left out, the enclosing span's.
            headers: stored with the events: up to 32 of them.

        Raises:
            BusinessRuleViolation: the command's own refusal.
            ConcurrencyConflict: others were faster in every attempt.
            CommandTimeout: no answer in time; ``may_have_committed`` tells whether to look.
            InvalidCommand, InvalidEvent, InvalidMetadata: what was passed, or decided, cannot be used.
            UnknownEventType, CorruptEvent: a stream of the boundary cannot be read.
            StoreUnavailable, StoreClosed, WrongEventLoop: the store cannot serve.
        """
        self._check_open()
        return await self._executor.execute(
            command,
            retry=retry,
            timeout=self._timeout if timeout is None else timeout,
            parent=parent,
            correlation_id=correlation_id,
            causation_id=causation_id,
            headers=headers or {},
        )

    async def read(self, stream: StreamId, *, after_version: int = 0, limit: int | None = None) -> AsyncIterator[RecordedEvent]:
        """The events of one stream in order, up to the end that the stream has when it is reached.

        Args:
            stream: a stream; one without events is empty.
            after_version: skip events up to this version.
            limit: at most so many events.
        """
        self._check_open()
        stream = StreamId(stream)
        version, left = _at_least_0("after_version", after_version), _limit(limit)
        while left > 0:
            page = await self._backend.read_streams({stream: version}, purpose="api")
            rows = page.rows[stream]
            for row in rows[:left]:
                yield self._codec.decode(row, stream)
            version += len(rows)
            left -= len(rows)
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
        """Events of all streams in order of position, up to the head position when the reading begins.

        Args:
            after: skip events up to this position.
            pattern: only streams whose whole id matches: ``*`` any characters, ``?`` one, ``[0-9]`` one of a set, ``[!0-9]``
                one outside it; case counts.
            event_types: only events of these stored types, or classes.
            limit: at most so many of the events that match.

        Raises:
            InvalidPattern: ``pattern`` is not one.
        """
        self._check_open()
        wanted = EventFilter(
            None if pattern is None else StreamPattern.parse(pattern),
            None if event_types is None else tuple(kind if isinstance(kind, str) else kind.event_type for kind in event_types),
        )
        window = _PAGE if wanted == EventFilter() else _WINDOW
        position, left = _at_least_0("after", after), _limit(limit)
        head = await self._backend.head_position()
        while position < head and left > 0:
            end = min(position + window, head)
            most = min(_PAGE, left)
            rows = await self._backend.scan(position, end, most, wanted)
            for row in rows:
                yield self._codec.decode(row, StreamId(row.stream_id))
            left -= len(rows)
            position = rows[-1].position if len(rows) == most else end

    async def head_position(self) -> int:
        """The position of the last event in the store, 0 when there is none."""
        self._check_open()
        return await self._backend.head_position()

    async def run(self, projection: Projection, *, lease: float = 5.0) -> None:
        """Apply events to ``projection`` from its checkpoint on, until cancelled or until the store closes.

        Of all who run a projection, in this process and others, one does; the others wait to take over. While the store is away
        it waits, too.

        Args:
            projection: an instance of a class derived from ``Projection``.
            lease: seconds without a sign of life after which another runner takes over, from 0.1 to 3600.

        Raises:
            InvalidProjection: it is declared in a way that this store cannot run.
            ProjectionFailed: an event cannot be applied, and ``on_error`` says to stop.
            HistoryDiverged: the store has gone back behind the checkpoint: rebuild what was derived.
            StoreClosed, WrongEventLoop: the store cannot serve.
        """
        self._check_open()
        await self._projections.run(projection, lease)

    async def wait_for(self, projection: Projection | str, position: int, timeout: float = 10.0) -> None:
        """Wait until a projection, run here or elsewhere, has applied everything up to ``position``: then read what you wrote.

        Args:
            projection: it, or its name (``name@version`` from version 2 on).
            position: such as ``CommandResult.position``.
            timeout: seconds.

        Raises:
            ProjectionTimeout: it has not come so far in time.
        """
        self._check_open()
        await self._projections.wait_for(projection, _at_least_0("position", position), timeout)

    async def projections(self) -> Sequence[ProjectionRecord]:
        """What the store knows of every projection that was ever run on it, by name."""
        self._check_open()
        return await self._projections.projections()

    async def dead_letters(self, projection: Projection | str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The events that a projection has put aside, in order of position: at most ``limit``."""
        self._check_open()
        return await self._projections.dead_letters(projection, _at_least_0("limit", limit))

    async def retry_dead_letters(self, projection: Projection) -> RetriedDeadLetters:
        """Apply every dead letter of a projection once more, out of order, and forget those that succeed.

        Raises:
            InvalidProjection: it is declared in a way that this store cannot run.
            HistoryDiverged: the event of a dead letter is gone.
        """
        self._check_open()
        return await self._projections.retry_dead_letters(projection)

    async def reset_projection(self, projection: Projection | str) -> None:
        """Forget checkpoint and dead letters of a projection, so that it begins again at the first event.

        What it has written stays: empty its read model, too.

        Raises:
            LeadershipLost: somebody runs it: stop it first.
        """
        self._check_open()
        await self._projections.reset(projection)

    def register_exporter(self, exporter: object, *, name: str | None = None) -> str:
        """Add an exporter, also while commands run; see ``Telemetry.register_exporter``."""
        return self.telemetry.register_exporter(exporter, name=name)

    async def unregister_exporter(self, name: str, timeout: float = _CLOSE_TIMEOUT) -> ExporterReport:
        """Let an exporter deliver what it has and forget it; see ``Telemetry.unregister_exporter``."""
        return await self.telemetry.unregister_exporter(name, timeout)

    def _check_open(self) -> None:
        if self._state != "open":
            raise StoreClosed(f"the store {self.name!r} is not open: use it within 'async with open_store(...) as store:'")
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
