"""Metrics that a backend gives: waits and bytes that it counts, and samples of the database every few seconds."""

from __future__ import annotations

import asyncio
import time
from time import monotonic
from typing import Final, final, get_args

from eventcore.catalogue.metrics import BackendMetrics
from eventcore.catalogue.outages import Outages
from eventcore.errors import AccessDenied, IncompatibleStore, StoreUnavailable
from eventcore.ground import BreakerState, OwnedTask, cancel_and_wait, spawn, text_of
from eventcore.recording import CallbackHandle, HistogramCell
from eventcore.stores.base import Backend
from eventcore.stores.sampling import CANCELLED_WAIT, BackendCounters, DatabaseSample, SupportsSampling, Wait
from eventcore.telemetry import Telemetry

_SAMPLE_INTERVAL: Final = 5.0
# After a failure: soon, so that the store is shown as up again.
_RETRY_INTERVAL: Final = 1.0
# What keeps every append out. Other errors may be the fault of one request.
_OF_ALL_APPENDS: Final = (StoreUnavailable, AccessDenied, IncompatibleStore)


@final
class BackendInstruments(BackendMetrics):
    """The metrics that a ``SupportsSampling`` backend gives; for any other backend they are absent."""

    def __init__(self, telemetry: Telemetry, store: str, backend: Backend) -> None:
        super().__init__(telemetry)
        self._store = store
        self._backend = backend if isinstance(backend, SupportsSampling) else None
        self._counters = self._backend.counters if self._backend is not None else BackendCounters()
        self._counters.own_io = telemetry.own_io
        self._system = backend.system
        # By what was waited for: looking a series up costs more than recording in it.
        self._waits: dict[tuple[Wait, str], HistogramCell] = {("pool", ""): self.pool_wait.labels(store)}
        self._head: int | None = None
        self._last_append: float | None = None
        self._size: int | None = None
        self._disk_free: int | None = None
        # Whether the store answered when it was asked last; `None` while it is not open.
        self._answers: bool | None = None
        self._task: OwnedTask[None] | None = None
        self.outages = Outages(store, lambda: self._is_up() != 0)
        # When each append that has no answer yet was begun, the oldest first; and why the last one failed, with the time.
        self._appending: dict[object, float] = {}
        self.append_failure: tuple[float, str] | None = None
        counters = self._counters
        self._handles: list[CallbackHandle] = [
            self.io.add_callback(lambda: {(store, "read"): counters.bytes_read, (store, "write"): counters.bytes_written}),
            self.pool_connections.add_callback(
                lambda: {(store, "idle"): counters.connections_idle, (store, "used"): counters.connections_used}
            ),
            self.head_position.add_callback(lambda: {(store, backend.system): self._head}),
            self.last_append_age.add_callback(lambda: {(store,): self._age()}),
            self.size.add_callback(lambda: {(store,): self._size}),
            self.disk_free.add_callback(lambda: {(store,): self._disk_free}),
            self.pool_limit.add_callback(lambda: {(store,): counters.connections_limit}),
            self.pool_timeouts.add_callback(lambda: {(store,): counters.connection_timeouts}),
            self.breaker_state.add_callback(lambda: self._breaker_states(store, counters.breaker)),
            self.up.add_callback(lambda: {(store,): self._is_up()}),
        ]

    def opened(self) -> None:
        """Start to sample the database every few seconds, on the running loop."""
        self._answers = True
        if self._backend is not None:
            self._counters.on_wait = self._waited
            self._task = spawn(self._sample_for_ever(self._backend), "eventcore-store-stats")

    async def stop(self) -> None:
        """Stop sampling the database."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None

    def closed(self) -> None:
        """Stop showing what is true of an open store only."""
        self._counters.on_wait = None
        for handle in self._handles:
            handle.close()

    def append_begins(self) -> object:
        """Note that an append waits for its answer. Returns what ``append_ends`` needs."""
        key = object()
        self._appending[key] = monotonic()
        return key

    def append_ends(self, key: object, error: BaseException | None) -> None:
        """Note that an append has its answer, or what it failed with."""
        del self._appending[key]
        if error is None:
            self.append_failure = None
        elif isinstance(error, _OF_ALL_APPENDS):
            self.append_failure = (monotonic(), text_of(error))

    def command_gave_up(self) -> None:
        """Count a wait for a connection that ended without one, if a command has ended by its timeout while a call waits.

        Commands share calls. So a call goes on waiting for those that still want it, and may even get a connection later.
        """
        counters = self._counters
        begun = next(iter(counters.connection_waits.values()), None)
        if begun is not None and monotonic() - begun >= CANCELLED_WAIT:
            counters.connection_timeouts = (counters.connection_timeouts or 0) + 1

    def append_wait(self) -> float | None:
        """Seconds for which the oldest append without answer has been waiting; ``None`` when there is none."""
        begun = next(iter(self._appending.values()), None)
        return None if begun is None else monotonic() - begun

    def appended(self, head: int) -> None:
        """Note that this process has appended events up to the position ``head``."""
        self._last_append = monotonic()
        if self._head is None or head > self._head:
            self._head = head

    async def _sample_for_ever(self, backend: SupportsSampling) -> None:
        while True:
            begun = monotonic()
            try:
                async with asyncio.timeout(_SAMPLE_INTERVAL):
                    sample = await backend.sample()
                self._answers = True
                if self.outages.failures and self._is_up():
                    self.outages.succeeded()
            except Exception as error:  # noqa: BLE001  # after any failure the values are unknown
                sample = DatabaseSample()
                self._answers = False
                self.outages.failed(error, monotonic() - begun)
            self._keep(sample)
            await asyncio.sleep(_SAMPLE_INTERVAL if self._answers else _RETRY_INTERVAL)

    def _keep(self, sample: DatabaseSample) -> None:
        # This process may have appended more while the database was asked.
        self._head = max(sample.head, self._head or 0) if sample.head is not None else None
        self._size, self._disk_free = sample.size, sample.disk_free
        if sample.last_append_ns is None:
            self._last_append = None
        else:
            then = monotonic() - max(0.0, (time.time_ns() - sample.last_append_ns) / 1e9)
            self._last_append = max(then, self._last_append or then)

    def _age(self) -> float | None:
        last_append = self._last_append
        return None if last_append is None else max(0.0, monotonic() - last_append)

    def _is_up(self) -> int | None:
        if self._answers is None:
            return None
        return int(self._answers and self._counters.breaker in (None, "closed"))

    def _breaker_states(self, store: str, current: BreakerState | None) -> dict[tuple[str, ...], int | None]:
        if current is None:
            return {}
        return {(store, state): int(state == current) for state in get_args(BreakerState)}

    def _waited(self, wait: Wait, lock: str, seconds: float) -> None:
        if (cell := self._waits.get((wait, lock))) is None:
            cell = self._waits[wait, lock] = self.lock_wait.labels(self._store, lock, self._system)
        cell.record(seconds)
